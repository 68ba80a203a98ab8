"""Trainings whose every step draws random numbers, and what interrupts them."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from command_line import tiny_run

AUGMENTATIONS = """
data: {init_args: {augmentations: [{class_path: SpeedPerturbation}, {class_path: AdditiveNoise}], batch_size: 4}}
"""
EPOCHS = 3
BATCHES = 5  # an epoch: 20 clips, 4 a batch
EVERY_STEP = "--trainer.callbacks.every_n_train_steps=1"


class Crash(L.Callback):
    """A machine that goes down before a step of the training."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("power failure")


class End(L.Callback):
    """Keeps what a training ends with."""

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "end.ckpt")


def options(corpus: Path, *more: str) -> list[str]:
    """A training whose every step draws random numbers, with a checkpoint after each."""
    return [
        *tiny_run(corpus),
        "--config=augmented.yaml",
        "--model.mixup=0.2",
        f"--trainer.max_epochs={EPOCHS}",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.filename=last",
        "--trainer.callbacks.enable_version_counter=false",
        *more,
        "--trainer.callbacks+=interruptions.End",
    ]


def assert_same_end(resumed: Path, whole: Path) -> None:
    ends = [torch.load(folder / "end.ckpt", weights_only=True) for folder in (resumed, whole)]
    assert [end["global_step"] for end in ends] == [EPOCHS * BATCHES] * 2
    for name, weight in ends[1]["state_dict"].items():
        assert torch.equal(ends[0]["state_dict"][name], weight), name
    for number, moments in ends[1]["optimizer_states"][0]["state"].items():
        for name, value in moments.items():
            assert torch.equal(ends[0]["optimizer_states"][0]["state"][number][name], value)
