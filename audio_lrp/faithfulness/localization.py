"""Localisation scores: how much of the relevance lies inside a mask, such as that of the utterance."""

import torch
from torch import Tensor

from audio_lrp.errors import UserError


def relevance_mass_accuracy(relevance: Tensor, mask: Tensor) -> Tensor:
    """Share of the positive relevance that lies inside the mask (Arras et al., 2022, CLEVR-XAI, arXiv 2003.07258).

    Compare it with the mask's share of the values, which a map that knows nothing reaches. By rules proportional to
    the input, padding of zeros has no relevance: of waveforms they then reach 1 for any network.

    Args:
        relevance: [B, ...].
        mask: bool, broadcastable to the relevance.

    Returns:
        Accuracy of each example, 0 to 1, float64 [B]; NaN where nothing is positive.

    Raises:
        UserError: a mask that does not fit.
    """
    inside = _fitting(mask, relevance)
    positive = relevance.flatten(1).double().clamp(min=0)
    return (positive * inside).sum(dim=1) / positive.sum(dim=1)


def relevance_rank_accuracy(relevance: Tensor, mask: Tensor) -> Tensor:
    """Share of the K most relevant values inside a mask of K values (Arras et al., 2022).

    Args:
        relevance: [B, ...].
        mask: bool, broadcastable to the relevance.

    Returns:
        Accuracy of each example, 0 to 1, float64 [B]; NaN where the mask is empty.

    Raises:
        UserError: a mask that does not fit.
    """
    inside = _fitting(mask, relevance)
    size = inside.sum(dim=1, keepdim=True)
    ranked = inside.gather(1, relevance.flatten(1).argsort(dim=1, descending=True, stable=True))
    best = torch.arange(ranked.shape[1], device=ranked.device) < size
    return (ranked & best).sum(dim=1).double() / size[:, 0]


def _fitting(mask: Tensor, relevance: Tensor) -> Tensor:
    """The mask as [B, values]."""
    if mask.dtype != torch.bool or mask.ndim != relevance.ndim:
        raise UserError(
            f"the mask has shape {list(mask.shape)} and type {mask.dtype}: pass bool values that can be broadcast to "
            f"the relevance's shape {list(relevance.shape)}"
        )
    return mask.expand_as(relevance).flatten(1)
