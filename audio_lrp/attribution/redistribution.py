"""The one backward pass that carries out what a rule declares.

Relevance travels through autograd in the place of gradients, as in zennit, so that rules of both mix freely. The output
of a linear call is left as it is, to the bit. In the backward pass the relevance of the outputs is divided by what the
rule takes for their pre-activations and propagated to the inputs by the transposed call: nothing is computed twice, and
what does not depend on the relevance serves all classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from audio_lrp.attribution.calls import RuleCall
from audio_lrp.attribution.graph import is_nonnegative
from audio_lrp.attribution.operators import Operator
from audio_lrp.attribution.propagation import Part, Propagation, PropagationRule, negative, positive, simplified, whole


def stabilized(value: Tensor, stabilizer: float, sign: Part) -> Tensor:
    """``value + stabilizer * sign(value)``, in place where the sign is known; zero counts as positive."""
    if sign is positive:
        return value.add_(stabilizer)
    if sign is negative:
        return value.sub_(stabilizer)
    return torch.copysign(value.new_full((), stabilizer), value).add_(value)


class Redistribution(torch.autograd.Function):
    """Returns a layer's output and, in the backward pass, propagates its relevance to the input by a rule."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        input: Tensor,  # noqa: A002
        account: Tensor,  # noqa: ARG004
        modified_gradient: Tensor,  # noqa: ARG004
        call: RuleCall,
    ) -> Tensor:
        """Return ``output`` itself; ``account`` and ``modified_gradient`` are the placeholders of the call."""
        ctx.call = call
        ctx.nonnegative = call.nonnegative and call.operator.weight is None
        propagations = call.rule.propagations()
        memory = None
        if any(propagation.is_layer for propagation in propagations):
            memory = stabilized(output, call.rule.stabilizer, whole)
        elif any(propagation.outputs is not whole for propagation in propagations):
            memory = output < 0
        ctx.save_for_backward(input, memory)
        ctx.mark_dirty(output)  # returned as it is, without a copy; what follows may change it in place
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Relevance of the input, and the by-products asked for."""
        (upper,) = gradients
        input, memory = ctx.saved_tensors  # noqa: A001
        call: RuleCall = ctx.call
        rule, operator = call.rule, call.operator
        if not rule.active:
            return None, *operator.transpose(input, [operator.weight], upper), None, None, None
        prepared = call.prepared
        if prepared is None:
            propagations = simplified(rule.propagations(), call.nonnegative, call.rectified)
            prepared = [
                _Prepared(propagation, operator, input, memory, rule.stabilizer, call.serves_many)
                for propagation in propagations
            ]
        if call.serves_many:
            call.prepared = prepared
        flow = _Flow(operator, input, upper, rule.stabilizer, call.wants_account)
        for propagation in prepared:
            flow.propagate(propagation)
        modified_gradient = flow.modified_gradient() if rule.proportional else None
        wanted = None
        if modified_gradient is None:
            lower = flow.lower()
        elif call.wants_modified_gradient:
            lower, wanted = input * modified_gradient, torch.where(input == 0, 0.0, modified_gradient)
        else:
            lower = modified_gradient.mul_(
                input
            )  # in place: a new large tensor costs the CPU more than the product itself
        account = flow.account(lower) if call.wants_account else None
        return None, lower, account, wanted, None


def redistributed(
    output: Tensor, rule: PropagationRule, operator: Operator, module: nn.Module, constant: bool
) -> Tensor:
    """The output of a linear call, tied to its input by a rule.

    Args:
        output: of the call [B, ...], not part of a graph.
        rule: the rule.
        operator: the call.
        module: the layer that made it.
        constant: whether its weights and bias do not depend on what is explained.
    """
    value = operator.input
    account = value.new_zeros((len(value), 4), dtype=torch.float64, requires_grad=True)
    modified_gradient = value.detach().requires_grad_()  # only its shape counts
    call = RuleCall(rule, operator, module, constant, is_nonnegative(value), account, modified_gradient)
    tied: Tensor = Redistribution.apply(output, value, account, modified_gradient, call)  # type: ignore[no-untyped-call]
    node: Any = tied.grad_fn
    call.position = node._sequence_nr()
    return tied


class PassThrough(torch.autograd.Function):
    """Returns a layer's output and, in the backward pass, passes its relevance to the input unchanged."""

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
    """What a propagation needs of a layer, for any relevance.

    Args:
        propagation: the propagation.
        operator: the layer.
        input: its input [B, ...].
        memory: what the forward pass kept of its output.
        stabilizer: added to pre-activations, away from zero.
        serves_many: whether more than one backward pass will use it.
    """

    def __init__(
        self,
        propagation: Propagation,
        operator: Operator,
        input: Tensor,  # noqa: A002
        memory: Tensor | None,
        stabilizer: float,
        serves_many: bool,
    ) -> None:
        self.propagation = propagation
        weights = [None if operator.weight is None else term.weight(operator.weight) for term in propagation.terms]
        self.bias = None if propagation.bias is None or operator.bias is None else propagation.bias(operator.bias)
        if propagation.is_layer and memory is not None:
            self.denominator = memory
        else:
            preactivation = operator.apply([term.input(input) for term in propagation.terms], weights, self.bias)
            self.denominator = stabilized(preactivation, stabilizer, propagation.sign)
        # The fraction is put into the weights, which are smaller than the relevance they are multiplied by.
        self.weights = [
            weight if weight is None or propagation.fraction == 1 else propagation.fraction * weight
            for weight in weights
        ]
        # An output of zero has no contributions to go by; most layers have none.
        empty = self.denominator == 0 if stabilizer == 0 else None
        self.empty = empty if empty is not None and empty.any() else None
        self._outputs: Tensor | None = None
        if propagation.outputs is not whole and memory is not None:
            self._outputs = memory if propagation.outputs is negative else ~memory
        self._stabilizer = stabilizer
        self._added: Tensor | None = None
        self._serves_many = serves_many
        self._normalised: Tensor | None = None

    def taking_part(self, upper: Tensor) -> Tensor:
        """Relevance of the outputs that this propagation starts at, 0 of the others."""
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

    def propagate(self, prepared: _Prepared) -> None:
        """Add what one propagation brings to the input."""
        propagation, normalised = prepared.propagation, prepared.normalised(self._upper)
        parts = self._operator.transpose(self._input, prepared.weights, normalised)
        for term, carried in zip(propagation.terms, parts, strict=True):
            known = self._carried.get(term.input)
            self._carried[term.input] = carried if known is None else known.add_(carried)
        if self._keeps_account:
            self._count(prepared, normalised)

    def _count(self, prepared: _Prepared, normalised: Tensor) -> None:
        """Add to what bias and stabilizer have taken, from what each unit of the denominators stands for.

        ``normalised`` is used up.
        """
        sign, fraction = prepared.propagation.sign, prepared.propagation.fraction
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

    def modified_gradient(self) -> Tensor:
        """Relevance of each input value divided by it, for rules that propagate in proportion to the input."""
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
