"""A training that was interrupted goes on as if it never had been."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from command_line import exit_code, only_folder, tiny_run

AUGMENTATIONS = """
data: {init_args: {augmentations: [{class_path: SpeedPerturbation}, {class_path: AdditiveNoise}], batch_size: 4}}
"""
EPOCHS = 3
BATCHES = 5  # an epoch: 20 clips, 4 a batch


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


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDIO_LRP_RUN_FOLDER", raising=False)
    Path("augmented.yaml").write_text(AUGMENTATIONS)
    return tmp_path


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
        "--trainer.callbacks+=test_resume.End",
    ]


def assert_same_end(resumed: Path, whole: Path) -> None:
    ends = [torch.load(folder / "end.ckpt", weights_only=True) for folder in (resumed, whole)]
    assert [end["global_step"] for end in ends] == [EPOCHS * BATCHES] * 2
    for name, weight in ends[1]["state_dict"].items():
        assert torch.equal(ends[0]["state_dict"][name], weight), name
    for number, moments in ends[1]["optimizer_states"][0]["state"].items():
        for name, value in moments.items():
            assert torch.equal(ends[0]["optimizer_states"][0]["state"][number][name], value)


IN_STEPS = ["--trainer.max_epochs=-1", "--trainer.max_steps=15", "--trainer.check_val_every_n_epoch=null"]
EVERY_STEP = "--trainer.callbacks.every_n_train_steps=1"


@pytest.mark.parametrize(
    ("crash", "more"),
    [
        pytest.param(7, [EVERY_STEP], id="middle-of-an-epoch"),
        pytest.param(3, [EVERY_STEP], id="first-epoch", marks=pytest.mark.slow),
        pytest.param(10, [EVERY_STEP], id="end-of-an-epoch", marks=pytest.mark.slow),
        pytest.param(10, [], id="end-of-an-epoch-after-validation", marks=pytest.mark.slow),
        pytest.param(13, ["--trainer.val_check_interval=2"], id="after-validation-in-an-epoch", marks=pytest.mark.slow),
        pytest.param(
            9,
            [*IN_STEPS, "--trainer.val_check_interval=4"],
            id="counted-in-steps",
        ),
        pytest.param(
            10,
            [*IN_STEPS, "--trainer.val_check_interval=5"],
            id="counted-in-steps-end-of-an-epoch",
            marks=pytest.mark.slow,
        ),
        pytest.param(7, [EVERY_STEP, "--data.num_workers=1"], id="workers", marks=pytest.mark.slow),
    ],
)
def test_weights_are_those_of_an_uninterrupted_training(corpus: Path, crash: int, more: list[str]) -> None:
    assert exit_code("fit", *options(corpus, *more), "--run.root=whole") == 0
    crashing = ["--trainer.callbacks+=test_resume.Crash", f"--trainer.callbacks.step={crash}", "--run.root=first"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code("fit", *options(corpus, *more), *crashing)
    folder = only_folder(Path("first"))
    assert not (folder / "end.ckpt").exists()
    assert exit_code("fit", f"--config={folder}/config.yaml", "--trainer.callbacks.step=-1", "--ckpt_path=last") == 0
    assert only_folder(Path("first")) == folder
    assert_same_end(folder, only_folder(Path("whole")))


def test_weights_after_two_interruptions(corpus: Path) -> None:
    assert exit_code("fit", *options(corpus, EVERY_STEP), "--run.root=whole") == 0
    crashing = ["--trainer.callbacks+=test_resume.Crash", "--trainer.callbacks.step=5", "--run.root=first"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code("fit", *options(corpus, EVERY_STEP), *crashing)
    folder = only_folder(Path("first"))
    again = ["fit", f"--config={folder}/config.yaml", "--ckpt_path=last"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code(*again, "--trainer.callbacks.step=7")
    assert exit_code(*again, "--trainer.callbacks.step=-1") == 0
    assert_same_end(folder, only_folder(Path("whole")))


def test_another_root_begins_a_new_run(corpus: Path) -> None:
    assert exit_code("fit", *options(corpus), "--run.root=first") == 0
    folder = only_folder(Path("first"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert exit_code("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", "--run.root=second") == 0
    assert only_folder(Path("second"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_two_processes(corpus: Path) -> None:
    def fit(*arguments: str) -> int:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "audio_lrp", "fit", *arguments]
        return subprocess.run(command, check=False, capture_output=True, env=environment, timeout=300).returncode

    two = [*options(corpus, EVERY_STEP, "--data.batch_size=2"), "--trainer.strategy=ddp", "--trainer.devices=2"]
    assert fit(*two, "--run.root=whole") == 0
    assert fit(*two, "--run.root=first", "--trainer.callbacks+=test_resume.Crash", "--trainer.callbacks.step=7") == 1
    folder = only_folder(Path("first"))
    assert fit(f"--config={folder}/config.yaml", "--trainer.callbacks.step=-1", "--ckpt_path=last") == 0
    assert_same_end(folder, only_folder(Path("whole")))
