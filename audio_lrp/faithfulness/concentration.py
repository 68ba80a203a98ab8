"""Complexity of explanations: how few values a map points at."""

import torch
from torch import Tensor


def sparseness(relevance: Tensor) -> Tensor:
    """Gini index of the absolute relevance (Chalasani et al., 2020, arXiv 1810.06583).

    0: all values count the same; towards 1: few values count.

    Args:
        relevance: [B, ...].

    Returns:
        Index of each example, float64 [B]; NaN where there is no relevance.

    Example:
        >>> sparseness(torch.tensor([[1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 4.0, 0.0]])).tolist()
        [0.0, 0.75]
    """
    rising = relevance.flatten(1).double().abs().sort(dim=1).values
    count = rising.shape[1]
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64, device=rising.device) - count - 1
    return (weights * rising).sum(dim=1) / (count * rising.sum(dim=1))


def complexity(relevance: Tensor) -> Tensor:
    """Entropy of the shares in the absolute relevance, in nats (Bhatt et al., 2020, arXiv 2005.00631, def. 4).

    0: one value counts; log N: all N values count the same.

    Args:
        relevance: [B, ...].

    Returns:
        Entropy of each example, float64 [B]; NaN where there is no relevance.

    Example:
        >>> complexity(torch.tensor([[1.0, 1.0], [0.0, -4.0]])).exp().tolist()
        [2.0, 1.0]
    """
    magnitude = relevance.flatten(1).double().abs()
    entropy: Tensor = torch.special.entr(magnitude / magnitude.sum(dim=1, keepdim=True)).sum(dim=1)
    return entropy
