"""The linear part of a layer and its transpose, with weights chosen by the rule.

A rule evaluates a layer with other weights than the layer's own (only the positive ones, their squares, ...) and
carries relevance back through the transpose. Both are called here as functions, so that no `Parameter` is ever touched.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.layer import Sum
from zennit.types import AvgPool

from audio_lrp.errors import UserError

_CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


class Operator(Protocol):
    """A linear map with interchangeable weights."""

    weight: Tensor | None
    bias: Tensor | None
    channel_axis: int
    """Axis of the output that the bias runs along."""

    def apply(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """The map's output, as the layer computes it, for the given weight and bias."""
        ...

    def transpose(self, value: Tensor, weight: Tensor | None, cotangent: Tensor) -> Tensor:
        """The transposed map (without bias) of ``cotangent``, which has the shape of the map's output for ``value``."""
        ...


class DenseOperator:
    """``nn.Linear``: the last axis of the input is mapped."""

    channel_axis = -1

    def __init__(self, layer: nn.Linear) -> None:
        self.weight: Tensor | None = layer.weight.detach()
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.detach()

    def apply(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        assert weight is not None
        return F.linear(value, weight, bias)

    def transpose(self, value: Tensor, weight: Tensor | None, cotangent: Tensor) -> Tensor:
        """See `Operator`."""
        assert weight is not None
        return cotangent @ weight


class ConvolutionOperator:
    """A convolution in 1, 2 or 3 dimensions: strided, dilated, grouped, with every padding and padding mode."""

    channel_axis = 1

    def __init__(self, layer: Any) -> None:
        self.weight: Tensor | None = layer.weight.detach()
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.detach()
        self._layer = layer
        self._convolve = next(function for kind, function in _CONVOLUTIONS.items() if isinstance(layer, kind))
        # As nn.Conv2d itself does it: other modes than zeros pad first; "same" may need one zero more on one side.
        self._pads_first = layer.padding_mode != "zeros" or layer.padding == "same"
        none = (0,) * len(layer.kernel_size)
        self._padding = none if self._pads_first or isinstance(layer.padding, str) else layer.padding

    def apply(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        layer = self._layer
        convolve: Any = self._convolve
        output: Tensor = convolve(
            self._pad(value), weight, bias, layer.stride, self._padding, layer.dilation, layer.groups
        )
        return output

    def transpose(self, value: Tensor, weight: Tensor | None, cotangent: Tensor) -> Tensor:
        """See `Operator`."""
        if not self._pads_first:
            return self._transposed_convolution(value, weight, cotangent)
        pullback: Any = torch.func.vjp(self._pad, value)  # padding has no weights
        transposed: Tensor = pullback[1](self._transposed_convolution(pullback[0], weight, cotangent))[0]
        return transposed

    def _pad(self, value: Tensor) -> Tensor:
        if not self._pads_first:
            return value
        mode = "constant" if self._layer.padding_mode == "zeros" else self._layer.padding_mode
        return F.pad(value, self._layer._reversed_padding_repeated_twice, mode)

    def _transposed_convolution(self, value: Tensor, weight: Tensor | None, cotangent: Tensor) -> Tensor:
        layer, none = self._layer, (0,) * len(self._layer.kernel_size)
        transposed: Tensor = torch.ops.aten.convolution_backward(
            cotangent,
            value,  # only its shape and layout count
            weight,
            None,
            layer.stride,
            self._padding,
            layer.dilation,
            False,
            none,
            layer.groups,
            (True, False, False),
        )[0]
        return transposed


class PoolingOperator:
    """A linear layer without weights: average pooling, or a sum over stacked inputs."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    channel_axis = 1

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def apply(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `Operator`."""
        output: Tensor = self._layer.forward(value)
        return output

    def transpose(self, value: Tensor, weight: Tensor | None, cotangent: Tensor) -> Tensor:
        """See `Operator`."""
        pullback: Any = torch.func.vjp(self._layer.forward, value)[1]
        transposed: Tensor = pullback(cotangent)[0]
        return transposed


def operator_of(layer: nn.Module) -> Operator:
    """The layer's linear map.

    Raises:
        UserError: the layer has weights but is none of the supported kinds (e.g. a transposed convolution).
    """
    if isinstance(layer, nn.Linear):
        return DenseOperator(layer)
    if isinstance(layer, tuple(_CONVOLUTIONS)):
        return ConvolutionOperator(layer)
    if isinstance(layer, AvgPool | Sum):
        return PoolingOperator(layer)
    raise UserError(
        f"audio_lrp's rules cover Linear, Conv1d, Conv2d, Conv3d and average pooling, not {type(layer).__name__}: "
        "give it a rule of zennit's"
    )
