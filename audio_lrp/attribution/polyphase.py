"""Transposed strided convolution by phases, for layers with few input channels."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def transposed_by_phases(
    cotangent: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], size: Sequence[int]
) -> Tensor:
    """What ``conv_transpose`` computes, as one convolution without stride.

    Input samples a stride apart meet the same taps of the kernel. So each of the ``prod(stride)`` phases of the input
    is a convolution of its own with every stride-th tap, and all phases are the channels of one. Kernels on CPUs are
    made for many channels: for the first layer of AlexNet (one channel, stride 4) this takes a tenth of the time.

    Args:
        cotangent: [B, out, *steps].
        weight: of the convolution [out, in, *kernel].
        stride: of the convolution, for each axis.
        padding: of the convolution, for each axis.
        size: of the convolution's input, for each axis.

    Returns:
        [B, in, *size].

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 1, 2)
        >>> transposed_by_phases(ones, torch.tensor([[[1.0, 2.0, 3.0]]]), [2], [0], [5])
        tensor([[[1., 2., 4., 2., 3.]]])
    """
    outputs, inputs, *kernel = weight.shape
    axes = range(len(kernel))
    taps = [-(-extent // step) for extent, step in zip(kernel, stride, strict=True)]
    missing = [count * step - extent for count, step, extent in zip(taps, stride, kernel, strict=True)]
    filled = F.pad(weight, [amount for excess in reversed(missing) for amount in (0, excess)])
    split = filled.reshape(outputs, inputs, *(part for pair in zip(taps, stride, strict=True) for part in pair))
    kernels = split.permute(1, *(3 + 2 * axis for axis in axes), 0, *(2 + 2 * axis for axis in axes))
    kernels = kernels.reshape(inputs * prod(stride), outputs, *taps).flip([2 + axis for axis in axes])

    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    phases: Tensor = convolve(cotangent, kernels, padding=[count - 1 for count in taps])
    steps = phases.shape[2:]
    grid = phases.reshape(-1, inputs, *stride, *steps)
    woven = grid.permute(0, 1, *(part for axis in axes for part in (2 + len(kernel) + axis, 2 + axis)))
    length = [count * step for count, step in zip(steps, stride, strict=True)]
    # Crop the padding, and fill what no stride reached with zeros.
    borders = [(-before, extent + before - full) for before, extent, full in zip(padding, size, length, strict=True)]
    return F.pad(woven.reshape(-1, inputs, *length), [amount for border in reversed(borders) for amount in border])
