"""How rules take hold of layers: by the linear calls that a layer's forward makes, or by its being elementwise.

A rule does not trust a layer's type or parameters: it propagates relevance at each linear call that the layer's forward
makes, with the input, weights and bias of that call (see `audio_lrp.attribution.operators`).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from zennit.core import Hook, RemovableHandle, RemovableHandleList
from zennit.types import Activation

from audio_lrp.attribution.calls import call_of
from audio_lrp.attribution.operators import OPERATORS, LayerError, ScalingOperator
from audio_lrp.attribution.propagation import Part, Propagation, negative, positive, whole
from audio_lrp.attribution.redistribution import PassThrough, redistributed
from audio_lrp.errors import UserError


@dataclass(eq=False)
class Rule(Hook):  # type: ignore[misc]
    """What all rules have in common: how they take hold of a layer.

    Attributes:
        stabilizer: moves denominators away from zero; not negative.
        bias: whether biases take relevance (``"absorb"``) or are left out of the denominators (``"ignore"``).
        proportional: whether inputs of zero get no relevance, whatever the layer.
        needs_weights: whether it cannot serve calls without weights, such as averages.
        merges: whether a scaling is merged into the convolution or dense layer before it, and goes by that one's rule.
    """

    proportional: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    merges: ClassVar[bool] = False

    _: KW_ONLY
    stabilizer: float = 1e-6
    bias: Literal["absorb", "ignore"] = "absorb"

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.stabilizer < float("inf"):
            raise UserError(f"stabilizer of {type(self).__name__} is {self.stabilizer}: pass 0 or a small number above")
        if self.bias not in ("absorb", "ignore"):
            raise UserError(f"bias of {type(self).__name__} is {self.bias!r}: pass 'absorb' or 'ignore'")

    def propagations(self) -> tuple[Propagation, ...]:
        """The rule itself, as data."""
        raise NotImplementedError  # pragma: no cover: every rule has its own

    def bias_part(self, part: Part) -> Part | None:
        """The part of the bias that takes relevance."""
        return part if self.bias == "absorb" else None

    def copy(self) -> "Rule":
        """A rule with the same parameters, for another layer."""
        return replace(self)

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Take hold of a layer.

        Raises:
            UserError: the rule goes by a part of the input that no relevance in proportion to the input can.
        """
        parts = {term.input for propagation in self.propagations() for term in propagation.terms}
        if self.proportional and parts not in ({whole}, {positive, negative}):
            raise UserError(
                f"{type(self).__name__} propagates relevance in proportion to the input, so its terms take the input "
                "whole, or its positive and negative parts; for others set proportional = False"
            )
        forward = module.forward

        def intercepted(*args: Any, **kwargs: Any) -> Any:
            with LinearCalls(self, module) as calls:
                output = forward(*args, **kwargs)
            if isinstance(output, Tensor) and output.requires_grad and not calls.found:
                raise LayerError(
                    "it makes no linear call that audio_lrp's rules know (linear, conv1d to conv3d, batch_norm, "
                    "average pooling, mean, sum): give it a rule of zennit's"
                )
            return output

        return RemovableHandleList([RemovableHandle(self), _ForwardHandle(module, intercepted)])


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
        module: the layer.
    """

    def __init__(self, rule: Rule, module: nn.Module) -> None:
        super().__init__()
        self._rule, self._module = rule, module
        self.found = False
        """Whether there was a linear call."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call, tied where it is linear and depends on what is explained."""
        kwargs = kwargs or {}
        if func is F.pad and kwargs.get("mode") == "circular":
            return _wrapped_around(*args)
        if func not in OPERATORS:
            return func(*args, **kwargs)
        self.found = True  # also if a layer inside this one has just tied it
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        operator = OPERATORS[func](*args, **kwargs)
        if not operator.input.requires_grad:
            return func(*args, **kwargs)
        rule = self._rule
        if operator.weight is None and rule.needs_weights:
            raise LayerError(f"{func.__name__} has no weights: give it the rule Epsilon, not {type(rule).__name__}")
        with torch.no_grad():
            output = func(*args, **kwargs)
        if output.ndim == 0 or len(output) != len(operator.input):
            raise LayerError(f"{func.__name__} mixes the samples of the batch")
        others = [
            value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value is not operator.input
        ]
        constant = all(value.grad_fn is None for value in others)
        if rule.merges and isinstance(operator, ScalingOperator) and operator.input.grad_fn is not None:
            below = call_of(operator.input.grad_fn)
            if below is not None and (merged := operator.after(below.operator)) is not None:
                return redistributed(output.detach(), below.rule, merged, below.module, constant and below.constant)
        return redistributed(output.detach(), rule, operator, self._module, constant)


def _wrapped_around(value: Tensor, pad: Sequence[int]) -> Tensor:
    """Circular padding by slices, which the graph shows; torch's own writes in place, which may hide anything."""
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        size = value.shape[-axis]
        ends = value.narrow(-axis, size - before, before), value.narrow(-axis, 0, after)
        value = torch.cat([ends[0], value, ends[1]], dim=-axis)
    return value


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

        def passing(*args: Any, **kwargs: Any) -> Any:
            inputs = (*args, *kwargs.values())
            if not any(isinstance(value, Tensor) and value.requires_grad for value in inputs):
                return forward(*args, **kwargs)
            if len(inputs) > 1:
                raise LayerError(NOT_ELEMENTWISE)
            (value,) = inputs
            function: Callable[[Tensor], Any] = (
                forward if args else lambda value: forward(**dict.fromkeys(kwargs, value))
            )
            sample = None if is_torchs else value[:1].detach().clone()  # the layer may work in place
            with torch.no_grad():
                output = function(value.detach())
            if not (sample is None or is_elementwise(function, sample, output)):
                raise LayerError(NOT_ELEMENTWISE)
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
