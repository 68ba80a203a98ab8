"""What a run says of the recordings it has seen: how many of how many speakers, and whether they are new voices."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from command_line import exit_code, only_checkpoint, only_folder, report, tests_path, tiny_run, wandb_records
from fake_corpus import ToneCorpus

from audio_lrp.data import Recording
from audio_lrp.data.folds import Gender


class HalfLabelled(ToneCorpus):
    """The gender of the last speaker is not known."""

    def scan(self) -> list[Recording]:
        return [
            Recording(item.path, item.digit, item.speaker, self.gender_of(item), item.repetition)
            for item in super().scan()
        ]

    def gender_of(self, item: Recording) -> Gender | None:
        return None if item.speaker == f"s{self.speakers - 1}" else item.gender


class OtherVoices(ToneCorpus):
    """Everybody's voice differs from those of `ToneCorpus`."""

    def tone(self, recording: Recording):  # type: ignore[no-untyped-def]
        return 0.5 * super().tone(recording)[::-1] ** 3


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network trained on two of six speakers; the tests generate the corpus anew, each in its own folder."""
    folder = tmp_path_factory.mktemp("trained")
    assert exit_code("fit", *tiny_run(folder / "tones"), f"--run.root={folder / 'runs'}") == 0
    return only_checkpoint(only_folder(folder / "runs"))


def of(checkpoint: Path, *options: str) -> list[str]:
    return [*tiny_run(Path("tones")), f"--ckpt_path={checkpoint}", *options]


def other(folder: str, kind: str = "OtherVoices", **settings: object) -> list[str]:
    """Options of another corpus; its generated tones take the place of those of the checkpoint's configuration."""
    options = [f"--data.corpus.{name}={value}" for name, value in settings.items()]
    return [f"--data.corpus=test_seen.{kind}", f"--data.corpus.root={folder}", *options]


class TestLine:
    def test_fit(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("fit", *tiny_run(tmp_path / "tones"), "--run.test_after_fit=true") == 0
        lines = report(capsys)
        assert lines["trained on"] == "20 recordings of 2 speakers (training split of fold 0 of 3)"
        assert lines["validated"] == "20 recordings of 2 speakers (validation split of fold 0 of 3)"
        assert lines["tested"] == "20 recordings of 2 speakers (test split of fold 0 of 3)"

    def test_limited_training(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--data.batch_size=4", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0.2"]
        assert exit_code("fit", *tiny_run(tmp_path / "tones"), *options) == 0
        lines = report(capsys)
        expected = "8 of 20 recordings, of 2 speakers (training split of fold 0 of 3; limited by"
        assert lines["trained on"].startswith(expected)
        expected = "4 of 20 recordings, of 2 speakers (validation split of fold 0 of 3; limited by"
        assert lines["validated"] == f"{expected} trainer.limit_val_batches; 2 of 10 classes)"

    def test_the_checkpoints_own_test_split(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("test", *of(checkpoint)) == 0
        printed = capsys.readouterr()
        assert "tested:        20 recordings of 2 speakers (test split of fold 0 of 3)\n" in printed.out
        assert "trained on" not in printed.err

    @pytest.mark.parametrize(
        ("command", "verb"), [("validate", "validated"), ("test", "tested"), ("predict", "predicted")]
    )
    def test_all_of_another_corpus(
        self, command: str, verb: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert exit_code(command, *of(checkpoint, *other("others", speakers=5)), "--data.split=all") == 0
        assert report(capsys)[verb] == "50 recordings of 5 speakers (all)"

    def test_one_fold_of_another_corpus_points_to_all(
        self, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert exit_code("test", *of(checkpoint, *other("others"))) == 0
        expected = "20 recordings of 2 speakers (test split of fold 0 of 3; --data.split all: all 60 of 6 speakers)"
        assert report(capsys)["tested"] == expected

    def test_a_single_speaker(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        one = of(checkpoint, *other("one", speakers=1))
        assert exit_code("test", *one) == 1  # too few for folds
        assert exit_code("test", *one, "--data.split=all") == 0
        assert report(capsys)["tested"] == "10 recordings of 1 speaker (all)"

    def test_limits_count(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--data.split=all", "--data.batch_size=5", "--trainer.limit_test_batches=3"]
        assert exit_code("test", *of(checkpoint, *other("others")), *options) == 0
        expected = "15 of 60 recordings, of 6 speakers (all; limited by trainer.limit_test_batches; 3 of 10 classes)"
        assert report(capsys)["tested"] == expected
        assert exit_code("test", *of(checkpoint, *other("others")), *options, "--trainer.limit_test_batches=0") == 0
        assert report(capsys)["tested"].startswith("0 of 60 recordings, of 0 speakers (all; limited")

    def test_exclusions_count(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for item in ToneCorpus(tmp_path / "in", speakers=2, repetitions=1).scan():
            path = Path(f"corpus/data/0{item.speaker[1:]}/{item.digit}_0{item.speaker[1:]}_0.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, ToneCorpus("x").tone(item), 8000)
        Path("list.yaml").write_text("00/3_00_0.wav: noise\n01/4_01_0.wav: noise\n")
        options = ["--data=AudioMNISTDataModule", "--data.root=corpus", "--data.exclude=list.yaml", "--data.split=all"]
        kept = [word for word in tiny_run(tmp_path / "tones") if not word.startswith("--data")]
        assert exit_code("test", *kept, *options, "--data.cache_dir=beside") == 0
        assert report(capsys)["tested"] == "18 recordings of 2 speakers (all; 2 excluded by data.exclude)"


def test_the_summary_of_the_wandb_run(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests", "--data.split=all"]
    for command, verb in (("test", "tested"), ("predict", "predicted")):
        assert exit_code(command, *of(checkpoint, *other("others", speakers=5)), *wandb, f"--run.root={command}") == 0
        printed = report(capsys)
        logged: dict[str, Any] = {}
        for record in wandb_records(only_folder(Path(command))):
            logged |= record.get("history", {}).get("item", {})
        assert logged[verb] == printed[verb] == "50 recordings of 5 speakers (all)"
    assert f"{100 * logged['predict/accuracy']:.1f} %" == printed["accuracy"]


class TestVoices:
    def test_the_training_corpus_itself(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("test", *of(checkpoint), "--data.split=all") == 0
        printed = capsys.readouterr()
        assert "60 recordings of 6 speakers (all; trained on 2 of these speakers, 20 recordings)" in printed.out
        assert (
            "warning: 20 of the 60 recordings tested are of speakers that the network was trained on: accuracy on them "
            "says nothing of new voices" in printed.err
        )

    def test_a_copy_elsewhere(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--data.corpus.root=copy", "--data.corpus.speakers=4", "--data.split=all"]
        assert exit_code("predict", *of(checkpoint), *options) == 0
        assert "trained on" in report(capsys)["predicted"]

    def test_another_fold(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("test", *of(checkpoint), "--data.fold=1") == 0
        assert "fold 1 of 3; trained on 2 of these speakers, 20 recordings" in report(capsys)["tested"]

    def test_a_training_that_begins_with_another(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Its checkpoints remember the voices of both."""
        again = [*tiny_run(Path("tones")), "--trainer.max_epochs=2", f"--ckpt_path={checkpoint}", *other("others")]
        assert exit_code("fit", *again, "--run.root=second") == 0
        assert "counted from step 1 on" in report(capsys)["trained on"]
        assert exit_code("test", *of(only_checkpoint(only_folder(Path("second")))), *other("tones", "OtherVoices")) == 0
        assert "trained on" not in report(capsys)["tested"]  # its own test split
        options = ["--data.corpus=fake_corpus.ToneCorpus", "--data.corpus.root=tones", "--data.split=all"]
        assert exit_code("test", *of(only_checkpoint(only_folder(Path("second")))), *options) == 0
        assert "trained on 2 of these speakers" in report(capsys)["tested"]

    def test_an_older_checkpoint(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = torch.load(checkpoint, weights_only=True)
        del content["audio_lrp"]["trained_on"]
        torch.save(content, "older.ckpt")
        assert exit_code("test", *of(Path("older.ckpt")), "--data.split=all") == 0
        assert "(all; whether it was trained on some of them is not known)" in report(capsys)["tested"]
        assert exit_code("test", *of(Path("older.ckpt"))) == 0
        assert "known" not in report(capsys)["tested"]


class TestLabels:
    def test_a_training_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("fit", *tiny_run(tmp_path / "tones"), "--data.split=all") == 1
        assert "data.split is all, which leaves no recordings to train on" in capsys.readouterr().err

    def test_recordings_without_a_label_are_left_out_and_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = [*tiny_run(tmp_path), *other("half", "HalfLabelled"), "--data.task=gender", "--data.split=all"]
        assert exit_code("test", *options) == 0
        expected = "50 recordings of 5 speakers (all; 10 left out, whose gender is not known)"
        assert report(capsys)["tested"] == expected
        assert exit_code("predict", *options) == 0
        lines = report(capsys)
        assert lines["accuracy"].endswith("% of the 50 recordings whose label is known")
        assert lines["predicted"] == "60 recordings of 6 speakers (all)"

    def test_predictions_need_no_labels(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = [*tiny_run(tmp_path / "tones"), "--data.corpus.labelled=false", "--data.task=gender"]
        assert exit_code("test", *options, "--data.split=all") == 1
        assert "has no labels for the task 'gender'" in capsys.readouterr().err
        for split, which in (
            ("all", "60 recordings of 6 speakers (all; no gender is known)"),
            ("fold", "20 recordings of 2"),
        ):
            assert exit_code("predict", *options, f"--data.split={split}", f"--run.root={split}") == 0
            lines = report(capsys)
            assert lines["predicted"].startswith(which)
            assert "accuracy" not in lines
            _, *rows = (only_folder(Path(split)) / "predictions.csv").read_text().splitlines()
            assert {row.split(",")[1] for row in rows} == {""}

    def test_accuracy_is_that_of_the_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("predict", *tiny_run(tmp_path / "tones"), "--data.split=all") == 0
        _, *rows = (only_folder(Path("runs")) / "predictions.csv").read_text().splitlines()
        correct = sum(label == prediction for _, label, prediction, *_ in (row.split(",") for row in rows))
        assert report(capsys)["accuracy"] == f"{100 * correct / len(rows):.1f} %"

    def test_a_class_that_nobody_has(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = [*tiny_run(tmp_path), *other("men", speakers=1), "--data.task=gender", "--data.split=all"]
        assert exit_code("test", *options) == 0
        assert report(capsys)["tested"] == "10 recordings of 1 speaker (all; none whose gender is female)"


@pytest.mark.slow
def test_processes_count_together(tmp_path: Path) -> None:
    ToneCorpus(tmp_path / "tones", repetitions=1).prepare()
    options = [*tiny_run(tmp_path / "tones"), "--trainer.strategy=ddp", "--trainer.devices=2", "--data.split=all"]
    for command, verb in (("test", "tested"), ("predict", "predicted")):
        arguments = [command, *options, "--data.batch_size=7"]
        result = subprocess.run(
            [sys.executable, "-m", "audio_lrp", *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": tests_path(), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            timeout=200,
        )
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(verb)]
        assert line.split(":", 1)[1].strip() == "60 recordings of 6 speakers (all)"
        assert "accuracy: " in result.stdout
