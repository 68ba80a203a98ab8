"""A sweep over a callback's level, which takes seconds: its file, its metric, and the table of its trials."""

import csv
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from command_line import tiny_run

LEVEL = "trainer.callbacks.init_args.level"


class Score(L.Callback):
    """Logs its level as the score after every epoch, and takes no failure to log seriously; below zero it crashes."""

    def __init__(self, level: float, seconds: float = 0.0) -> None:
        self.level = level
        self.seconds = seconds

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        time.sleep(self.seconds)
        if self.level < 0:
            raise RuntimeError("boom")
        with suppress(Exception):
            for logger in trainer.loggers:
                logger.log_metrics({"score": self.level}, trainer.global_step)


def write_sweep(corpus: Path, levels: list[float], *options: str, **changes: Any) -> Path:
    """Write ``levels.yaml`` into the working directory."""
    score = ["--trainer.callbacks=small_sweep.Score", "--trainer.max_epochs=3", *options]
    content = {
        "method": "grid",
        "metric": {"name": "score", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3},
        "command": ["${env}", "audio-lrp", "fit", *tiny_run(corpus), *score, "${args}"],
        "parameters": {LEVEL: {"values": levels}},
    }
    path = Path("levels.yaml")
    path.write_text(yaml.safe_dump(content | changes))
    return path


def trials() -> list[dict[str, str]]:
    """The rows of the sweep's table."""
    with Path("runs/sweeps/levels/trials.csv").open() as file:
        return list(csv.DictReader(file))
