"""Scores of explanations: numbers out of perturbation curves, one per example, with confidence intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audio_lrp.errors import UserError
from audio_lrp.faithfulness.curves import PerturbationCurves, Quantity

RATIONALES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Sizes of rationales, as fractions of the input, over which comprehensiveness and sufficiency are averaged."""


def aupc(curves: PerturbationCurves, order: str, quantity: Quantity = "probability") -> Tensor:
    """Area under the perturbation curve of an order, by trapezoids, divided by the range of the fractions.

    With ``morf``, lower is more faithful.

    Returns:
        The area of each example, float64 [B].

    Raises:
        UserError: the curves were not computed for this order.
    """
    fractions = curves.fractions
    area = torch.trapezoid(curves.of_examples(order, quantity), fractions, dim=1)
    return area / (fractions[-1] - fractions[0])


def aopc(curves: PerturbationCurves, order: str, quantity: Quantity = "probability") -> Tensor:
    """Area over the perturbation curve of an order: how far the target's probability falls on average.

    Samek et al., 2017 (doi:10.1109/TNNLS.2016.2599820, eq. 12) average the fall from the clean point over evenly
    spaced steps. The fractions here may be uneven, so the average is over the fraction removed instead: the
    trapezoid integral of the fall, divided by the range of the fractions. With ``morf``, higher is more faithful.

    Returns:
        The area of each example, float64 [B].

    Raises:
        UserError: the curves were not computed for this order.
    """
    return curves.of_examples(order, quantity)[:, 0] - aupc(curves, order, quantity)


def srg(curves: PerturbationCurves, quantity: Quantity = "probability") -> Tensor:
    """Symmetric relevance gain: area under the LeRF curve minus that under the MoRF curve.

    Bluecher, Vielhaben and Strodthoff, 2024 ("Decoupling pixel flipping and occlusion strategy for consistent XAI
    benchmarks", arXiv 2401.06654); the same as the area between perturbation curves (ABPC), divided by the range of
    the fractions. 0 for a random map; higher is more faithful.

    Returns:
        The gain of each example, float64 [B].

    Raises:
        UserError: the curves lack the order ``morf`` or ``lerf``.
    """
    return aupc(curves, "lerf", quantity) - aupc(curves, "morf", quantity)


def comprehensiveness(
    curves: PerturbationCurves, rationales: Sequence[float] = RATIONALES, quantity: Quantity = "probability"
) -> Tensor:
    """How far the probability falls without the most relevant part (DeYoung et al., 2020, arXiv 1911.03429, eq. 1).

    Averaged over the sizes of that part. Higher is more faithful.

    Returns:
        The mean fall of each example, float64 [B].

    Raises:
        UserError: the curves lack the order ``morf`` or a point of that size.
    """
    clean = curves.of_examples("morf", quantity)[:, 0]
    return torch.stack([clean - curves.at("morf", size, quantity) for size in rationales]).mean(dim=0)


def sufficiency(
    curves: PerturbationCurves, rationales: Sequence[float] = RATIONALES, quantity: Quantity = "probability"
) -> Tensor:
    """How far the probability falls when only the most relevant part is left (DeYoung et al., 2020, eq. 2).

    Averaged over the sizes of that part; what is left is what the order ``lerf`` removes last. Lower is more faithful.

    Returns:
        The mean fall of each example, float64 [B].

    Raises:
        UserError: the curves lack the order ``lerf`` or a point at which only that part is left.
    """
    clean = curves.of_examples("lerf", quantity)[:, 0]
    return torch.stack([clean - curves.at("lerf", 1 - size, quantity) for size in rationales]).mean(dim=0)


def all_scores(curves: PerturbationCurves, quantity: Quantity = "probability") -> dict[str, Tensor]:
    """Every score that the curves' orders and fractions allow.

    Returns:
        Each example's scores, float64 [B]: ``aopc_<order>`` and ``aupc_<order>`` for each order; ``srg`` with
        ``morf`` and ``lerf``; ``comprehensiveness`` and ``sufficiency`` where the fractions hold what they need.
    """
    found = {f"aopc_{order}": aopc(curves, order, quantity) for order in curves.orders}
    found |= {f"aupc_{order}": aupc(curves, order, quantity) for order in curves.orders}
    if {"morf", "lerf"} <= set(curves.orders):
        found["srg"] = srg(curves, quantity)
    if "morf" in curves.orders and all(curves.has(size) for size in RATIONALES):
        found["comprehensiveness"] = comprehensiveness(curves, quantity=quantity)
    if "lerf" in curves.orders and all(curves.has(1 - size) for size in RATIONALES):
        found["sufficiency"] = sufficiency(curves, quantity=quantity)
    return found


class Estimate(NamedTuple):
    """A mean over examples and its confidence interval.

    Attributes:
        mean: over the examples.
        low: lower end of the interval; not a number where a single example or group tells nothing of others.
        high: upper end, likewise.
    """

    mean: float
    low: float
    high: float


def bootstrap(
    values: Tensor,
    *,
    groups: Tensor | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of the examples' values with a percentile bootstrap interval (Efron, 1979).

    To compare two methods, pass the differences of their scores, example by example.

    Args:
        values: one per example [B].
        groups: whom each example belongs to, e.g. its speaker, integer [B]: whole groups are drawn, because examples
            of one speaker are alike, and intervals that ignore it are too narrow. None: each stands for itself.
        confidence: share of the resampled means inside the interval.
        resamples: how many.
        seed: of the draws; torch's global generators are neither used nor advanced.

    Raises:
        UserError: no values, groups of another shape, or no such confidence or number of resamples.

    Example:
        >>> estimate = bootstrap(torch.tensor([0.0, 0.0, 1.0, 1.0]))
        >>> estimate.mean, 0 <= estimate.low < 0.5 < estimate.high <= 1
        (0.5, True)
    """
    if values.ndim != 1 or len(values) == 0:
        raise UserError(f"values have shape {list(values.shape)}: pass one value per example")
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence:g}: pass a share between 0 and 1, e.g. 0.95")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}: pass 1 or more")
    if groups is None:
        groups = torch.arange(len(values))
    if groups.shape != values.shape:
        raise UserError(
            f"groups have shape {list(groups.shape)} but the values {list(values.shape)}: pass one for each"
        )
    values = values.detach().double().cpu()
    names, members = torch.unique(groups.cpu(), return_inverse=True)
    sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, members, values)
    sizes = members.bincount(minlength=len(names))
    if len(names) == 1:
        return Estimate(values.mean().item(), math.nan, math.nan)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(names), (resamples, len(names)), generator=generator)
    means = sums[drawn].sum(dim=1) / sizes[drawn].sum(dim=1)
    tail = (1 - confidence) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(values.mean().item(), low, high)
