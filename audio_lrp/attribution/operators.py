"""Linear calls of a forward pass and their transposes, with inputs and weights chosen by the rule.

A rule evaluates a call such as ``conv1d(input, weight, bias)`` on parts of its input with parts of its weights (only
the positive ones, their squares, ...) and propagates relevance back through the transpose. What counts is the call
itself, with the weights it was given, not the type or the parameters of the module that made it. No `Parameter` is
ever touched. Several pairs of input and weights are evaluated as one wider layer, which moves less memory.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_lrp.attribution.polyphase import transposed_by_phases
from audio_lrp.errors import UserError

_FEW_CHANNELS = 4
"""Up to this many input channels the transposed strided convolution of CPU libraries is slow."""


class LayerError(UserError):
    """A call that no rule covers; `audio_lrp.attribution.attribute` adds the name of the module that makes it."""


class Operator(Protocol):
    """A linear call whose weights can be exchanged."""

    @property
    def input(self) -> Tensor:
        """What it maps [B, ...]."""
        ...

    @property
    def weight(self) -> Tensor | None:
        """Its weights; None: it has none."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """What it adds to every output; None: nothing."""
        ...

    @property
    def channel_axis(self) -> int:
        """Axis of the output that the bias runs along."""
        ...

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """The sum of the maps of all values, each with its weight, plus the bias."""
        ...

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """For each weight, the transposed map of ``cotangent``, which has the shape of the output for ``like``.

        The caller may overwrite the result, which shares no memory with ``cotangent``.
        """
        ...


class DenseOperator:
    """``linear``: maps the last axis of the input."""

    channel_axis = -1

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:  # noqa: A002
        features = weight.shape[-1]
        if input.ndim < 2 or input.shape[-1] != features:
            raise ValueError(f"it takes input of shape [B, ..., {features}] but gets {list(input.shape)}")
        self.input = input
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        return F.linear(_stacked(values, -1), _stacked(weights, -1), bias)

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        return (cotangent @ _stacked(weights, -1)).chunk(len(weights), dim=-1)


class ConvolutionOperator:
    """``conv1d``, ``conv2d`` or ``conv3d``: strided, dilated, grouped, with every padding."""

    channel_axis = 1

    def __init__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        channels, sizes = weight.shape[1] * groups, ", size" * (weight.ndim - 2)
        if input.ndim != weight.ndim or input.shape[1] != channels:  # torch would take some for a single sample
            raise ValueError(f"it takes input of shape [B, {channels}{sizes}] but gets {list(input.shape)}")
        self.input = input
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self._kernel = weight.shape[2:]
        dimensions = len(self._kernel)
        self._convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
        self._convolve_transposed: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dimensions - 1]
        self._stride, self._dilation = _each(stride, dimensions), _each(dilation, dimensions)
        self._groups = groups
        self._pads_first = padding == "same"  # may need one zero more at the far end
        self._padding = _each(0 if isinstance(padding, str) else padding, dimensions)
        is_dense = groups == 1 and set(self._dilation) == {1}
        self._has_phases = is_dense and weight.shape[1] <= _FEW_CHANNELS and max(self._stride) > 1

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        value = self._pad(_stacked(values, 1, self._groups))
        output: Tensor = self._convolve(
            value, _stacked(weights, 1), bias, self._stride, self._padding, self._dilation, self._groups
        )
        return output

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        if not self._pads_first:
            stacked = self._transposed_convolution(like.shape[2:], weights, cotangent)
        else:
            wide = like[:, :1].expand(-1, len(weights) * like.shape[1], *like.shape[2:])
            padded, pullback = torch.func.vjp(self._pad, wide)  # type: ignore[misc]
            (stacked,) = pullback(self._transposed_convolution(padded.shape[2:], weights, cotangent))
        return _unstacked(stacked, len(weights), self._groups)

    def _pad(self, value: Tensor) -> Tensor:
        if not self._pads_first:
            return value
        missing = [(kernel - 1) * dilation for kernel, dilation in zip(self._kernel, self._dilation, strict=True)]
        sides = [side for total in reversed(missing) for side in (total // 2, total - total // 2)]
        return F.pad(value, sides)

    def _transposed_convolution(self, size: torch.Size, weights: Sequence[Tensor | None], cotangent: Tensor) -> Tensor:
        if self._has_phases:
            return transposed_by_phases(cotangent, _stacked(weights, 1), self._stride, self._padding, size)
        geometry = zip(
            size, cotangent.shape[2:], self._kernel, self._stride, self._padding, self._dilation, strict=True
        )
        # Input at the far end that no stride reached.
        unreached = [
            extent - ((steps - 1) * stride + (kernel - 1) * dilation + 1 - 2 * padding)
            for extent, steps, kernel, stride, padding, dilation in geometry
        ]
        transposed: Tensor = self._convolve_transposed(
            cotangent,
            _stacked(weights, 1),
            None,
            self._stride,
            self._padding,
            unreached,
            self._groups,
            self._dilation,
        )
        return transposed


class ScalingOperator:
    """``batch_norm`` by running statistics: ``s x + t`` with a scale s and a shift t for each channel (axis 1).

    ``s = gamma / sqrt(variance + eps)`` and ``t = beta - s mean``.
    """

    channel_axis = 1

    def __init__(
        self,
        input: Tensor,  # noqa: A002
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        if training or running_mean is None or running_var is None:
            raise LayerError("it normalises by the statistics of the batch, which tie the samples to each other")
        scale = (running_var + eps).rsqrt()
        scale = (scale if weight is None else scale * weight).detach()
        shift = -scale * running_mean
        self.input = input
        self.weight = scale
        self.bias = (shift if bias is None else shift + bias).detach()

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        parts = [weight for weight in weights if weight is not None]
        scaled = [value * _along_channels(weight, value.ndim) for value, weight in zip(values, parts, strict=True)]
        total = torch.stack(scaled).sum(dim=0) if len(scaled) > 1 else scaled[0]
        return total if bias is None else total + _along_channels(bias, total.ndim)

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        return [cotangent * _along_channels(weight, cotangent.ndim) for weight in weights if weight is not None]

    def after(self, layer: Operator) -> Operator | None:
        """The layer and this as one layer, with weights ``s w`` and bias ``s b + t``; None: no such layer exists."""
        if not isinstance(layer, DenseOperator | ConvolutionOperator):
            return None
        if layer.channel_axis % self.input.ndim != self.channel_axis:
            return None  # it scales each step of time or the like, not each output
        scale, merged = self.weight, copy.copy(layer)
        merged.weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        merged.bias = self.bias if layer.bias is None else self.bias + scale * layer.bias
        return merged


class PoolingOperator:
    """A linear call without weights: an average or a sum.

    Args:
        function: the function called.
        input: what it maps [B, ...].
        args: its other arguments.
        kwargs: those by keyword.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    channel_axis = 1

    def __init__(self, function: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: A002
        self.input = input
        self._call: Callable[[Tensor], Tensor] = lambda value: function(value, *args, **kwargs)

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        (value,) = values
        return self._call(value)

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        _, pullback = torch.func.vjp(self._call, like)  # type: ignore[misc]
        (transposed,) = pullback(cotangent)
        return [transposed.clone()]  # that of a sum is the cotangent itself, expanded


_WITHOUT_WEIGHTS: tuple[Callable[..., Tensor], ...] = (
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(torch.sum, Tensor.sum, torch.mean, Tensor.mean),
)
OPERATORS: dict[Callable[..., Any], Callable[..., Operator]] = {
    F.linear: DenseOperator,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), ConvolutionOperator),
    F.batch_norm: ScalingOperator,
    **{function: partial(PoolingOperator, function) for function in _WITHOUT_WEIGHTS},
}
"""What makes an operator of a call, by the function called; it takes the arguments of the call."""


def _each(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """One number for each dimension."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * dimensions if len(numbers) == 1 else numbers


def _along_channels(vector: Tensor, ndim: int) -> Tensor:
    return vector.view(-1, *[1] * (ndim - 2))


def _stacked(parts: Sequence[Tensor | None], axis: int, groups: int = 1) -> Tensor:
    """Parts side by side along an axis; with groups, those of the same group side by side."""
    tensors = [part for part in parts if part is not None]
    if len(tensors) == 1:
        return tensors[0]
    batch = max(len(tensor) for tensor in tensors)  # constants come as a single sample
    tensors = [tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors]
    if groups == 1:
        return torch.cat(tensors, dim=axis)
    grouped = [tensor.reshape(batch, groups, -1, *tensor.shape[2:]) for tensor in tensors]
    return torch.cat(grouped, dim=2).reshape(batch, -1, *tensors[0].shape[2:])


def _unstacked(stacked: Tensor, count: int, groups: int) -> Sequence[Tensor]:
    """The inverse of stacking ``count`` parts along axis 1."""
    if groups == 1 or count == 1:
        return stacked.chunk(count, dim=1)
    batch, _, *size = stacked.shape
    parts = stacked.reshape(batch, groups, -1, *size).chunk(count, dim=2)
    return [part.reshape(batch, -1, *size) for part in parts]
