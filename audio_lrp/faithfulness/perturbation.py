"""Perturbation curves: remove what an explanation calls important and see whether the network minds."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audio_lrp.attribution.guard import guarded, precision
from audio_lrp.attribution.seed import check_target
from audio_lrp.errors import UserError

DEFAULT_FRACTIONS = (*(percent / 100 for percent in range(11)), *(tenth / 10 for tenth in range(2, 11)))
"""0 to 10 % in steps of 1 %, where good explanations differ most, then to 100 % in steps of 10 %."""

ORDERS = ("morf", "lerf", "random", "amplitude")

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """How a network's answer changes while its input is removed, for several orders of removal.

    Attributes:
        fractions: removed fraction of each sample's candidate units, first 0, float64 [S].
        orders: names of the orders.
        accuracy: share of samples whose target is predicted, float64 [O, S].
        probability: mean softmax probability of the target, float64 [O, S].
        logit: mean logit of the target, float64 [O, S].

    All tensors lie on the CPU.
    """

    fractions: Tensor
    orders: tuple[str, ...]
    accuracy: Tensor
    probability: Tensor
    logit: Tensor

    def aopc(self, order: str) -> float:
        """Area over the perturbation curve of an order: how far the target's probability falls on average.

        Samek et al., 2017 (doi:10.1109/TNNLS.2016.2599820, eq. 12) average the fall from the clean point over evenly
        spaced steps. The fractions here may be uneven, so the average is over the fraction removed instead: the
        trapezoid integral of the fall, divided by the range of the fractions. For ``morf``, higher is more faithful.

        Raises:
            UserError: the curves were not computed for this order.
        """
        if order not in self.orders:
            raise UserError(f"no curve for order {order!r}: this run has {', '.join(self.orders)}")
        curve = self.probability[self.orders.index(order)]
        area = torch.trapezoid(curve[0] - curve, self.fractions)
        return float(area / (self.fractions[-1] - self.fractions[0]))

    def rows(self) -> list[dict[str, str | float]]:
        """One row per order and fraction, e.g. for a CSV file or a table."""
        return [
            {
                "order": order,
                "fraction": float(fraction),
                "accuracy": float(self.accuracy[index, step]),
                "probability": float(self.probability[index, step]),
                "logit": float(self.logit[index, step]),
            }
            for index, order in enumerate(self.orders)
            for step, fraction in enumerate(self.fractions)
        ]


def perturbation_curves(
    predict: Predict,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Tensor,
    relevance: Tensor,
    *,
    orders: Sequence[str] = ("morf", "random", "amplitude"),
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    unit: int = 1,
    baseline: float = 0.0,
    candidates: Tensor | None = None,
    seed: int = 0,
    chunk_size: int = 64,
) -> PerturbationCurves:
    """Remove the input unit by unit, in several orders, and follow the prediction (pixel flipping, Bach et al., 2015).

    Units are windows of samples (waveforms) or square patches (spectrograms); the last of a row is cut short where
    the unit does not divide the input. A unit's score is the sum over its candidate values, all channels together;
    ties go to the unit that comes first. Orders of removal:

    - ``morf``: most relevant first; ``lerf``: least relevant first;
    - ``random``: uniformly at random, by ``seed``;
    - ``amplitude``: loudest first, i.e. by absolute value (waveforms) or by height above the baseline (spectrograms).

    Fractions mean the same for every order: of a sample's **candidate units**, rounded to whole units. Values that
    are no candidates (padding) are never removed, whatever the order; at fraction 1 all orders meet.

    Args:
        predict: maps input [R, ...] to logits [R, C]. A module is put into eval mode, float32 and without autocast
            for the time being, as in an attribution; with any other callable that is the caller's business.
        input: waveforms [B, channels, N] or spectrograms [B, channels, F, T].
        target: class index of each sample, integer [B].
        relevance: score of each input value, same shape as the input.
        orders: which orders, from those above.
        fractions: strictly increasing from 0 (the clean input) to at most 1.
        unit: samples per window, or bins and frames per side of a patch.
        baseline: value that stands for "removed": silence (0 for waveforms, the floor for spectrograms).
        candidates: what may be removed, bool, same shape as the input; None: what differs from the baseline (the
            paper's non-zero samples).
        seed: of the random order; torch's global generators are neither used nor advanced.
        chunk_size: how many perturbed inputs are predicted at once; bounds the memory, does not change the result.

    Returns:
        The curves, averaged over the samples.

    Raises:
        UserError: an argument of the wrong shape, type or range.
    """
    _check_tensors(input, target, relevance, candidates)
    _check_options(orders, fractions, unit, chunk_size)
    devices = [input.device] if input.device.type == "cuda" else []
    guard = guarded(predict) if isinstance(predict, nn.Module) else nullcontext(predict)
    with torch.random.fork_rng(devices), guard as network, torch.inference_mode():
        if isinstance(network, nn.Module):
            input = input.to(precision(network))  # noqa: A001
        if candidates is None:
            candidates = input != baseline
        units = _Units(input.shape[2:], unit)
        removable = units.sum(candidates) > 0
        scores = {
            "morf": units.sum(relevance * candidates),
            "lerf": -units.sum(relevance * candidates),
            "random": _random_scores(removable, seed),
            "amplitude": units.sum((input.abs() if input.ndim == 3 else input - baseline) * candidates),
        }
        ranks = torch.stack([_ranks(scores[order], removable) for order in orders])
        steps = torch.tensor(fractions, dtype=torch.float64, device=input.device)
        counts = torch.round(steps[:, None] * removable.sum(dim=1))

        def perturbed(order: Tensor, step: Tensor, sample: Tensor) -> Tensor:
            removed = units.spread(ranks[order, sample] < counts[step, sample, None])
            return torch.where(removed & candidates[sample], baseline, input[sample])

        curves = _follow(network, perturbed, target.to(input.device), len(orders), len(steps), chunk_size)
    accuracy, probability, logit = curves.cpu()
    return PerturbationCurves(steps.cpu(), tuple(orders), accuracy, probability, logit)


def _follow(
    predict: Predict,
    perturbed: Callable[[Tensor, Tensor, Tensor], Tensor],
    target: Tensor,
    num_orders: int,
    num_steps: int,
    chunk_size: int,
) -> Tensor:
    """Accuracy, probability and logit of the target along all curves, float64 [3, O, S].

    One pass over the flattened (points x samples), in chunks. ``perturbed`` makes the inputs [R, ...] for the indices
    of order, step and sample [R].
    """
    orders = torch.arange(num_orders, device=target.device)
    steps = torch.arange(num_steps, device=target.device)
    # The clean point is the same for every order: it is predicted once, as step 0 of the first.
    points = torch.cat([torch.zeros_like(orders[:1]).expand(1, 2), torch.cartesian_prod(orders, steps[1:])])
    parts = []
    for rows in torch.split(torch.arange(len(points) * len(target), device=target.device), chunk_size):
        sample = rows % len(target)
        order, step = points[rows // len(target)].unbind(dim=1)
        parts.append(_outcome(predict(perturbed(order, step, sample)), target[sample]))
    means = torch.cat(parts, dim=1).reshape(3, len(points), -1).mean(dim=2)
    clean = means[:, :1, None].expand(-1, num_orders, 1)
    return torch.cat([clean, means[:, 1:].reshape(3, num_orders, -1)], dim=2)


def _outcome(logits: Tensor, target: Tensor) -> Tensor:
    """Whether the target is predicted (0 or 1), its probability and its logit, float64 [3, R]."""
    if logits.ndim != 2 or len(logits) != len(target):
        raise UserError(f"predict returned shape {list(logits.shape)}: it must return logits [{len(target)}, classes]")
    check_target(target, len(target), logits.shape[1])
    logits = logits.double()
    correct = (logits.argmax(dim=1) == target).double()
    chosen = target.long()[:, None]
    return torch.stack([correct, logits.softmax(dim=1).gather(1, chosen)[:, 0], logits.gather(1, chosen)[:, 0]])


def _random_scores(removable: Tensor, seed: int) -> Tensor:
    """Uniform scores [B, U] from a generator of their own, on the CPU: the same order on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(removable.shape, generator=generator, dtype=torch.float64).to(removable.device)


def _ranks(scores: Tensor, removable: Tensor) -> Tensor:
    """Position of each unit [B, U] when the highest score goes first; units that stay come last."""
    order = scores.masked_fill(~removable, -math.inf).argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions)


class _Units:
    """Divides waveforms into windows, or spectrograms into square patches."""

    def __init__(self, shape: Sequence[int], side: int) -> None:
        self._shape = shape
        self._side = side
        self._grid = [math.ceil(size / side) for size in shape]

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the values [B, C, *shape] in each unit, over all channels, float64 [B, U]."""
        sums = values.sum(dim=1, dtype=torch.float64)
        missing = [count * self._side - size for count, size in zip(self._grid, self._shape, strict=True)]
        sums = nn.functional.pad(sums, [pad for size in reversed(missing) for pad in (0, size)])
        for axis, count in enumerate(self._grid, start=1):
            sums = torch.unflatten(sums, axis, (count, self._side)).sum(dim=axis + 1)
        return sums.flatten(start_dim=1)

    def spread(self, flags: Tensor) -> Tensor:
        """Give each unit's flag [R, U] to all its values [R, 1, *shape]."""
        values = flags.reshape(-1, *self._grid)
        for axis, size in enumerate(self._shape, start=1):
            values = values.repeat_interleave(self._side, dim=axis).narrow(axis, 0, size)
        return values[:, None]


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that do not begin with the clean input and rise.

    Raises:
        UserError: says what was expected and what came.
    """
    rising = all(left < right for left, right in itertools.pairwise(fractions))
    if len(fractions) < 2 or fractions[0] != 0 or fractions[-1] > 1 or not rising:
        raise UserError(f"fractions are {list(fractions)}: begin with 0 and rise strictly to at most 1, e.g. 0, 0.1, 1")


def _check_tensors(value: Tensor, target: Tensor, relevance: Tensor, candidates: Tensor | None) -> None:
    if value.ndim not in (3, 4) or 0 in value.shape:
        raise UserError(
            f"input has shape {list(value.shape)}: pass waveforms [B, channels, N] or spectrograms [B, channels, F, T]"
        )
    if not isinstance(target, Tensor):
        raise UserError(f"target is {target!r}: pass a tensor with the class index of each sample")
    check_target(target, len(value))
    if relevance.shape != value.shape:
        raise UserError(f"relevance has shape {list(relevance.shape)} but the input {list(value.shape)}: pass its own")
    if not relevance.isfinite().all():
        raise UserError("relevance holds NaN or infinity, which have no order: has the network diverged?")
    if candidates is not None and (candidates.shape != value.shape or candidates.dtype != torch.bool):
        raise UserError(
            f"candidates has shape {list(candidates.shape)} and type {candidates.dtype}: "
            f"pass a bool tensor of the input's shape {list(value.shape)}"
        )


def _check_options(orders: Sequence[str], fractions: Sequence[float], unit: int, chunk_size: int) -> None:
    unknown = [order for order in orders if order not in ORDERS]
    if unknown or not orders or len(set(orders)) < len(orders):
        raise UserError(f"orders are {list(orders)}: choose from {', '.join(ORDERS)}, each at most once")
    check_fractions(fractions)
    if unit < 1:
        raise UserError(f"unit is {unit}: pass the number of samples, or the side of a patch, 1 or more")
    if chunk_size < 1:
        raise UserError(f"chunk_size is {chunk_size}: pass the number of inputs to predict at once, 1 or more")
