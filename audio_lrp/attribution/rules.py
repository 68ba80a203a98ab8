"""The rules of Layer-wise Relevance Propagation, declared as data for one engine.

Notation: a layer has inputs ``x_i``, weights ``w_ij``, biases ``b_j`` and outputs ``z_j = sum_i x_i w_ij + b_j``;
``R_j`` is the relevance of an output, ``R_i`` of an input; ``v+ = max(v, 0)``, ``v- = min(v, 0)``. Every denominator
is moved away from zero by ``stabilizer``. With ``bias="absorb"`` biases take their part of the relevance, with
``bias="ignore"`` they are left out of the denominators and inputs get all of it.

All rules are `zennit.core.Hook` objects and may be used in any zennit composite, beside zennit's own rules. A rule does
not trust a layer's type or parameters: it redistributes relevance at each linear call that the layer's forward makes,
with the input, weights and bias of that call (see `audio_lrp.attribution.operators`).
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from zennit.core import Hook, RemovableHandle, RemovableHandleList
from zennit.types import Activation

from audio_lrp.attribution.graph import operation
from audio_lrp.attribution.operators import OPERATORS, LayerError, ScalingOperator
from audio_lrp.attribution.redistribution import (
    Constant,
    Part,
    PassThrough,
    Share,
    Term,
    negative,
    positive,
    redistributed,
    whole,
)
from audio_lrp.errors import UserError


@dataclass(eq=False)
class Rule(Hook):  # type: ignore[misc]
    """What all rules have in common: how they take hold of a layer.

    Attributes:
        stabilizer: moves denominators away from zero; not negative.
        bias: whether biases take relevance (``"absorb"``) or are left out of the denominators (``"ignore"``).
        proportional: whether inputs of zero get no relevance, whatever the layer.
        module: the layer a registered rule works for.
    """

    proportional: ClassVar[bool] = True

    _: KW_ONLY
    stabilizer: float = 1e-6
    bias: Literal["absorb", "ignore"] = "absorb"
    module: nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.stabilizer < float("inf"):
            raise UserError(f"stabilizer of {type(self).__name__} is {self.stabilizer}: pass 0 or a small number above")
        if self.bias not in ("absorb", "ignore"):
            raise UserError(f"bias of {type(self).__name__} is {self.bias!r}: pass 'absorb' or 'ignore'")

    def shares(self) -> tuple[Share, ...]:
        """The rule itself, as data."""
        raise NotImplementedError  # pragma: no cover: every rule has its own

    def bias_part(self, part: Part) -> Part | None:
        """The part of the bias that takes relevance."""
        return part if self.bias == "absorb" else None

    def copy(self) -> "Rule":
        """A rule with the same parameters, for another layer."""
        return replace(self)

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Take hold of a layer."""
        self.module = module
        forward = module.forward

        def intercepted(*args: Any, **kwargs: Any) -> Any:
            with LinearCalls(self) as calls:
                output = forward(*args, **kwargs)
            if isinstance(output, Tensor) and output.requires_grad and not calls.found:
                raise LayerError(
                    "it makes no linear call that audio_lrp's rules know (linear, conv1d to conv3d, batch_norm, "
                    "average pooling, mean, sum): give it a rule of zennit's"
                )
            return output

        return RemovableHandleList([RemovableHandle(self), _ForwardHandle(module, intercepted)])

    def remove(self) -> None:
        """Let go of the layer."""
        super().remove()
        self.module = None


class _ForwardHandle:
    """Another forward for a module in this thread, until removed; other threads may run the module meanwhile."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self._attributes, self._before = vars(module), vars(module).get("forward")
        plain, thread = module.forward, threading.get_ident()

        def in_this_thread(*args: Any, **kwargs: Any) -> Any:
            return (forward if threading.get_ident() == thread else plain)(*args, **kwargs)

        self._attributes["forward"] = in_this_thread

    def remove(self) -> None:
        """Put the former one back."""
        self._attributes.pop("forward", None)
        if self._before is not None:
            self._attributes["forward"] = self._before


class LinearCalls(TorchFunctionMode):
    """Ties each linear call made inside to its input by a rule, whatever module or function makes it.

    Args:
        rule: the rule of the layer whose forward runs inside.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule
        self.found = False
        """Whether there was a linear call."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call, tied where it is linear and depends on what is explained."""
        kwargs = kwargs or {}
        if func is F.pad and kwargs.get("mode") == "circular":
            return _wrapped_around(*args)
        if func not in OPERATORS or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        self.found = True
        operator = OPERATORS[func](*args, **kwargs)
        if not operator.input.requires_grad:
            return func(*args, **kwargs)
        rule = self._rule
        if operator.weight is None and not isinstance(rule, Epsilon):
            raise LayerError(f"{func.__name__} has no weights: give it the rule Epsilon, not {type(rule).__name__}")
        with torch.no_grad():
            output = func(*args, **kwargs)
        if output.ndim == 0 or len(output) != len(operator.input):
            raise LayerError(f"{func.__name__} mixes the samples of the batch")
        others = [
            value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value is not operator.input
        ]
        constant = all(value.grad_fn is None for value in others)
        if isinstance(rule, MergeBatchNorm) and isinstance(operator, ScalingOperator):
            below: Any = operator.input.grad_fn
            if (
                below is not None
                and operation(below) == "Redistribution"
                and (merged := operator.after(below.operator))
            ):
                rule, operator, constant = below.rule, merged, constant and below.constant
        return redistributed(output.detach(), rule, operator, constant)


def _wrapped_around(value: Tensor, pad: Sequence[int]) -> Tensor:
    """Circular padding by slices, which the graph shows; torch's own writes in place, which may hide anything."""
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        size = value.shape[-axis]
        ends = value.narrow(-axis, size - before, before), value.narrow(-axis, 0, after)
        value = torch.cat([ends[0], value, ends[1]], dim=-axis)
    return value


@dataclass(eq=False)
class Epsilon(Rule):
    """Epsilon rule: ``R_i = sum_j x_i w_ij R_j / (z_j + epsilon sign(z_j))``.

    With ``epsilon=0`` this is LRP-0. Average pooling and sums may have it as well. Source: Bach et al., 2015,
    doi:10.1371/journal.pone.0130140, eq. 58.

    Attributes:
        epsilon: takes relevance where outputs are small; in the units of the outputs.

    Example:
        >>> Epsilon(epsilon=0.01)
        Epsilon(bias='absorb', epsilon=0.01)
    """

    stabilizer: float = field(default=1e-6, init=False, repr=False)
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        self.stabilizer = self.epsilon
        super().__post_init__()

    def shares(self) -> tuple[Share, ...]:
        """All contributions alike."""
        return (Share((Term(whole, whole),), self.bias_part(whole)),)


@dataclass(eq=False)
class MergeBatchNorm(Epsilon):
    """Rule of batch normalisations: merged into the convolution or dense layer before it, else an affine layer.

    By running statistics ``gamma (x - mean) / sqrt(variance + eps) + beta`` is ``s x + t`` for each channel. Where x is
    the output of a convolution or dense layer, both are one linear layer, with weights ``s w`` and bias ``s b + t``,
    that gets relevance by that layer's rule (Guillemot et al., 2020, arXiv 2009.02266). Elsewhere, as after an
    activation or pooling or first in the network, it is a layer of its own under the epsilon rule.
    """


_POSITIVE = (Term(positive, positive), Term(negative, negative))
_NEGATIVE = (Term(positive, negative), Term(negative, positive))


@dataclass(eq=False)
class AlphaBeta(Rule):
    """Alpha-beta rule: ``R_i = sum_j (alpha (x_i w_ij)+ / p+_j - beta (x_i w_ij)- / p-_j) R_j``.

    ``p+_j = sum_i (x_i w_ij)+ + b_j+`` gathers what speaks for an output, ``p-_j = sum_i (x_i w_ij)- + b_j-`` what
    speaks against it. Source: Bach et al., 2015, doi:10.1371/journal.pone.0130140, eq. 60.

    Attributes:
        alpha: weight of what speaks for an output.
        beta: weight of what speaks against it, not negative; ``alpha - beta`` is 1.

    Example:
        >>> [share.fraction for share in AlphaBeta(alpha=2, beta=1).shares()]
        [2, -1]
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0 or not math.isclose(self.alpha - self.beta, 1):
            raise UserError(
                f"alpha is {self.alpha} and beta {self.beta}: the rule needs alpha - beta = 1 and beta of at least 0"
            )

    def shares(self) -> tuple[Share, ...]:
        """What speaks for an output and, unless beta is 0, what speaks against it."""
        speaks_for = Share(_POSITIVE, self.bias_part(positive), self.alpha, sign=positive)
        speaks_against = Share(_NEGATIVE, self.bias_part(negative), -self.beta, sign=negative)
        return (speaks_for, speaks_against) if self.beta else (speaks_for,)


@dataclass(eq=False)
class ZPlus(Rule):
    """Z-plus rule: ``R_i = sum_j (x_i w_ij)+ / p+_j R_j``, with ``p+_j = sum_i (x_i w_ij)+ + b_j+``.

    The alpha-beta rule with alpha 1 and beta 0. Source: Montavon et al., 2017, arXiv 1512.02479, for inputs that are
    not negative; for all inputs Bach et al., 2015, doi:10.1371/journal.pone.0130140, eq. 60.
    """

    def shares(self) -> tuple[Share, ...]:
        """What speaks for an output."""
        return (Share(_POSITIVE, self.bias_part(positive), sign=positive),)


@dataclass(frozen=True)
class _Strengthened:
    """``v + gamma * part(v)``; equal ones compare equal."""

    gamma: float
    part: Part

    def __call__(self, value: Tensor) -> Tensor:
        return value + self.gamma * self.part(value)


@dataclass(eq=False)
class Gamma(Rule):
    """Generalised gamma rule: contributions of the output's own sign are strengthened by gamma.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)+) / (z_j + gamma p+_j) R_j`` over outputs of at least 0, and the same
    with ``(x_i w_ij)-`` and ``p-_j`` over outputs below 0; p+ and p- as in `AlphaBeta`. Sources: Montavon et al.,
    2019, doi:10.1007/978-3-030-28954-6_10, for inputs that are not negative; Andéol et al., 2021, arXiv 2104.11548.

    Attributes:
        gamma: how much; 0 is the epsilon rule, infinity z-plus.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < float("inf"):
            raise UserError(f"gamma is {self.gamma}: pass a number of at least 0")

    def shares(self) -> tuple[Share, ...]:
        """Outputs that are not negative, and negative ones."""
        more, less = _Strengthened(self.gamma, positive), _Strengthened(self.gamma, negative)
        return (
            Share((Term(positive, more), Term(negative, less)), self.bias_part(more), outputs=positive),
            Share((Term(positive, less), Term(negative, more)), self.bias_part(less), outputs=negative),
        )


@dataclass(eq=False)
class Flat(Rule):
    """Flat rule: ``R_i = sum_j R_j / n_j``, every input connected to an output gets the same.

    ``n_j`` counts the connections, so neither input nor weights matter. For the first layer. Source: Lapuschkin et
    al., 2019, arXiv 1902.10178.
    """

    proportional: ClassVar[bool] = False

    def shares(self) -> tuple[Share, ...]:
        """One for every connection."""
        return (Share((Term(Constant(1.0), torch.ones_like),), sign=positive),)


def _squared(value: Tensor) -> Tensor:
    return value.square()


@dataclass(eq=False)
class WSquare(Rule):
    """W-square rule: ``R_i = sum_j w_ij^2 / (sum_i w_ij^2 + b_j^2) R_j``, whatever the input.

    For a first layer whose input may take any value. Source: Montavon et al., 2017, arXiv 1512.02479 (without bias).
    """

    proportional: ClassVar[bool] = False

    def shares(self) -> tuple[Share, ...]:
        """Squared weights."""
        return (Share((Term(Constant(1.0), _squared),), self.bias_part(_squared), sign=positive),)


@dataclass(eq=False)
class ZBox(Rule):
    """Z-box rule: ``R_i = sum_j (x_i w_ij - low w_ij+ - high w_ij-) / p_j R_j``, p_j the sum of the same over i.

    For a first layer whose input lies between ``low`` and ``high``; biases cancel. Source: Montavon et al., 2017,
    arXiv 1512.02479.

    Attributes:
        low: lowest value the input can take.
        high: highest value the input can take.

    Example:
        >>> ZBox(low=0.0, high=1.0).proportional
        False
    """

    proportional: ClassVar[bool] = False

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise UserError(f"low is {self.low} and high {self.high}: the box rule needs the range of the input")

    def shares(self) -> tuple[Share, ...]:
        """Contributions above the least that each input could contribute."""
        least = (Term(Constant(-self.low), positive), Term(Constant(-self.high), negative))
        return (Share((Term(whole, whole), *least)),)


class Pass(Hook):  # type: ignore[misc]
    """Propagates relevance unchanged through an elementwise layer: each input gets what its output had.

    Example:
        >>> from zennit.types import Activation
        >>> isinstance(nn.Tanh(), Activation)  # what it is meant for
        True
    """

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Take hold of a layer."""
        forward = module.forward
        known = getattr(forward, "__func__", None)  # a subclass of ReLU may compute anything
        rectifies, is_torchs = known in (nn.ReLU.forward, nn.ReLU6.forward), known in _TORCHS_ACTIVATIONS

        def passing(value: Tensor, *others: Any, **kwargs: Any) -> Any:
            if not value.requires_grad:
                return forward(value, *others, **kwargs)
            sample = None if is_torchs else value[:1].detach().clone()  # the layer may work in place
            with torch.no_grad():
                output = forward(value.detach(), *others, **kwargs)
            if others or kwargs or not (sample is None or is_elementwise(forward, sample, output)):
                raise LayerError(NOT_ELEMENTWISE)
            node: Any = value.grad_fn
            if hasattr(node, "version"):
                node.version = value._version  # the layer may have worked in place
            passed: Tensor = PassThrough.apply(output.detach(), value, rectifies)  # type: ignore[no-untyped-call]
            return passed

        return RemovableHandleList([RemovableHandle(self), _ForwardHandle(module, passing)])


_TORCHS_ACTIVATIONS = {kind.forward for kind in vars(Activation)["__subclass__"]} - {nn.MultiheadAttention.forward}
"""Forwards that are known to be elementwise."""

NOT_ELEMENTWISE = (
    "it is not elementwise, as the rule Pass assumes: replace it by a layer that has a rule, or pass a composite with "
    "a zennit Hook of your own for it"
)


def is_elementwise(forward: Callable[[Tensor], Any], sample: Tensor, output: Any) -> bool:
    """Whether each output depends on the input at its own place alone: where others change, it must stay the same.

    Args:
        forward: the layer.
        sample: the first sample of its input [1, ...].
        output: what it made of the whole batch [B, ...].
    """
    if not isinstance(output, Tensor) or output.shape[1:] != sample.shape[1:]:
        return False
    kept = torch.rand(sample.shape, generator=torch.Generator().manual_seed(0)).to(sample.device) < 0.5
    with torch.no_grad():
        found = forward(torch.where(kept, sample, 1 - sample))
    expected = output[:1].detach()
    return torch.allclose(torch.where(kept, found, expected), expected, rtol=1e-4, atol=1e-6, equal_nan=True)
