"""Canonizers: what makes a network fit for the rules before they are registered."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from zennit.canonizers import Canonizer
from zennit.core import collect_leaves
from zennit.types import BatchNorm, ConvolutionStandard


class MergeBatchNorm(Canonizer):  # type: ignore[misc]
    """Merges each batch normalisation into the convolution or dense layer before it.

    In eval mode ``gamma (w x + b - mean) / sqrt(variance + eps) + beta`` is one linear map, so it gets the relevance of
    one layer, with weights ``s w`` and bias ``s (b - mean) + beta``, where ``s = gamma / sqrt(variance + eps)``.
    "Before" means in the order in which modules were defined; `audio_lrp.attribution.attribute` refuses a network that
    calls them in another order. Source: Guillemot et al., 2020, arXiv 2009.02266.
    """

    def __init__(self) -> None:
        self._originals: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.merged: tuple[nn.Module, nn.Module] | None = None

    def apply(self, root_module: nn.Module) -> list["MergeBatchNorm"]:
        """Merge in the whole network.

        Returns:
            A canonizer for each merged pair, whose ``remove`` undoes it.
        """
        applied = []
        leaves = list(collect_leaves(root_module))
        for layer, norm in pairwise(leaves):
            if isinstance(layer, ConvolutionStandard | nn.Linear) and _normalises_by_statistics(
                norm, len(layer.weight)
            ):
                canonizer = self.copy()
                canonizer.register(layer, norm)
                applied.append(canonizer)
        return applied

    def register(self, layer: nn.Module, norm: Any) -> None:
        """Merge ``norm`` into ``layer`` and make it change nothing."""
        self.merged = (layer, norm)
        for module in self.merged:
            self._originals += [
                (module._parameters, dict(module._parameters)),
                (module._buffers, dict(module._buffers)),
            ]
        layer._parameters.update(zip(("weight", "bias"), _merged(layer, norm), strict=True))
        mean = norm.running_mean
        norm._buffers.update(running_mean=torch.zeros_like(mean), running_var=torch.ones_like(mean) - norm.eps)
        norm._parameters.update(weight=None, bias=None)

    def remove(self) -> None:
        """Put the original parameters and buffers back."""
        for current, original in self._originals:
            current.update(original)
        self._originals.clear()


def _normalises_by_statistics(module: Any, num_features: int) -> bool:
    if not isinstance(module, BatchNorm) or module.running_mean is None or module.running_var is None:
        return False
    return len(module.running_mean) == num_features


def _merged(layer: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    scale: Tensor = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    return nn.Parameter(weight.detach(), requires_grad=False), nn.Parameter(bias.detach(), requires_grad=False)
