"""What ``audio-lrp predict`` leaves behind: a table of predictions."""

import csv
from typing import Any

import lightning as L
from lightning.pytorch import Callback
from torch import Tensor

from audio_lrp.data import Batch, CorpusDataModule
from audio_lrp.tracking import run_folder
from audio_lrp.utils.files import replacing


class PredictionTable(Callback):
    """Writes ``predictions.csv`` into the run's folder: file, label, prediction, and the probability of every class.

    A label that is not known is left empty.
    With several processes each writes the recordings it has seen, into ``predictions-0.csv`` and so on.
    """

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep the probabilities [B, C] of a batch."""
        datamodule = getattr(trainer, "datamodule", None)
        if not (isinstance(datamodule, CorpusDataModule) and isinstance(batch, Batch) and isinstance(outputs, Tensor)):
            return
        names, recordings = datamodule.class_names, datamodule.corpus.recordings
        for index, label, probabilities in zip(batch.index.tolist(), batch.label.tolist(), outputs.cpu(), strict=True):
            path = recordings[index].path.relative_to(datamodule.corpus.root)
            known, prediction = "" if label < 0 else names[label], names[int(probabilities.argmax())]
            self.rows.append([path, known, prediction, *(f"{value:.6f}" for value in probabilities.tolist())])

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table."""
        datamodule = getattr(trainer, "datamodule", None)
        if not self.rows or not isinstance(datamodule, CorpusDataModule):
            return
        name = "predictions.csv" if trainer.world_size == 1 else f"predictions-{trainer.global_rank}.csv"
        path = run_folder(trainer) / name
        with (
            replacing(path, "choose another place with --run.root") as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["file", "label", "prediction", *datamodule.class_names])
            writer.writerows(self.rows)
