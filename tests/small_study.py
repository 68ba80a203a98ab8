"""A study that takes seconds: a small budget, tones in AudioMNIST's layout, and tiny networks in the recipes' place."""

import csv
import json
from pathlib import Path
from typing import Any

import lightning as L
import soundfile
import torch
import yaml
from fake_corpus import ToneCorpus
from torch import nn

from audio_lrp.training.lightning_cli import main as run_lightning

TRUSTED = ("small_study", "command_line", "fake_corpus")
"""Modules of the classes that checkpoints of such studies name."""

BUDGET = {
    "steps": {"alexnet_digit": 4, "alexnet_gender": 4, "audionet_digit": 4, "audionet_gender": 4},
    "batch_size": 4,
    "validate_every": 2,
    "generated_folds": 3,
    "explained_clips": 6,
    "fractions": [0, 0.01, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99],
    "random_orders": 1,
    "competitors": ["gradient_times_input"],
    "synthetic": {"speakers": 6, "repetitions": 1},
    "synthetic_voices": 2,
}


def tones_as_audiomnist(root: Path, speakers: int = 6) -> Path:
    """Tones in AudioMNIST's layout: half of the speakers male, half female."""
    tones = ToneCorpus(root, speakers=speakers, repetitions=1)
    genders = {}
    for recording in tones.scan():
        number = f"{int(recording.speaker[1:]) + 1:02d}"
        genders[number] = {"gender": recording.gender}
        path = root / "data" / number / f"{recording.digit}_{number}_0.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones.tone(recording), 8000)
    (root / "data" / "audioMNIST_meta.txt").write_text(json.dumps(genders))
    return root


class TinyPicture(nn.Sequential):
    """A spectrogram network that trains in milliseconds."""

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 15, stride=8), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(144, num_classes)
        )


class Weights(L.Callback):
    """Keeps the weights after every step."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        folder = Path(trainer.checkpoint_callback.dirpath).parent / "weights"
        folder.mkdir(exist_ok=True)
        torch.save(pl_module.network.state_dict(), folder / f"{trainer.global_step}.pt")


def train_tiny(arguments: list[str]) -> None:
    """Train a cell with a tiny network, in the place of those of millions of weights."""
    path = Path(arguments[1].removeprefix("--config="))
    settings = yaml.safe_load(path.read_text())
    name = "small_study.TinyPicture" if "alexnet" in path.parent.name else "command_line.TinyNetwork"
    settings["model"]["init_args"]["network"] = {"class_path": name}
    path.write_text(yaml.safe_dump(settings))
    run_lightning([*arguments, "--trainer.accelerator=cpu"])


def table(study: Path | str, name: str, **wanted: str) -> list[dict[str, Any]]:
    """The rows of a study's table that have the wanted values."""
    rows: list[dict[str, Any]] = json.loads(Path(study, "tables", f"{name}.json").read_text())
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def predictions(study: Path, cell: str) -> list[dict[str, str]]:
    """What a cell's network made of every test clip."""
    with (study / "cells" / cell / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_steps(path: Path) -> set[int]:
    """The steps after which a training was validated."""
    with path.open(newline="") as file:
        return {int(row["step"]) for row in csv.DictReader(file) if row["val/accuracy"]}
