"""Explanations of a trained cell, and their tests: perturbation curves, scores, randomisation, relevance by band."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from audio_lrp.callbacks.publishing import write_rows
from audio_lrp.data import Batch
from audio_lrp.data.representation import SAMPLE_RATE
from audio_lrp.faithfulness import (
    LRP,
    PerturbationCurves,
    Quantity,
    RandomOrder,
    all_scores,
    bootstrap,
    complexity,
    joined_curves,
    max_sensitivity,
    method_by_name,
    parameter_randomization,
    perturbation_curves,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sparseness,
)
from audio_lrp.faithfulness.band_relevance import band_relevance, by_class
from audio_lrp.study.budget import Budget
from audio_lrp.study.rows import Row, estimate_row
from audio_lrp.study.subject import CHUNK, Subject
from audio_lrp.utils.files import replacing

BAND_EDGES: Final = tuple(range(0, 4001, 100))
"""Limits of the bands in Hz: wide enough for a harmonic of a low voice each, narrow enough to tell pitches apart."""

COMPARED: Final[tuple[Quantity, ...]] = ("accuracy", "probability")
"""What is kept of the curves of every clip."""

OUTCOMES: Final = "perturbation.npz"
"""The file of the curves of every clip."""

PROBES: Final = 5
"""Noises that are tried for the sensitivity."""

PROBED_CLIPS: Final = 20
"""Clips for the measures that explain the same clip again and again: sensitivity, and randomised parameters."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found on some explained clips.

    Attributes:
        curves: perturbation curves.
        scores: scores of each explanation by name, float64 [B].
        bands: relevance by band [B, bands].
        label: class of each clip [B].
        speaker: number of each clip's speaker in the corpus [B].
    """

    curves: PerturbationCurves
    scores: dict[str, Tensor]
    bands: Tensor
    label: Tensor
    speaker: Tensor


def explain_all(subject: Subject, batches: Iterable[Batch], composite: str, budget: Budget, folder: Path) -> None:
    """Explain clips; write perturbation curves, scores, randomisation and relevance by band."""
    method = LRP(composite, chunk_size=CHUNK)
    found: list[Findings] = []
    for batch in batches:
        if not found:
            probe(subject, method, batch, folder)
        found.append(explain_batch(subject, method, batch, budget))
    curves = joined_curves([each.curves for each in found])
    speaker = torch.cat([each.speaker for each in found])
    of_clips = {name: torch.cat([each.scores[name] for each in found]) for name in found[0].scores}
    write_rows(folder / "perturbation.csv", curves.rows())
    save_outcomes(folder / OUTCOMES, curves, speaker)
    write_rows(folder / "scores.csv", score_rows(all_scores(curves) | of_clips, speaker))
    bands, label = torch.cat([each.bands for each in found]), torch.cat([each.label for each in found])
    write_rows(folder / "bands.csv", band_rows(bands, label, subject.data.class_names))


def explain_batch(subject: Subject, method: LRP, batch: Batch, budget: Budget) -> Findings:
    """Explain some clips and test the explanations."""
    silence = subject.data.input_representation.silence
    relevance = method(subject.network, batch.input, batch.label)
    orders = ("morf", "lerf", RandomOrder(budget.random_orders), "amplitude")
    shared: dict[str, Any] = {"fractions": budget.fractions, "baseline": silence, "index": batch.index}
    curves = perturbation_curves(subject.network, batch.input, batch.label, relevance, orders=orders, **shared)
    for name in budget.competitors:
        other = method_by_name(name)(subject.network, batch.input, batch.label)
        followed = perturbation_curves(subject.network, batch.input, batch.label, other, orders=("morf",), **shared)
        curves = PerturbationCurves(
            curves.fractions,
            (*curves.orders, name),
            (*curves.repetitions, 1),
            torch.cat([curves.outcomes, followed.outcomes], dim=1),
        )
    utterance = subject.data.input_representation.utterance(batch.offset, batch.length)
    scores = {
        "relevance_mass_accuracy": relevance_mass_accuracy(relevance, utterance),
        "relevance_rank_accuracy": relevance_rank_accuracy(relevance, utterance),
        "sparseness": sparseness(relevance),
        "complexity": complexity(relevance),
    }
    return Findings(
        curves,
        {name: values.cpu() for name, values in scores.items()},
        band_relevance(batch.input, relevance, BAND_EDGES, SAMPLE_RATE).cpu(),
        batch.label.cpu(),
        batch.speaker.cpu(),
    )


def probe(subject: Subject, method: LRP, batch: Batch, folder: Path) -> None:
    """Explain a few clips again and again: with noise added, and with parameters randomised layer by layer."""
    few = Batch(*(getattr(batch, name)[:PROBED_CLIPS] for name in batch.__dataclass_fields__))
    utterance = subject.data.input_representation.utterance(few.offset, few.length).expand_as(few.input)
    randomized = parameter_randomization(method, subject.network, few.input, few.label, mask=utterance)
    write_rows(folder / "randomization.csv", randomized.rows())
    sensitivity = max_sensitivity(method, subject.network, few.input, few.label, num_samples=PROBES)
    write_rows(folder / "sensitivity.csv", score_rows({"max_sensitivity": sensitivity.cpu()}, few.speaker.cpu()))


def save_outcomes(path: Path, curves: PerturbationCurves, speaker: Tensor) -> None:
    """Keep the curves of every clip, for comparisons over several cells.

    The file holds ``fractions`` [S], ``orders`` [O], ``accuracy`` and ``probability`` [O, clips, S], and ``speaker``
    [clips], each speaker's number in the corpus.
    """
    arrays: dict[str, Any] = {
        name: torch.stack([curves.of_examples(order, name) for order in curves.orders]).float().numpy()
        for name in COMPARED
    }
    arrays |= {"fractions": curves.fractions.numpy(), "orders": np.array(curves.orders), "speaker": speaker.numpy()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def score_rows(of_clips: dict[str, Tensor], speaker: Tensor) -> list[Row]:
    """Means of scores [B], each with a bootstrap interval for which whole speakers are drawn."""
    rows: list[Row] = []
    for name, values in of_clips.items():
        defined = ~values.isnan()
        if defined.any():
            estimate = bootstrap(values[defined], groups=speaker[defined])
            rows.append({"score": name, **estimate_row(estimate)})
    return rows


def band_rows(of_clips: Tensor, label: Tensor, class_names: Sequence[str]) -> list[Row]:
    """Relevance of clips by band [B, bands], averaged over each class that there are clips of."""
    averages = by_class(of_clips, label, len(class_names))
    return [
        {
            "class": name,
            "low_hertz": BAND_EDGES[band],
            "high_hertz": BAND_EDGES[band + 1],
            "relevance": float(averages.relevance[index, band]),
            "share": float(averages.share[index, band]),
            "clips": int(averages.count[index]),
        }
        for index, name in enumerate(class_names)
        for band in range(of_clips.shape[1])
        if averages.count[index]
    ]
