"""Disks that are full, at every writer: one sentence, nothing half-written, and going on once there is space."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import explainable as explaining
import interruptions as resuming
import lightning as L
import numpy as np
import pytest
import soundfile
import torch
import yaml
from archives import SMALL, contents, zipped
from command_line import exit_code, only_folder, tests_path, tiny_run, wandb_records
from fake_corpus import ToneCorpus
from http_server import Served, serving
from matplotlib.image import imread
from small_study import BUDGET, tones_as_audiomnist
from small_sweep import Score, trials, write_sweep

from audio_lrp.callbacks.publishing import write_image, write_rows
from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.data.corpora.audiomnist_download import download_audiomnist, install
from audio_lrp.data.corpora.synthetic import SyntheticDigits
from audio_lrp.data.inspection.check import check
from audio_lrp.data.packing.cache import PackedClips
from audio_lrp.errors import UserError
from audio_lrp.explain.recordings import explain
from audio_lrp.report.document import report
from audio_lrp.study import cells
from audio_lrp.study.rows import write_table
from audio_lrp.timefrequency.audible import write_wav
from audio_lrp.tracking import WholeCheckpointIO

PAGE = 4096


class SmallDisk:
    """A file system of a few megabytes of its own, which can be filled.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / ".filler"

    @property
    def used(self) -> int:
        return shutil.disk_usage(self.folder).used

    def leave(self, free: int) -> None:
        """Fill it but for some bytes."""
        with self._filler.open("ab") as file:
            file.write(bytes(max(0, shutil.disk_usage(self.folder).free - free // PAGE * PAGE)))

    def free(self) -> None:
        """Take back what filled it."""
        self._filler.unlink(missing_ok=True)

    def empty(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def left(self) -> list[str]:
        """Files on it, hidden ones included."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path not in (self._filler,)]
        return sorted(path.relative_to(self.folder).as_posix() for path in paths if path.name != ".lock")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk can be mounted only by root, on Linux")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "AUDIO_LRP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("audio_lrp.checkpoints.plugin_packages", lambda: {"explainable"})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


class FillDisk(L.Callback):
    """Something else fills the disk at the beginning of the second epoch.

    Args:
        folder: where the disk is.
        free: bytes that it leaves.
    """

    def __init__(self, folder: str, free: int = 0) -> None:
        self.folder = Path(folder)
        self.bytes = free

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            SmallDisk(self.folder).leave(self.bytes)


def fills(disk: SmallDisk, free: int = 0) -> list[str]:
    return [
        "--trainer.callbacks+=test_full_disk.FillDisk",
        f"--trainer.callbacks.folder={disk.folder}",
        f"--trainer.callbacks.free={free}",
    ]


NO_FILLING = "--trainer.callbacks.free=100_000_000"


# Writers that write whatever they write as a whole or not at all.


def cache(place: Path) -> None:
    corpus = ToneCorpus("tones", repetitions=1)
    corpus.prepare()
    PackedClips.open("Tones", corpus.root, [item.path for item in corpus.recordings], cache_dir=place)


def synthetic_corpus(place: Path) -> None:
    SyntheticDigits(place, speakers=2, repetitions=1).prepare()


def explanations(place: Path) -> None:
    torch.manual_seed(0)
    network = explaining.checkpoint(Path("a.ckpt"), explaining.WaveformNetwork(2), "waveform", 2)
    explain(network, [explaining.tone(Path("tone.wav"), 0.5)], place / "out")


def data_check(place: Path) -> None:
    check(tones_as_audiomnist(Path("tones"), speakers=2), None, place / "check")


def downloaded_archive(place: Path) -> None:
    with serving(Served(zipped(contents()))) as url:
        download_audiomnist(place / "corpus", mirror=url, release=SMALL)


def unpacked_archive(place: Path) -> None:
    Path("a.zip").write_bytes(zipped(contents()))
    (place / "corpus").mkdir(exist_ok=True)
    try:
        install(Path("a.zip"), place / "corpus", SMALL)
    except OSError as error:  # as its caller does
        raise UserError(f"{place}: {error.strerror}; free space there") from error


def study_table(place: Path) -> None:
    write_table(place / "tables" / "accuracy", [{"network": f"network {number}", "mean": 0.5} for number in range(999)])


def run_report(place: Path) -> None:
    if not Path("runs").exists():
        callback = ["--trainer.callbacks=LRPCallback", "--trainer.callbacks.num_examples=2"]
        assert exit_code("fit", *tiny_run(Path("corpus")), *callback, "--trainer.callbacks.num_pictures=1") == 0
    report(only_folder(Path("runs")), place / "report.html")


QUICK = [cache, synthetic_corpus, downloaded_archive, unpacked_archive, study_table]
SLOW = [pytest.param(writer, marks=pytest.mark.slow) for writer in (explanations, data_check, run_report)]
KEPT = {"data_check": ["check/corpus.png", "check/faults.csv"]}
"""What may be left where a writer writes more than one file: whole ones."""
RESUMED = ["corpus/.0123.zip", "corpus/.0123.zip.part", "corpus/.0123.zip.part.json"]
"""What a download leaves to resume from."""


@pytest.mark.parametrize("writer", [*QUICK, *SLOW], ids=lambda writer: writer.__name__)
def test_full_disk(disk: SmallDisk, writer: Callable[[Path], None]) -> None:
    empty = disk.used
    writer(disk.folder)
    needed, whole = disk.used - empty, disk.left()
    assert needed > 0
    disk.empty()
    for share in (0, 0.5, 0.8):
        disk.leave(int((needed - PAGE) * share))
        with pytest.raises(UserError) as caught:
            writer(disk.folder)
        message = str(caught.value)
        assert str(disk.folder) in message
        assert "No space left on device" in message or "MB are free" in message or "are missing" in message
        assert "free space there" in message
        kept = {*KEPT.get(writer.__name__, ()), *(RESUMED if writer is downloaded_archive else ())}
        assert set(disk.left()) <= kept | {name for name in whole if writer is study_table}
        disk.free()
        disk.empty()
    writer(disk.folder)
    assert disk.left() == whole


# Trainings.


def test_the_checkpoint_before_is_kept_and_gone_on_from(disk: SmallDisk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("augmented.yaml").write_text(resuming.AUGMENTATIONS)
    corpus = Path("corpus").absolute()
    assert exit_code("fit", *resuming.options(corpus), "--run.root=whole") == 0
    # Room for a part of the next checkpoint, beside the one that must stay.
    options = [*resuming.options(corpus), f"--run.root={disk.folder}", *fills(disk, 2 * PAGE)]
    assert exit_code("fit", *options) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    folder = only_folder(disk.folder)
    last = folder / "checkpoints" / "last.ckpt"
    assert message.startswith(f"audio-lrp: error: {last}: the disk is full (No space left on device); free space there")
    assert "resume from them with --ckpt_path" in message
    assert read_checkpoint(last)["global_step"] == resuming.BATCHES
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    disk.free()
    assert exit_code("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", NO_FILLING) == 0
    resuming.assert_same_end(folder, only_folder(Path("whole")))


def test_pictures_and_sounds_cost_a_warning(disk: SmallDisk) -> None:
    callbacks = ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=2"]
    options = [*tiny_run(Path("corpus")), f"--run.root={disk.folder}", "--trainer.enable_checkpointing=false"]
    options += ["--trainer.max_epochs=3", *fills(disk, 200_000), *callbacks, "--trainer.callbacks.num_pictures=1"]
    with pytest.warns(UserWarning, match=r"LRPCallback shows nothing at step 2 .*No space left on device"):
        assert exit_code("fit", *options) == 0
    folder = only_folder(disk.folder)
    readers: dict[str, Callable[[Path], Any]] = {
        ".png": imread,
        ".wav": soundfile.read,
        ".csv": lambda path: list(csv.DictReader(path.open(), strict=True)),
        ".npz": np.load,
        ".yaml": lambda path: yaml.safe_load(path.read_text()),
    }
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name[:13] for path in written} >= {"step-00000001"}
    for path in written:
        assert len(readers[path.suffix](path)), path


@pytest.mark.slow
def test_confusion_matrix_costs_a_warning(disk: SmallDisk, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*tiny_run(Path("corpus")), "--trainer.callbacks=ConfusionMatrixCallback"]
    assert exit_code("fit", *options) == 0
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    test = ["test", *options, f"--ckpt_path={checkpoint}", f"--run.root={disk.folder}"]
    disk.leave(2 * PAGE)
    with pytest.warns(UserWarning, match=r"ConfusionMatrixCallback shows nothing .*the disk is full"):
        assert exit_code(*test) == 0
    assert exit_code(*test, "--trainer.callbacks.on_error=raise") == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "test/confusion_matrix.png: the disk is full (No space left on device); free space there" in message


def test_wandb_tells_at_the_end(disk: SmallDisk, capfd: pytest.CaptureFixture[str]) -> None:
    options = [*tiny_run(Path("corpus")), f"--run.root={disk.folder}", "--trainer.enable_checkpointing=false"]
    options += [
        "--trainer.logger=WandbLogger",
        "--trainer.logger.project=tests",
        "--trainer.max_epochs=3",
        *fills(disk),
    ]
    assert exit_code("fit", *options) == 0
    printed = capfd.readouterr().err
    (warning,) = [line for line in printed.splitlines() if line.startswith("audio-lrp: warning")]
    (folder,) = only_folder(disk.folder).glob("wandb/offline-run-*")
    assert f"W&B has not written all of its run to {folder}, because the disk is full (free space" in warning
    assert "audio-lrp sync uploads the rest" in warning
    assert "Logging error" not in printed
    assert not any("exit" in record for record in wandb_records(only_folder(disk.folder)))


@pytest.mark.slow
def test_a_loggers_file_names_the_run(disk: SmallDisk, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*tiny_run(Path("corpus")), f"--run.root={disk.folder}", "--trainer.enable_checkpointing=false"]
    options += ["--trainer.logger=CSVLogger", "--trainer.logger.flush_logs_every_n_steps=1", "--trainer.max_epochs=20"]
    assert exit_code("fit", *options, "--data.batch_size=1", *fills(disk)) == 1  # 20 lines an epoch
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(
        f"audio-lrp: error: {only_folder(disk.folder)}: the disk is full (No space left on device)"
    )


# Studies and sweeps.


def test_a_studys_cell(
    disk: SmallDisk,
    workers_in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = tones_as_audiomnist(Path("tones"))
    Path("budget.yaml").write_text(yaml.safe_dump(BUDGET))
    study = disk.folder / "study"
    command = ["study", f"--corpus={corpus}", "--budget=budget.yaml", f"--output={study}", "--networks=audionet"]
    command += ["--folds=0", "--tasks=digit"]

    def train(*_: Any) -> None:
        disk.leave(0)
        with (study / "half").open("wb") as file:
            file.write(bytes(PAGE))

    monkeypatch.setattr(cells, "train", train)
    assert exit_code(*command) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"audio-lrp: error: the disk is full in {study}") or (
        message.startswith("audio-lrp: error: ") and f"{study}/queue.log: the disk is full" in message
    )
    cell = study / "cells" / "audionet-digit-fold0"
    assert {path.name for path in cell.iterdir()} <= {"cell.log"}
    disk.free()
    begun: list[Any] = []
    monkeypatch.setattr(cells, "train", lambda *arguments: begun.append(arguments))
    exit_code(*command)
    assert len(begun) == 1  # the cell is free, and not taken for done


class FillingScore(Score):
    """Fills the disk that is the working folder once the training has begun, where a file says so."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if Path("fill").exists():
            SmallDisk(Path.cwd()).leave(0)


@pytest.mark.slow
@pytest.mark.parametrize("storage", [[], ["--storage=sqlite:///../study.db"]], ids=["on the disk", "elsewhere"])
def test_a_sweep(
    disk: SmallDisk, storage: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", tests_path())
    corpus = Path("corpus").absolute()
    ToneCorpus(corpus, repetitions=1).prepare()
    monkeypatch.chdir(disk.folder)
    sweep = write_sweep(corpus, [0.5, 0.75], early_terminate=None)
    sweep.write_text(sweep.read_text().replace("small_sweep.Score", "test_full_disk.FillingScore"))
    Path("fill").touch()
    assert exit_code("sweep", "levels.yaml", *storage) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the disk is full" in message
    assert f"{disk.folder}/runs/sweeps/levels" in message
    assert "free space there" in message
    Path("fill").unlink()
    disk.free()
    assert exit_code("sweep", "levels.yaml", *storage) == 0
    assert [row["state"] for row in trials()] == ["complete", "complete"]


def test_standard_output() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "audio_lrp", "--help"]
        result = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("audio-lrp: error: the output: the disk is full (No space left on device)")
    assert len(result.stderr.splitlines()) == 1


# Where nothing can be mounted: files that must not grow.


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size; writing more fails like on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_checkpoint(path: Path, seed: int) -> None:
    weights = torch.randn(5000, generator=torch.Generator().manual_seed(seed))
    WholeCheckpointIO().save_checkpoint({"state_dict": {"weights": weights}}, path)


def write_picture(path: Path, seed: int) -> None:
    write_image(path, np.random.default_rng(seed).integers(0, 256, (60, 60, 3), dtype=np.uint8))


def write_sound(path: Path, seed: int) -> None:
    write_wav(path, torch.rand(8000, generator=torch.Generator().manual_seed(seed)))


def write_csv(path: Path, seed: int) -> None:
    write_rows(path, [{"seed": seed, "number": number} for number in range(2000)])


@pytest.mark.parametrize("write", [write_checkpoint, write_picture, write_sound, write_csv], ids=lambda it: it.__name__)
def test_what_was_there_stays(write: Callable[[Path, int], None]) -> None:
    path = Path("files", "file.ckpt")
    path.parent.mkdir()
    write(path, 1)
    before = path.read_bytes()
    for size in (0, 100, len(before) // 2, len(before) - 1):
        with files_limited_to(size), pytest.raises((UserError, OSError), match=r"File too large"):
            write(path, 2)
        assert path.read_bytes() == before
        assert [entry.name for entry in path.parent.iterdir()] == ["file.ckpt"]
    write(path, 2)
    assert path.read_bytes() != before


def test_a_killed_writers_leftovers_go_with_the_next_checkpoint() -> None:
    path = Path("checkpoints", "last.ckpt")
    path.parent.mkdir()
    (path.parent / ".epoch=3.ckpt.0123abcd.part").write_bytes(b"half")
    write_checkpoint(path, 1)
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]
    assert json.dumps(list(read_checkpoint(path))) == '["state_dict"]'
