"""A training that was interrupted goes on as if it never had been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import exit_code, only_folder, tests_path
from interruptions import AUGMENTATIONS, EVERY_STEP, assert_same_end, options


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDIO_LRP_RUN_FOLDER", raising=False)
    Path("augmented.yaml").write_text(AUGMENTATIONS)
    return tmp_path


IN_STEPS = ["--trainer.max_epochs=-1", "--trainer.max_steps=15", "--trainer.check_val_every_n_epoch=null"]


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
    crashing = ["--trainer.callbacks+=interruptions.Crash", f"--trainer.callbacks.step={crash}", "--run.root=first"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code("fit", *options(corpus, *more), *crashing)
    folder = only_folder(Path("first"))
    assert not (folder / "end.ckpt").exists()
    assert exit_code("fit", f"--config={folder}/config.yaml", "--trainer.callbacks.step=-1", "--ckpt_path=last") == 0
    assert only_folder(Path("first")) == folder
    assert_same_end(folder, only_folder(Path("whole")))


def test_weights_after_two_interruptions(corpus: Path) -> None:
    assert exit_code("fit", *options(corpus, EVERY_STEP), "--run.root=whole") == 0
    crashing = ["--trainer.callbacks+=interruptions.Crash", "--trainer.callbacks.step=5", "--run.root=first"]
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
        environment = os.environ | {"PYTHONPATH": tests_path(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "audio_lrp", "fit", *arguments]
        return subprocess.run(command, check=False, capture_output=True, env=environment, timeout=300).returncode

    two = [*options(corpus, EVERY_STEP, "--data.batch_size=2"), "--trainer.strategy=ddp", "--trainer.devices=2"]
    assert fit(*two, "--run.root=whole") == 0
    assert fit(*two, "--run.root=first", "--trainer.callbacks+=interruptions.Crash", "--trainer.callbacks.step=7") == 1
    folder = only_folder(Path("first"))
    assert fit(f"--config={folder}/config.yaml", "--trainer.callbacks.step=-1", "--ckpt_path=last") == 0
    assert_same_end(folder, only_folder(Path("whole")))
