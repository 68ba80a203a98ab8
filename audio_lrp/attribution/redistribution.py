"""The engine below every rule: what a rule declares, and the one backward pass that carries it out.

Relevance travels through autograd in the place of gradients, as in zennit, so that rules of both mix freely. The output
of a linear call is left as it is, to the bit. In the backward pass the relevance of the outputs is divided by what the
rule takes for their pre-activations and propagated to the inputs by the transposed call: nothing is computed twice, and
what does not depend on the relevance serves all classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_lrp.attribution.graph import is_nonnegative
from audio_lrp.attribution.operators import Operator

if TYPE_CHECKING:
    from audio_lrp.attribution.rules import Rule

Part = Callable[[Tensor], Tensor]
"""Makes what a rule works with out of a layer's input, weight or bias."""


def whole(value: Tensor) -> Tensor:
    """The values as they are."""
    return value


def positive(value: Tensor) -> Tensor:
    """The positive values, zero elsewhere."""
    return value.clamp(min=0)


def negative(value: Tensor) -> Tensor:
    """The negative values, zero elsewhere."""
    return value.clamp(max=0)


@dataclass(frozen=True)
class Constant:
    """The same value everywhere, for every sample."""

    value: float

    def __call__(self, like: Tensor) -> Tensor:
        """One sample of the constant, which broadcasts over the batch."""
        return torch.full_like(like[:1], self.value)


@dataclass(frozen=True)
class Term:
    """A part of the input mapped by a part of the weights.

    Attributes:
        input: part of the input, or what takes its place.
        weight: part of the weights, or what takes their place.
    """

    input: Part
    weight: Part


@dataclass(frozen=True)
class Share:
    """A share of each output's relevance, handed to the inputs in proportion to their contributions.

    If input i contributes ``c_ij`` to ``p_j = sum_i c_ij + bias_j``, summed over the terms, it is given
    ``fraction * sum_j c_ij R_j / (p_j + stabilizer * sign(p_j))``.

    Attributes:
        terms: the maps whose sum is p.
        bias: part of the bias that counts among the contributions; None: none.
        fraction: how much of the relevance is handed out; negative: with its sign turned.
        outputs: `positive` or `negative`: only outputs of this sign hand out this share (zero counts as positive);
            `whole`: all outputs.
        sign: `positive` or `negative`: no p has another sign, whatever the input; `whole`: p may have any.
    """

    terms: tuple[Term, ...]
    bias: Part | None = None
    fraction: float = 1.0
    outputs: Part = whole
    sign: Part = whole

    @property
    def is_layer(self) -> bool:
        """Whether p is the layer's own output."""
        return self.terms == (Term(whole, whole),) and self.bias is whole


def simplified(shares: Sequence[Share], nonnegative: bool, rectified: bool) -> list[Share]:
    """The same shares without the terms that are zero.

    Args:
        shares: as the rule declares them.
        nonnegative: no input is below zero.
        rectified: no output below zero has relevance.
    """
    kept = []
    for share in shares:
        if rectified and share.outputs is negative:
            continue
        terms = share.terms
        if nonnegative:
            terms = tuple(
                replace(term, input=whole) if term.input is positive else term
                for term in terms
                if term.input is not negative
            )
        kept.append(replace(share, terms=terms, outputs=whole if rectified else share.outputs))
    return kept


def stabilized(value: Tensor, stabilizer: float, sign: Part) -> Tensor:
    """``value + stabilizer * sign(value)``, in place where the sign is known; zero counts as positive."""
    if sign is positive:
        return value.add_(stabilizer)
    if sign is negative:
        return value.sub_(stabilizer)
    return torch.copysign(value.new_full((), stabilizer), value).add_(value)


class Redistribution(torch.autograd.Function):
    """Returns a layer's output and, in the backward pass, hands its relevance to the input by a rule.

    Two stand-ins take part in the graph besides the input. What autograd takes for their gradients are by-products of
    the backward pass, made only where ``wants_account`` or ``wants_quotient`` is set on the node of the graph: for
    ``account`` [B, 4] the relevance that came in, went to the inputs, to the bias and to the stabilizer; for
    ``quotient``, shaped like the input, relevance divided by input, 0 where the input is 0. With ``serves_many`` what
    does not depend on the relevance is kept from the first backward pass to the next ones.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        input: Tensor,  # noqa: A002
        account: Tensor,
        quotient: Tensor,
        rule: "Rule",
        operator: Operator,
        nonnegative: bool,
    ) -> Tensor:
        """Return ``output`` itself; ``nonnegative``: it is known that no input is below zero."""
        ctx.rule, ctx.operator, ctx.account, ctx.quotient = rule, operator, account, quotient
        ctx.of_nonnegative = nonnegative
        ctx.nonnegative = nonnegative and operator.weight is None
        ctx.rectified = ctx.wants_account = ctx.wants_quotient = ctx.serves_many = False  # until the graph is known
        ctx.prepared = None
        shares = rule.shares()
        memory = None
        if any(share.is_layer for share in shares):
            memory = stabilized(output, rule.stabilizer, whole)
        elif any(share.outputs is not whole for share in shares):
            memory = output < 0
        ctx.save_for_backward(input, memory)
        ctx.mark_dirty(output)  # returned as it is, without a copy; what follows may change it in place
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Relevance of the input, and the by-products asked for."""
        (upper,) = gradients
        input, memory = ctx.saved_tensors  # noqa: A001
        rule, operator = ctx.rule, ctx.operator
        if not rule.active:  # inside zennit's Composite.inactive(): the plain gradient
            return None, *operator.transpose(input, [operator.weight], upper), None, None, None, None, None
        prepared = ctx.prepared
        if prepared is None:
            shares = simplified(rule.shares(), ctx.of_nonnegative, ctx.rectified)
            prepared = [_Prepared(share, operator, input, memory, rule.stabilizer, ctx.serves_many) for share in shares]
        if ctx.serves_many:
            ctx.prepared = prepared
        flow = _Flow(operator, input, upper, rule.stabilizer, ctx.wants_account)
        for share in prepared:
            flow.hand_out(share)
        quotient = flow.quotient() if rule.proportional else None
        wanted = None
        if quotient is None:
            lower = flow.lower()
        elif ctx.wants_quotient:
            lower, wanted = input * quotient, torch.where(input == 0, 0.0, quotient)
        else:
            lower = quotient.mul_(input)  # in place: a new large tensor costs the CPU more than the product itself
        account = flow.account(lower) if ctx.wants_account else None
        return None, lower, account, wanted, None, None, None


def redistributed(output: Tensor, rule: "Rule", operator: Operator, constant: bool) -> Tensor:
    """The output of a linear call, tied to its input by a rule.

    Args:
        output: of the call [B, ...], not part of a graph.
        rule: the rule.
        operator: the call.
        constant: whether its weights and bias do not depend on what is explained.
    """
    value = operator.input
    account = value.new_zeros((len(value), 4), dtype=torch.float64, requires_grad=True)
    quotient = value.detach().requires_grad_()  # only its shape counts
    tied: Tensor = Redistribution.apply(  # type: ignore[no-untyped-call]
        output, value, account, quotient, rule, operator, is_nonnegative(value)
    )
    node: Any = tied.grad_fn
    node.constant, node.version = constant, tied._version
    return tied


class PassThrough(torch.autograd.Function):
    """Returns a layer's output and, in the backward pass, hands its relevance to the input unchanged."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, input: Tensor, rectifies: bool) -> Tensor:  # noqa: A002, ARG004
        """Return ``output`` itself; ``rectifies``: it is zero wherever the input is below zero, and never negative."""
        ctx.rectifies = ctx.nonnegative = rectifies
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> Any:  # noqa: ARG004
        """The same relevance for the input."""
        return None, relevance[0], None


class _Prepared:
    """What a share needs of a layer, whatever the relevance.

    Args:
        share: the share.
        operator: the layer.
        input: its input [B, ...].
        memory: what the forward pass kept of its output.
        stabilizer: added to pre-activations, away from zero.
        serves_many: whether more than one backward pass will use it.
    """

    def __init__(
        self,
        share: Share,
        operator: Operator,
        input: Tensor,  # noqa: A002
        memory: Tensor | None,
        stabilizer: float,
        serves_many: bool,
    ) -> None:
        self.share = share
        weights = [None if operator.weight is None else term.weight(operator.weight) for term in share.terms]
        self.bias = None if share.bias is None or operator.bias is None else share.bias(operator.bias)
        if share.is_layer and memory is not None:
            self.denominator = memory
        else:
            preactivation = operator.apply([term.input(input) for term in share.terms], weights, self.bias)
            self.denominator = stabilized(preactivation, stabilizer, share.sign)
        # The fraction is put into the weights, which are smaller than the relevance they are multiplied by.
        self.weights = [
            weight if weight is None or share.fraction == 1 else share.fraction * weight for weight in weights
        ]
        # An output of zero has no contributions to go by; most layers have none.
        empty = self.denominator == 0 if stabilizer == 0 else None
        self.empty = empty if empty is not None and empty.any() else None
        self._outputs: Tensor | None = None
        if share.outputs is not whole and memory is not None:
            self._outputs = memory if share.outputs is negative else ~memory
        self._stabilizer = stabilizer
        self._added: Tensor | None = None
        self._serves_many = serves_many
        self._normalised: Tensor | None = None

    def taking_part(self, upper: Tensor) -> Tensor:
        """Relevance of the outputs that hand out this share, 0 of the others."""
        return upper if self._outputs is None else torch.where(self._outputs, upper, 0.0)

    def normalised(self, upper: Tensor) -> Tensor:
        """Relevance for each unit of the denominators; valid until the next call."""
        # Memory that is used again is in place already: for a large tensor that takes longer than the division.
        normalised: Tensor = torch.div(self.taking_part(upper), self.denominator, out=self._normalised)
        if self._serves_many:
            self._normalised = normalised
        return normalised if self.empty is None else normalised.masked_fill_(self.empty, 0.0)

    @property
    def added(self) -> Tensor:
        """What the stabilizer added to each denominator, made once for all classes."""
        if self._added is None:
            self._added = torch.copysign(self.denominator.new_full((), self._stabilizer), self.denominator)
        return self._added


class _Flow:
    """Relevance on its way through one layer.

    Args:
        operator: the layer.
        input: its input [B, ...].
        upper: relevance of its outputs [B, ...].
        stabilizer: added to pre-activations, away from zero.
        keeps_account: whether to count what bias and stabilizer take.
    """

    def __init__(
        self,
        operator: Operator,
        input: Tensor,  # noqa: A002
        upper: Tensor,
        stabilizer: float,
        keeps_account: bool,
    ) -> None:
        self._operator, self._input, self._upper = operator, input, upper
        self._stabilizer, self._keeps_account = stabilizer, keeps_account
        self._carried: dict[Part, Tensor] = {}  # for each part of the input: relevance per unit of it
        self._to_bias = self._to_stabilizer = upper.new_zeros(())

    def hand_out(self, prepared: _Prepared) -> None:
        """Carry one share down."""
        share, normalised = prepared.share, prepared.normalised(self._upper)
        parts = self._operator.transpose(self._input, prepared.weights, normalised)
        for term, carried in zip(share.terms, parts, strict=True):
            known = self._carried.get(term.input)
            self._carried[term.input] = carried if known is None else known.add_(carried)
        if self._keeps_account:
            self._count(prepared, normalised)

    def _count(self, prepared: _Prepared, normalised: Tensor) -> None:
        """Add to what bias and stabilizer have taken, from what each unit of the denominators stands for.

        ``normalised`` is used up.
        """
        sign, fraction = prepared.share.sign, prepared.share.fraction
        axis = self._operator.channel_axis % normalised.dim()
        others = [other for other in range(1, normalised.dim()) if other != axis]
        channels = (normalised.sum(dim=others) if others else normalised).double()
        if prepared.bias is not None:
            self._to_bias = self._to_bias + fraction * (channels @ prepared.bias.double())
        if self._stabilizer == 0:
            if prepared.empty is None:
                return
            taken = _per_sample(torch.where(prepared.empty, prepared.taking_part(self._upper), 0.0))
        elif sign is whole:
            taken = _per_sample(normalised.mul_(prepared.added))
        else:
            taken = channels.sum(dim=1) * (self._stabilizer if sign is positive else -self._stabilizer)
        self._to_stabilizer = self._to_stabilizer + fraction * taken

    def quotient(self) -> Tensor:
        """Relevance of each input value divided by it, for rules that share out in proportion to the input."""
        carried = self._carried
        if whole in carried:
            return carried[whole]
        return torch.where(self._input < 0, carried[negative], carried[positive])

    def lower(self) -> Tensor:
        """Relevance of each input value."""
        parts = [part(self._input) * carried for part, carried in self._carried.items()]
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]

    def account(self, lower: Tensor) -> Tensor:
        """Relevance that came in, went to the inputs, the bias and the stabilizer, for each sample [B, 4], float64."""
        came = _per_sample(self._upper)
        amounts = (came, _per_sample(lower), self._to_bias.expand_as(came), self._to_stabilizer.expand_as(came))
        return torch.stack(amounts, dim=1)


def _per_sample(value: Tensor) -> Tensor:
    """Sum over everything but the sample; converted afterwards, for float64 copies of activations cost too much."""
    return value.sum(dim=tuple(range(1, value.dim()))).double()
