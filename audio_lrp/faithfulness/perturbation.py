"""The perturbation test: remove what an explanation calls important and see whether the network minds."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from warnings import warn

import torch
from torch import Tensor, nn

from audio_lrp.attribution.guard import guarded, precision
from audio_lrp.attribution.target import check_target
from audio_lrp.errors import UserError
from audio_lrp.faithfulness.baselines import Baseline, Silence
from audio_lrp.faithfulness.curves import DEFAULT_FRACTIONS, PerturbationCurves, check_fractions
from audio_lrp.faithfulness.draws import example_generators
from audio_lrp.faithfulness.orders import Order, Removable, orders_by_name, positions
from audio_lrp.faithfulness.units import Partition, Units
from audio_lrp.timefrequency.stft import STFT

Predict = Callable[[Tensor], Tensor]


def perturbation_curves(
    predict: Predict,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Tensor,
    relevance: Tensor,
    *,
    orders: Sequence[str | Order] = ("morf", "random", "amplitude"),
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    unit: int | Units = 1,
    baseline: float | Baseline = 0.0,
    candidates: Tensor | None = None,
    transform: STFT | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    chunk_size: int = 16,
) -> PerturbationCurves:
    """Remove the input unit by unit, in several orders, and follow the prediction (pixel flipping, Bach et al., 2015).

    A unit's score is the sum over its candidate values, all channels together; ties go to the unit that comes first.
    Fractions mean the same for every order: of an example's **candidate units**, rounded to whole units. Values that
    are no candidates (padding) are never removed, whatever the order; at fraction 1 all orders meet.

    Args:
        predict: maps input [R, ...] to logits [R, C]; log-probabilities will do, probabilities are refused. A single
            output [R, 1] has the sigmoid for its probability and is predicted where positive. A module is put into
            eval mode, float32 and without autocast for the time being, as in an attribution; with any other callable
            that is the caller's business.
        input: waveforms [B, channels, N] or spectrograms [B, channels, F, T].
        target: class index of each example, integer [B]; 0 for a single output, as in an attribution.
        relevance: score of each input value, same shape as the input; with a transform, of its coefficients.
        orders: names out of `ORDERS`, or orders of your own.
        fractions: strictly increasing from 0 (the clean input) to at most 1.
        unit: what is removed at once; a number stands for windows of so many samples, or square patches of that side.
        baseline: what takes its place; a number stands for silence of that value (0 for waveforms, the floor for
            spectrograms).
        candidates: what may be removed, bool, same shape as the relevance; None: what differs from silence (the
            paper's non-zero samples).
        transform: removes bins, frames or bands of waveforms in this STFT's plane and transforms what is left back,
            phases untouched; units and orders are those of spectrograms then. `STFT.relevance` gives the relevance.
        seed: of random orders and noise; torch's global generators are neither used nor advanced.
        index: a number for each example, such as that of its recording, integer [B]: random orders and noise depend on
            it and the seed alone, so they are the same in any batch and process; None: its place in the batch.
        chunk_size: how many perturbed inputs are predicted at once; bounds the memory, does not change the result.
            CPUs are fastest with few, whose activations stay in the cache; for a GPU take hundreds.

    Returns:
        The curves of each example.

    Raises:
        UserError: an argument of the wrong shape, type or range, or predictions that are no logits or not finite.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        >>> signals, target = torch.ones(3, 1, 8), torch.tensor([0, 1, 1])
        >>> relevance = signals * network[1].weight[target][:, None]
        >>> curves = perturbation_curves(network, signals, target, relevance.detach(), fractions=(0, 0.5, 1))
        >>> curves.probability.shape
        torch.Size([3, 3])
    """
    check_fractions(fractions)
    if chunk_size < 1:
        raise UserError(f"chunk_size is {chunk_size}: pass the number of inputs to predict at once, 1 or more")
    order_list = orders_by_name(orders)
    filling = baseline if isinstance(baseline, Baseline) else Silence(baseline)
    _check_input(input, target)
    devices = [input.device] if input.device.type == "cuda" else []
    guard = guarded(predict) if isinstance(predict, nn.Module) else nullcontext(predict)
    with torch.random.fork_rng(devices), guard as network, torch.inference_mode():
        if isinstance(network, nn.Module):
            input = input.to(precision(network))  # noqa: A001
        values = input if transform is None else transform.spectrum(input)
        _check_values(values, relevance, candidates)
        if candidates is None:
            candidates = values != filling.silence
        partition = Partition(unit, values.shape[2:], input.device)
        removable = Removable(values, relevance, candidates, filling.silence, partition)
        ranks, holding = _ranks(order_list, removable, index, seed)
        reference = filling.reference(values, candidates, example_generators(len(input), index, seed)).expand_as(values)
        steps = torch.tensor(fractions, dtype=torch.float64, device=input.device)
        counts = torch.round(steps[:, None] * holding.sum(dim=1))

        def perturbed(curve: Tensor, step: Tensor, example: Tensor) -> Tensor:
            removed = partition.spread(ranks[curve, example] < counts[step, example, None]) & candidates[example]
            rest = filling.fill(values[example], removed, reference[example])
            return rest if transform is None else transform.inverse(rest)

        outcomes = _follow(network, perturbed, target.to(input.device), len(ranks), len(steps), chunk_size)
    repetitions = tuple(order.repetitions for order in order_list)
    names = tuple(order.name for order in order_list)
    return PerturbationCurves(steps.cpu(), names, repetitions, outcomes.cpu())


def _ranks(orders: Sequence[Order], removable: Removable, index: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Position of each unit in each curve, int32 [K, B, U], and which units hold candidates, bool [B, U]."""
    holding = removable.partition.sum(removable.candidates) > 0
    ranks = []
    for order in orders:
        for repetition in range(order.repetitions):
            # Seeded anew for each curve: an order does not depend on which others are followed.
            generators = example_generators(len(holding), index, seed + 1 + repetition)
            scores = order.scores(removable, generators)
            if scores.shape != holding.shape:
                raise UserError(
                    f"order {order.name!r} gave scores of shape {list(scores.shape)}: it must return one score per "
                    f"example and unit, {list(holding.shape)}"
                )
            ranks.append(positions(scores, holding))
    return torch.stack(ranks), holding


def _follow(
    predict: Predict,
    perturbed: Callable[[Tensor, Tensor, Tensor], Tensor],
    target: Tensor,
    num_curves: int,
    num_steps: int,
    chunk_size: int,
) -> Tensor:
    """Accuracy, probability and logit of each example's target along all curves, float64 [3, K, B, S].

    One pass over the flattened (points x examples), in chunks. ``perturbed`` makes the inputs [R, ...] for the indices
    of curve, step and example [R].
    """
    curves = torch.arange(num_curves, device=target.device)
    steps = torch.arange(num_steps, device=target.device)
    # The clean point is the same for every curve: it is predicted once, as step 0 of the first.
    points = torch.cat([torch.zeros_like(curves[:1]).expand(1, 2), torch.cartesian_prod(curves, steps[1:])])
    parts: list[Tensor] = []
    for rows in torch.split(torch.arange(len(points) * len(target), device=target.device), chunk_size):
        example = rows % len(target)
        curve, step = points[rows // len(target)].unbind(dim=1)
        logits = predict(perturbed(curve, step, example))
        _check_shape(logits, len(rows))
        if not parts:  # once, for a GPU is waited for to know it
            check_target(target, len(target), logits.shape[1])
            _check_logits(logits)
        parts.append(_outcome(logits, target[example]))
    found = torch.cat(parts, dim=1)
    if not found.isfinite().all():
        raise UserError("predict returned NaN or infinity, which no score can be made of: has the network diverged?")
    found = found.reshape(3, len(points), len(target))
    clean = found[:, None, :1].expand(-1, num_curves, -1, -1)
    rest = found[:, 1:].reshape(3, num_curves, num_steps - 1, len(target))
    return torch.cat([clean, rest], dim=2).transpose(2, 3).contiguous()


def _outcome(logits: Tensor, target: Tensor) -> Tensor:
    """Whether the target is predicted (0 or 1), its probability and its logit, float64 [3, R]."""
    logits = logits.double()
    chosen = target.long()[:, None]
    logit = logits.gather(1, chosen)[:, 0]
    if logits.shape[1] == 1:
        return torch.stack([(logit > 0).double(), logit.sigmoid(), logit])
    correct = (logits.argmax(dim=1) == target).double()
    return torch.stack([correct, logits.softmax(dim=1).gather(1, chosen)[:, 0], logit])


def _check_shape(logits: object, count: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"predict returned {found}: it must return logits [{count}, classes], of a single output [{count}, 1]"
        )


def _check_logits(logits: Tensor) -> None:
    """Refuse probabilities, whose softmax or sigmoid hardly changes; those of a sigmoid can only be suspected."""
    between = bool(((logits >= 0) & (logits <= 1)).all())
    if between and logits.shape[1] > 1 and bool(((logits.sum(dim=1) - 1).abs() < 0.01).all()):
        raise UserError("predict returned probabilities, which sum to 1: return logits, what comes before the softmax")
    if between and logits.any():
        warn("predict returned values from 0 to 1 alone: if they are probabilities, return their logits", stacklevel=4)


def _check_input(value: Tensor, target: Tensor) -> None:
    if value.ndim not in (3, 4) or 0 in value.shape:
        raise UserError(
            f"input has shape {list(value.shape)}: pass waveforms [B, channels, N] or spectrograms [B, channels, F, T]"
        )
    if not isinstance(target, Tensor):
        raise UserError(f"target is {target!r}: pass a tensor with the class index of each sample")
    check_target(target, len(value))


def _check_values(values: Tensor, relevance: Tensor, candidates: Tensor | None) -> None:
    if relevance.shape != values.shape:
        raise UserError(f"relevance has shape {list(relevance.shape)} but the input {list(values.shape)}: pass its own")
    if not relevance.isfinite().all():
        raise UserError("relevance holds NaN or infinity, which have no order: has the network diverged?")
    if candidates is not None and (candidates.shape != values.shape or candidates.dtype != torch.bool):
        raise UserError(
            f"candidates has shape {list(candidates.shape)} and type {candidates.dtype}: "
            f"pass a bool tensor of the input's shape {list(values.shape)}"
        )
