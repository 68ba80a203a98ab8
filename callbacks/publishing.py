"""Where pictures and perturbation curves go: to W&B, or into files of the run's folder."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from matplotlib.image import imsave
from numpy.typing import NDArray

from audio_lrp.callbacks.pictures import Picture
from audio_lrp.faithfulness.curves import PerturbationCurves
from audio_lrp.faithfulness.scores import aopc
from audio_lrp.figures import perturbation_chart, pixels
from audio_lrp.tracking import run_folder
from audio_lrp.tracking.files import replacing


def publish(
    trainer: L.Trainer, prefix: str, pictures: Sequence[Picture], curves: PerturbationCurves, title: str
) -> None:
    """Log to every W&B logger of the trainer; where there is none, write PNG and CSV files into the run's folder.

    The curves' areas, being plain numbers, go to loggers of every kind.

    Args:
        trainer: names the loggers, the run's folder and the step.
        prefix: what W&B's keys and the files' paths begin with, e.g. ``"lrp"`` for ``lrp/maps``.
        pictures: relevance maps.
        curves: perturbation curves.
        title: title of the curves' chart.
    """
    areas = {order: aopc(curves, order).mean().item() for order in curves.orders}
    for logger in trainer.loggers:
        logger.log_metrics({f"{prefix}/aopc_{order}": area for order, area in areas.items()}, trainer.global_step)
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    for run in runs:
        _log(run, prefix, trainer.global_step, pictures, curves, title)
    if not runs:
        _write(run_folder(trainer) / prefix / f"step-{trainer.global_step:08d}", pictures, curves, title)


def _log(run: Any, prefix: str, step: int, pictures: Sequence[Picture], curves: PerturbationCurves, title: str) -> None:
    import wandb  # takes a second to import, and only runs with W&B need it

    # One table holds all curves, so that every quantity can be read back; the chart draws one of them.
    rows = curves.rows()
    chart = wandb.plot_table(
        "wandb/lineseries/v0",
        wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows]),
        {"step": "fraction", "lineKey": "order", "lineVal": "probability"},
        {"title": title, "xname": "fraction removed"},
    )
    values: dict[str, Any] = {
        f"{prefix}/perturbation": chart,
        # Lightning's own charts are drawn over this; with W&B's `step` they would fall apart.
        "trainer/global_step": step,
    }
    if pictures:
        values[f"{prefix}/maps"] = [wandb.Image(picture.image, caption=picture.caption) for picture in pictures]
    run.log(values)


def _write(stem: Path, pictures: Sequence[Picture], curves: PerturbationCurves, title: str) -> None:
    """Write ``<stem>-map-0.png``, ..., ``<stem>-perturbation.png`` and ``.csv``, and ``<stem>-aopc.csv``."""
    quantities = {name: getattr(curves, name).numpy() for name in ("accuracy", "probability", "logit")}
    chart = pixels(perturbation_chart(curves.fractions.numpy(), quantities, curves.orders, title))
    images = {f"map-{number}": picture.image for number, picture in enumerate(pictures)} | {"perturbation": chart}
    for name, image in images.items():
        write_image(stem.with_name(f"{stem.name}-{name}.png"), image)
    areas = [{"order": order, "aopc": aopc(curves, order).mean().item()} for order in curves.orders]
    tables: dict[str, Sequence[Mapping[str, Any]]] = {"perturbation": curves.rows(), "aopc": areas}
    for name, rows in tables.items():
        write_rows(stem.with_name(f"{stem.name}-{name}.csv"), rows)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image [height, width, 3] as PNG, whole or not at all."""
    with replacing(path) as temporary:
        imsave(temporary, image, format="png")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, headed by the first one's names, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
