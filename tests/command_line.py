"""Running the command line in process, on a tiny network and a generated corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from audio_lrp.commands import main

TESTS = Path(__file__).parent


class TinyNetwork(nn.Sequential):
    """A waveform network that trains in milliseconds; ``width`` changes the shape of its weights."""

    representation = "waveform"

    def __init__(self, num_classes: int, width: int = 4, dropout: float = 0.1) -> None:
        super().__init__(
            nn.Conv1d(1, width, 16, stride=8), nn.ReLU(), nn.MaxPool1d(8), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(width * 124, num_classes),
        )  # fmt: skip


class OtherNetwork(TinyNetwork):
    """Shares one of TinyNetwork's settings."""

    def __init__(self, num_classes: int, dropout: float = 0.2, depth: int = 1) -> None:
        super().__init__(num_classes, dropout=dropout)


class Choosy(nn.Module):
    """A network that needs more than the number of classes."""

    def __init__(self, num_classes: int, block: int, layers: int) -> None:
        super().__init__()


def tiny_run(corpus: Path) -> list[str]:
    """Options of a run that takes a second, without logger."""
    return [
        "--model=Classifier",
        "--model.network=command_line.TinyNetwork",
        "--data=CorpusDataModule",
        "--data.corpus=fake_corpus.ToneCorpus",
        f"--data.corpus.root={corpus}",
        "--data.corpus.repetitions=1",
        "--data.num_folds=3",
        "--data.cache_dir=beside",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.max_epochs=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.logger=false",
    ]


def tests_path() -> str:
    """A ``PYTHONPATH`` by which another process finds the tests' modules that this one finds."""
    return os.pathsep.join(path for path in sys.path if Path(path).is_relative_to(TESTS))


def exit_code(*arguments: str) -> int:
    """Run the command line; 0 where it returns."""
    try:
        main(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def only_folder(root: Path) -> Path:
    """The folder of the only run below ``root``."""
    (folder,) = root.glob("*/*")
    return folder


def only_checkpoint(folder: Path) -> Path:
    """The only checkpoint of a run."""
    (path,) = folder.glob("checkpoints/*.ckpt")
    return path


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What a run printed last, by line."""
    lines = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line]
    return {name: value.strip() for name, value in lines}


def wandb_records(run_folder: Path) -> list[dict[str, Any]]:
    """The records of the only W&B run in a run's folder, as W&B's own reader gives them."""
    (path,) = run_folder.glob("wandb/*run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def wandb_config(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The configuration that the records add up to."""
    config: dict[str, Any] = {}
    for record in records:
        config |= record.get("config", {}).get("update", {})
    return config
