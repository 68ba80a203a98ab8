"""Measurements on a trained cell: its predictions, the paper's manipulations, and tests of its explanations.

All of it on the cell's test speakers, who were heard neither in training nor in validation.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from audio_lrp.callbacks.publishing import write_rows
from audio_lrp.data import Batch, Corpus, Spectrogram
from audio_lrp.data.tasks import GENDERS, TASKS
from audio_lrp.faithfulness import bootstrap
from audio_lrp.faithfulness.manipulations import PITCH_FACTORS, scale_frequency, scale_time
from audio_lrp.study.explanations import explain_all
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.reported import OTHER_PITCH, UNCHANGED
from audio_lrp.study.rows import Row, estimate_row
from audio_lrp.study.subject import Subject, load_subject

MANIPULATIONS: Final = (
    UNCHANGED,
    OTHER_PITCH,
    "away from the other gender",
    "there and back",
    "time stretched",
    "time compressed",
)


def measure(study: Study, cell: Cell) -> dict[str, float | int]:
    """Measure a trained cell and write its tables.

    Returns:
        Number of test clips and test accuracy.
    """
    folder = study.cell_folder(cell)
    subject = load_subject(study, cell)
    predictions = predict_all(subject)
    write_rows(folder / "predictions.csv", predictions)
    if cell.task == "gender" and isinstance(subject.data.input_representation, Spectrogram):
        write_rows(folder / "frequency_scaling.csv", frequency_scaling(subject, subject.test_batches()))
    batches = subject.explained_batches(study.budget.explained_clips)
    explain_all(subject, batches, study.composite, study.budget, folder)
    correct = [row["label"] == row["prediction"] for row in predictions]
    return {"clips": len(correct), "test_accuracy": float(np.mean(correct))}


@torch.inference_mode()
def predict_all(subject: Subject) -> list[Row]:
    """Prediction and probabilities of every test clip."""
    names, corpus = subject.data.class_names, subject.data.corpus
    rows: list[Row] = []
    for batch in subject.test_batches():
        probabilities = subject.network(batch.input).softmax(dim=1).cpu()
        for index, label, of_classes in zip(
            batch.index.tolist(), batch.label.tolist(), probabilities.tolist(), strict=True
        ):
            file = corpus.recordings[index].path.relative_to(corpus.root).as_posix()
            row: Row = {"file": file, "label": names[label], "prediction": names[int(np.argmax(of_classes))]}
            rows.append(row | {name: round(value, 6) for name, value in zip(names, of_classes, strict=True)})
    return rows


def manipulated(batch: Batch, gender: Tensor, name: str, silence: float) -> Tensor:
    """Spectrograms of male (0) and female (1) voices [B] after one of `MANIPULATIONS`."""
    to_other = torch.tensor(PITCH_FACTORS, device=gender.device)[gender]
    away = torch.tensor(PITCH_FACTORS[::-1], device=gender.device)[gender]
    if name == UNCHANGED:
        return batch.input
    if name.startswith("time"):
        # The middle of the utterance in frames: frame m is centred at sample (m + 2) * hop.
        centre = (batch.offset + batch.length / 2) / Spectrogram.hop_length - 2
        factor = torch.full_like(away, max(PITCH_FACTORS) if name == "time stretched" else min(PITCH_FACTORS))
        return scale_time(batch.input, factor, centre=centre, silence=silence)
    scaled = scale_frequency(batch.input, away if name.startswith("away") else to_other, silence=silence)
    return scale_frequency(scaled, 1 / to_other, silence=silence) if name == "there and back" else scaled


@torch.inference_mode()
def frequency_scaling(subject: Subject, batches: Iterable[Batch]) -> list[Row]:
    """Accuracy on spectrograms after each manipulation, by the speakers' gender and for all, with intervals.

    Voices whose gender the corpus does not say are left out: it decides which way a voice is scaled.
    """
    silence = subject.data.input_representation.silence
    of_recordings = torch.tensor(genders(subject.data.corpus), device=subject.device)
    facts: list[Tensor] = []
    answers: dict[str, list[Tensor]] = {name: [] for name in MANIPULATIONS}
    for batch in batches:
        known = of_recordings[batch.index] >= 0
        if not known.any():
            continue
        batch = Batch(*(getattr(batch, field)[known] for field in batch.__dataclass_fields__))
        gender = of_recordings[batch.index]
        facts.append(torch.stack([gender, batch.speaker]).cpu())
        for name, found in answers.items():
            logits = subject.network(manipulated(batch, gender, name, silence))
            found.append((logits.argmax(dim=1) == batch.label).double().cpu())
    gender, speaker = torch.cat(facts, dim=1)
    groups = {"all": torch.ones_like(gender, dtype=torch.bool)}
    groups |= {name: gender == index for index, name in enumerate(GENDERS)}
    rows: list[Row] = []
    for name, found in answers.items():
        for speakers, members in groups.items():
            if members.any():
                row: Row = {"manipulation": name, "speakers": speakers, "clips": int(members.sum())}
                estimate = estimate_row(bootstrap(torch.cat(found)[members], groups=speaker[members]))
                rows.append(row | {"accuracy": estimate["mean"], "low": estimate["low"], "high": estimate["high"]})
    return rows


def genders(corpus: Corpus) -> list[int]:
    """Gender of each recording's speaker: 0 male, 1 female, -1 where the corpus does not say."""
    labels = (TASKS["gender"].label(recording) for recording in corpus.recordings)
    return [-1 if label is None else label for label in labels]
