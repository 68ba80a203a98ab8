"""The confusion matrix of a test as a picture and a table."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from audio_lrp.callbacks.isolation import OnError, check_on_error, surviving
from audio_lrp.callbacks.publishing import write_image, write_rows
from audio_lrp.errors import UserError
from audio_lrp.tracking import run_folder
from audio_lrp.visualization.figures import confusion_matrix, pixels

KEY = "test/confusion_matrix"


@runtime_checkable
class CountsConfusions(Protocol):
    """What the callback needs of a model; :class:`~audio_lrp.models.Classifier` has it."""

    confusion_matrix: MulticlassConfusionMatrix


class ConfusionMatrixCallback(Callback):
    """Shows after a test which classes were taken for which.

    Logged to W&B as the picture ``test/confusion_matrix`` and the table ``test/confusion_matrix_table``; with another
    logger or none written as ``test/confusion_matrix.png`` and ``.csv`` into the run's folder.

    A failure to show it costs a warning, not the run.

    Args:
        on_error: whether such a failure is a warning (``"warn"``) or ends the run (``"raise"``).

    Raises:
        UserError: the model does not count confusions, or ``on_error`` is something else.
    """

    def __init__(self, on_error: OnError = "warn") -> None:
        check_on_error(on_error, self)
        self.on_error = on_error

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the model counts confusions."""
        if not isinstance(pl_module, CountsConfusions):
            raise UserError(
                f"ConfusionMatrixCallback shows the confusion_matrix of a Classifier, which {type(pl_module).__name__} "
                "has not: take it out of trainer.callbacks"
            )

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather the counts of all processes and publish them from the first."""
        assert isinstance(pl_module, CountsConfusions)
        counts = pl_module.confusion_matrix.compute().cpu().numpy()
        if trainer.is_global_zero:
            names = getattr(getattr(trainer, "datamodule", None), "class_names", None) or [
                *map(str, range(len(counts)))
            ]
            with surviving("ConfusionMatrixCallback shows nothing", self.on_error):
                _publish(trainer, counts, names)


def _publish(trainer: L.Trainer, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    title = f"{counts.sum()} test examples, {np.trace(counts) / max(1, counts.sum()):.1%} correct"
    image = pixels(confusion_matrix(counts, class_names, title))
    rows = [
        {"true": true, "predicted": predicted, "count": int(counts[row, column])}
        for row, true in enumerate(class_names)
        for column, predicted in enumerate(class_names)
    ]
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    for run in runs:
        import wandb  # takes a second to import, and only runs with W&B need it

        table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        picture = wandb.Image(image, caption=title)
        run.log({KEY: picture, f"{KEY}_table": table, "trainer/global_step": trainer.global_step})
    if not runs:
        path = run_folder(trainer) / KEY
        write_image(path.with_suffix(".png"), image)
        write_rows(path.with_suffix(".csv"), rows)
