"""The linear part of a layer and its transpose, with inputs and weights chosen by the rule.

A rule evaluates a layer on parts of its input with parts of its weights (only the positive ones, their squares, ...)
and carries relevance back through the transpose. Both are called here as functions, so that no `Parameter` is ever
touched. Several pairs of input and weights are evaluated as one wider layer, which moves less memory.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.layer import Sum
from zennit.types import AvgPool

from audio_lrp.attribution.polyphase import transposed_by_phases
from audio_lrp.errors import UserError

_FEW_CHANNELS = 4
"""Up to this many input channels the transposed strided convolution of CPU libraries is slow."""


class Operator(Protocol):
    """A linear map whose weights can be exchanged."""

    weight: Tensor | None
    bias: Tensor | None
    channel_axis: int
    """Axis of the output that the bias runs along."""

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """The sum of the maps of all values, each with its weight, plus the bias."""
        ...

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """For each weight, the transposed map of ``cotangent``, which has the shape of the output for ``like``.

        The caller may overwrite the result, which shares no memory with ``cotangent``.
        """
        ...


class DenseOperator:
    """``nn.Linear``: maps the last axis of the input."""

    channel_axis = -1

    def __init__(self, layer: nn.Linear) -> None:
        self.weight: Tensor | None = layer.weight.detach()
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.detach()

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        return F.linear(_stacked(values, -1), _stacked(weights, -1), bias)

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        return (cotangent @ _stacked(weights, -1)).chunk(len(weights), dim=-1)


class ConvolutionOperator:
    """A convolution in 1, 2 or 3 dimensions: strided, dilated, grouped, with every padding and padding mode."""

    channel_axis = 1

    def __init__(self, layer: Any) -> None:
        self.weight: Tensor | None = layer.weight.detach()
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.detach()
        self._layer = layer
        dimensions = len(layer.kernel_size)
        self._convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
        self._convolve_transposed: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dimensions - 1]
        # As nn.Conv2d itself does: other modes than zeros pad first; "same" may need one zero more on one side.
        self._pads_first = layer.padding_mode != "zeros" or layer.padding == "same"
        is_dense = layer.groups == 1 and set(layer.dilation) == {1}
        self._has_phases = is_dense and layer.in_channels <= _FEW_CHANNELS and max(layer.stride) > 1
        self._padding = (0,) * dimensions if self._pads_first or layer.padding == "valid" else layer.padding

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        layer, groups = self._layer, self._layer.groups
        value = self._pad(_stacked(values, 1, groups))
        output: Tensor = self._convolve(
            value, _stacked(weights, 1), bias, layer.stride, self._padding, layer.dilation, groups
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
        return _unstacked(stacked, len(weights), self._layer.groups)

    def _pad(self, value: Tensor) -> Tensor:
        if not self._pads_first:
            return value
        mode = "constant" if self._layer.padding_mode == "zeros" else self._layer.padding_mode
        return F.pad(value, self._layer._reversed_padding_repeated_twice, mode)

    def _transposed_convolution(self, size: torch.Size, weights: Sequence[Tensor | None], cotangent: Tensor) -> Tensor:
        layer = self._layer
        if self._has_phases:
            return transposed_by_phases(cotangent, _stacked(weights, 1), layer.stride, self._padding, size)
        geometry = zip(
            size, cotangent.shape[2:], layer.kernel_size, layer.stride, self._padding, layer.dilation, strict=True
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
            layer.stride,
            self._padding,
            unreached,
            layer.groups,
            layer.dilation,
        )
        return transposed


class PoolingOperator:
    """A linear layer without weights: average pooling, or a sum over stacked inputs."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    channel_axis = 1

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def apply(self, values: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        (value,) = values
        output: Tensor = self._layer.forward(value)
        return output

    def transpose(self, like: Tensor, weights: Sequence[Tensor | None], cotangent: Tensor) -> Sequence[Tensor]:
        """See `Operator`."""
        _, pullback = torch.func.vjp(self._layer.forward, like)  # type: ignore[misc]
        (transposed,) = pullback(cotangent)
        return [transposed.clone()]  # that of a sum is the cotangent itself, expanded


def operator_of(layer: nn.Module) -> Operator:
    """The layer's linear map.

    Raises:
        UserError: the layer is none of the supported kinds (e.g. a transposed convolution).
    """
    if isinstance(layer, nn.Linear):
        return DenseOperator(layer)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return ConvolutionOperator(layer)
    if isinstance(layer, AvgPool | Sum):
        return PoolingOperator(layer)
    raise UserError(
        f"audio_lrp's rules cover Linear, Conv1d, Conv2d, Conv3d, average pooling and zennit's Sum, not "
        f"{type(layer).__name__}: give it a rule of zennit's"
    )


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
