"""Publication of figures, sounds and perturbation curves: on W&B, or in files of the run's folder."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from matplotlib.image import imsave
from numpy.typing import NDArray

from audio_lrp.attribution.attribute import Explanation
from audio_lrp.attribution.conservation import Conservation
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.representation import SAMPLE_RATE
from audio_lrp.faithfulness.curves import PerturbationCurves
from audio_lrp.faithfulness.scores import aopc, srg
from audio_lrp.timefrequency.audible import write_wav
from audio_lrp.tracking import run_folder
from audio_lrp.utils.files import replacing
from audio_lrp.visualization.clips import DrawnClip
from audio_lrp.visualization.figures import perturbation_chart, pixels


@dataclass(frozen=True)
class Results:
    """What an explanation of the examples has to say.

    Attributes:
        clips: figures and sounds of the first examples.
        curves: perturbation curves over all examples.
        relevance_mass: share of the positive relevance on the utterance, where known.
        shortfall: by how much the accuracy misses what is required, 0 where it does not; None where nothing is.
        conservation: what became of the relevance, layer by layer.
        title: title of the curves' chart.
        history: of a training, the curve of the first order at every explanation so far, as rows of a table;
            ``trained`` says after which step.
    """

    clips: Sequence[DrawnClip]
    curves: PerturbationCurves
    relevance_mass: float | None
    shortfall: float | None
    conservation: Conservation
    title: str
    history: Sequence[Mapping[str, str | float]] = ()

    @property
    def scores(self) -> dict[str, float]:
        """Area over the curve of each order, symmetric relevance gain and relevance mass.

        The gain at constrained accuracy follows Deb's rule (2000, doi:10.1016/S0045-7825(99)00389-8): what violates the
        constraint is worse than the worst that does not, here -1, by as much as it violates it.
        """
        found = {f"aopc_{order}": aopc(self.curves, order).mean().item() for order in self.curves.orders}
        if {"morf", "lerf"} <= set(self.curves.orders):
            found["srg"] = srg(self.curves).mean().item()
            if self.shortfall is not None:
                found["srg_constrained"] = -1 - self.shortfall if self.shortfall > 0 else found["srg"]
        if self.relevance_mass is not None:
            found["relevance_mass"] = self.relevance_mass
        return found

    def scalars(self, prefix: str) -> dict[str, float]:
        """The scores and, where accounts were kept, the conservation error, by the keys they are logged under."""
        found = {f"{prefix}/{name}": value for name, value in self.scores.items()}
        if self.conservation.layers:  # stock rules keep no accounts
            found[f"{prefix}/conservation_error"] = self.conservation.error
        return found


def publish(trainer: L.Trainer, prefix: str, results: Results) -> None:
    """Log to every W&B logger of the trainer; where there is none, write files into the run's folder.

    The scores and the conservation error, being plain numbers, go to loggers of every kind.

    Args:
        trainer: names the loggers, the run's folder and the step.
        prefix: what W&B's keys and the files' paths begin with, e.g. ``"lrp"`` for ``lrp/maps``.
        results: what to log: figures, sounds, curves, scalars.
    """
    for logger in trainer.loggers:
        logger.log_metrics(results.scalars(prefix), trainer.global_step)
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    for run in runs:
        _log(run, prefix, trainer.global_step, results)
    if not runs:
        _write(run_folder(trainer) / prefix / f"step-{trainer.global_step:08d}", results)


def _log(run: Any, prefix: str, step: int, results: Results) -> None:
    import wandb  # takes a second to import, and only runs with W&B need it

    # One table holds all curves, so that every quantity can be read back; the chart draws one of them.
    values: dict[str, Any] = {
        f"{prefix}/perturbation": _curves_chart(results.curves.rows(), "order", results.title),
        # Lightning's own charts are drawn over this; with W&B's `step` they would fall apart.
        "trainer/global_step": step,
    }
    for key, name in {"maps": "map", "time_frequency": "time_frequency"}.items():
        images = [(clip.figures[name], clip.caption) for clip in results.clips if name in clip.figures]
        if images:
            values[f"{prefix}/{key}"] = [wandb.Image(image, caption=caption) for image, caption in images]
    sounds = [(sound, f"{name} | {clip.caption}") for clip in results.clips for name, sound in clip.sounds.items()]
    if sounds:
        values[f"{prefix}/audio"] = [wandb.Audio(sound, SAMPLE_RATE, caption) for sound, caption in sounds]
    if results.history:
        title = f"{results.curves.orders[0]} in the course of the training | {results.title}"
        values[f"{prefix}/perturbation_history"] = _curves_chart(results.history, "trained", title)
    run.log(values)


def _curves_chart(rows: Sequence[Mapping[str, str | float]], line: str, title: str) -> Any:
    """A chart of probabilities over fractions, with a line for each value of one of the columns."""
    import wandb

    return wandb.plot_table(
        "wandb/lineseries/v0",
        wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows]),
        {"step": "fraction", "lineKey": line, "lineVal": "probability"},
        {"title": title, "xname": "fraction removed"},
    )


def _write(stem: Path, results: Results) -> None:
    """Write ``<stem>-perturbation.png`` and the rest.

    Of each example ``-map-0.png``, ``-time_frequency-0.png``, ``-audio-0-original.wav``, ...; of all
    ``-perturbation.png``, ``-perturbation.csv``, ``-scores.csv`` and ``-conservation.csv``, the ledger.
    """
    scores = [{"score": name, "value": value} for name, value in results.scores.items()]
    tables: dict[str, Sequence[Mapping[str, Any]]] = {"perturbation": results.curves.rows(), "scores": scores}
    if results.conservation.layers:
        tables["conservation"] = results.conservation.rows()
    for name, rows in tables.items():  # before the figures, for which there may be no space
        write_rows(stem.with_name(f"{stem.name}-{name}.csv"), rows)
    curves = results.curves
    quantities = {name: getattr(curves, name).numpy() for name in ("accuracy", "probability", "logit")}
    chart = perturbation_chart(curves.fractions.numpy(), quantities, curves.orders, results.title)
    write_image(stem.with_name(f"{stem.name}-perturbation.png"), pixels(chart))
    for number, clip in enumerate(results.clips):
        for name, image in clip.figures.items():
            write_image(stem.with_name(f"{stem.name}-{name}-{number}.png"), image)
        for name, sound in clip.sounds.items():
            write_wav(stem.with_name(f"{stem.name}-audio-{number}-{name}.wav"), torch.from_numpy(sound), SAMPLE_RATE)


def save_relevance(path: Path, batch: Batch, explanation: Explanation) -> None:
    """Write what was explained and the relevance as NumPy arrays, in the place of those of the last time.

    Args:
        path: of the ``.npz`` file.
        batch: the examples; kept are ``input`` [B, 1, ...], ``label``, ``index``, ``offset`` and ``length`` [B].
        explanation: kept are ``relevance`` [B, 1, ...], ``output`` [B, C] and ``target`` [B].
    """
    kept = {name: getattr(batch, name) for name in ("input", "label", "index", "offset", "length")}
    kept |= {name: getattr(explanation, name) for name in ("relevance", "output", "target")}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{name: tensor.detach().cpu().numpy() for name, tensor in kept.items()})


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image [height, width, 3] as PNG, whole or not at all."""
    with replacing(path) as temporary:
        imsave(temporary, image, format="png")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; a column that a row lacks is left empty."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
