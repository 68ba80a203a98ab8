"""Explanations of a trained cell, and their tests: perturbation curves, scores, relevance by band."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from audio_lrp.attribution import attribute
from audio_lrp.callbacks.publishing import write_rows
from audio_lrp.data.representation import SAMPLE_RATE
from audio_lrp.faithfulness import (
    PerturbationCurves,
    Quantity,
    RandomOrder,
    aopc,
    bootstrap,
    comprehensiveness,
    joined_curves,
    perturbation_curves,
    srg,
    sufficiency,
)
from audio_lrp.faithfulness.band_relevance import band_relevance, by_class
from audio_lrp.study.plan import Study
from audio_lrp.study.rows import Row
from audio_lrp.study.subject import CHUNK, Subject
from audio_lrp.tracking.files import replacing

BAND_EDGES: Final = tuple(range(0, 4001, 100))
"""Limits of the bands in Hz: wide enough for a harmonic of a low voice each, narrow enough to tell pitches apart."""

COMPARED: Final[tuple[Quantity, ...]] = ("accuracy", "probability")
"""What is kept of the curves of every clip."""


def explain_all(subject: Subject, study: Study, folder: Path) -> None:
    """Explain test clips; write perturbation curves, scores and relevance by band."""
    curves, bands, labels, speakers = [], [], [], []
    for number, batch in enumerate(subject.explained_batches(study.budget.explained_clips)):
        relevance = attribute(subject.network, batch.input, batch.label, study.composite, chunk_size=CHUNK).relevance
        curves.append(
            perturbation_curves(
                subject.network,
                batch.input,
                batch.label,
                relevance,
                orders=("morf", "lerf", RandomOrder(study.budget.random_orders), "amplitude"),
                fractions=study.budget.fractions,
                baseline=subject.data.input_representation.silence,
                seed=number,
            )
        )
        bands.append(band_relevance(batch.input, relevance, BAND_EDGES, SAMPLE_RATE).cpu())
        labels.append(batch.label.cpu())
        speakers.append(batch.speaker.cpu())
    joined, speaker = joined_curves(curves), torch.cat(speakers)
    write_rows(folder / "perturbation.csv", joined.rows())
    save_outcomes(folder / "perturbation.npz", joined, speaker)
    write_rows(folder / "scores.csv", scores(joined, speaker))
    write_rows(folder / "bands.csv", band_rows(torch.cat(bands), torch.cat(labels), subject.data.class_names))


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


def scores(curves: PerturbationCurves, speaker: Tensor) -> list[Row]:
    """Scores of the explanations, each with a bootstrap interval for which whole speakers are drawn."""
    of_clips = {f"aopc_{order}": aopc(curves, order) for order in curves.orders}
    of_clips |= {
        "srg": srg(curves),
        "comprehensiveness": comprehensiveness(curves),
        "sufficiency": sufficiency(curves),
    }
    rows: list[Row] = []
    for name, values in of_clips.items():
        estimate = bootstrap(values, groups=speaker)
        rows.append({"score": name, "mean": estimate.mean, "low": estimate.low, "high": estimate.high})
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
