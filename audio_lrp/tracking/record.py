"""Where a run's files lie, and its configuration beside them."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from audio_lrp.utils.files import replacing

CONFIG_FILENAME = "config.yaml"

SUMMARIES = {"val/accuracy": "max", "val/f1": "max", "val/loss": "min", "lrp/srg": "max"}
"""Which value of a metric stands for a W&B run: its best one, not its last."""


class RunRecord(Callback):
    """Keeps the run's configuration in its folder and in its loggers, and its checkpoints beside it.

    Args:
        folder: the run's folder; every process gets the first one's.
        config: the configuration as YAML text that the command line takes back by ``--config``.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.config = config
        self._recorded = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration once, before any other callback asks for the folder."""
        self.folder = trainer.strategy.broadcast(self.folder)
        for callback in trainer.checkpoint_callbacks:
            # Left alone, it would follow the first logger's folders, which are another for every logger.
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.folder / "checkpoints")
        if trainer.is_global_zero and not self._recorded:
            self._recorded = True
            self._record(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint as well, which is then enough to resume from."""
        checkpoint.setdefault("audio_lrp", {})["config"] = self.config

    def _record(self, trainer: Trainer) -> None:
        with replacing(self.folder / CONFIG_FILENAME, "choose another place with --run.root") as path:
            path.write_text(self.config)
        nested: dict[str, Any] = yaml.safe_load(self.config)
        for logger in trainer.loggers:
            logger.log_hyperparams(nested)
            if isinstance(logger, WandbLogger):
                for name, summary in SUMMARIES.items():
                    logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=summary)


def best_checkpoint(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that knows the best checkpoint: the first that monitors a metric, or else the first.

    Args:
        trainer: whose other callbacks may keep checkpoints for other ends, such as ``OnExceptionCheckpoint``.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return min(callbacks, key=lambda callback: callback.monitor is None, default=None)


def run_folder(trainer: Trainer) -> Path:
    """The folder for everything the trainer's run writes.

    Args:
        trainer: after its callbacks' ``setup``; no collective operation, so one process alone may ask.

    Returns:
        The folder that the command line made for the run; for trainers made otherwise the logger's folder, or the
        trainer's ``default_root_dir`` where there is no logger or it writes no files.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecord):
            return callback.folder
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    return Path(logger.log_dir or logger.save_dir or trainer.default_root_dir)
