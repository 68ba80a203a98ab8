"""``audio-lrp scaling`` and ``audio-lrp faithfulness``: a study's measurements on one checkpoint and any corpus."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from command_line import exit_code, only_checkpoint, only_folder, tiny_run
from in_this_process import use_this_process
from small_study import BUDGET, TRUSTED, table, train_tiny

from audio_lrp.checkpoints import load_network
from audio_lrp.data import AudioMNISTDataModule
from audio_lrp.study import checkpoint as checkpoint_study
from audio_lrp.study import training

PLUGINS = [f"--plugin={name}" for name in TRUSTED]
SETTINGS = (("alexnet", "gender"), ("alexnet", "digit"), ("audionet", "digit"))


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def budget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("budget") / "smallest.yaml"
    path.write_text(yaml.safe_dump(BUDGET | {"synthetic_voices": 0}))
    return path


@pytest.fixture(scope="module")
def study(corpus: Path, budget: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of fold 1, whose two test speakers are a man and a woman."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    with pytest.MonkeyPatch.context() as patch:
        use_this_process(patch)
        patch.setattr(training, "run_lightning", train_tiny)
        for network, task in SETTINGS:
            chosen = [f"--networks={network}", f"--tasks={task}", "--folds=1", f"--output={folder}"]
            assert exit_code("study", f"--corpus={corpus}", f"--budget={budget}", *chosen) == 0
    return folder


def best(study: Path, network: str, task: str) -> str:
    return f"--checkpoint={study / 'cells' / f'{network}-{task}-fold1' / 'checkpoints' / 'best.ckpt'}"


def without_fold(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A study's rows as those of a single network: by its class's name, and of no fold."""
    return [row | {"network": "tinypicture" if row["network"] == "alexnet" else "tinynetwork"} for row in rows]


def speakers_removed(corpus: Path, folder: str, keep: tuple[str, ...]) -> Path:
    copy = Path(shutil.copytree(corpus, folder))
    for path in (copy / "data").glob("[0-9][0-9]"):
        if path.name not in keep:
            shutil.rmtree(path)
    return copy


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error that tells why a command failed; nothing may be left behind."""
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audio-lrp: error: ")]
    assert len(errors) == 1
    assert not [path for path in Path().iterdir() if path.name.startswith(("scaling-", "faithfulness-", "out"))]
    return errors[0]


@pytest.mark.slow
class TestAgreesWithTheStudy:
    def test_scaling(self, study: Path) -> None:
        """Of the run's own test speakers where no corpus is named."""
        assert exit_code("scaling", best(study, "alexnet", "gender"), *PLUGINS) == 0
        expected = without_fold(table(study, "frequency_scaling", task="gender"))
        assert len(expected) == 6 * 3
        assert [row | {"fold": 1} for row in table("scaling-tones", "frequency_scaling")] == expected

    @pytest.mark.parametrize(("network", "task"), SETTINGS[1:])
    def test_faithfulness(
        self, study: Path, budget: Path, network: str, task: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_study, "find_budget", lambda _: budget)
        assert exit_code("faithfulness", best(study, network, task), "--clips=6", *PLUGINS) == 0
        for name in ("perturbation", "scores", "bands", "randomization"):
            rows = table("faithfulness-tones", name)
            expected = without_fold(table(study, name, network=network, task=task))
            assert [list(row) for row in rows] == [[key for key in row if key != "fold"] for row in expected]
            for row, other in zip(rows, expected, strict=True):
                assert row == {key: pytest.approx(value, abs=1e-6) for key, value in other.items() if key != "fold"}

    def test_faithfulness_in_parts_is_that_of_the_whole(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        options = [best(study, "audionet", "digit"), "--clips=15", *PLUGINS]
        assert exit_code("faithfulness", *options, "--output=whole") == 0
        monkeypatch.setattr(checkpoint_study, "_BATCH", 4)
        assert exit_code("faithfulness", *options, "--output=parts") == 0
        for name in ("perturbation", "scores", "bands", "comparison"):
            for row, other in zip(table("whole", name), table("parts", name), strict=True):
                if row.get("score") != "max_sensitivity":  # of the first part alone
                    assert row == {key: pytest.approx(value, abs=1e-5) for key, value in other.items()}


@torch.no_grad()
def scaled_slowly(checkpoint: Path, root: Path, task: str) -> dict[str, dict[str, list[bool]]]:
    """Whether each voice is understood, recording by recording and frame by frame, with NumPy's interpolation."""
    saved = load_network(checkpoint, ["small_study"])
    data = AudioMNISTDataModule(
        str(root), task=task, representation="spectrogram", placement=saved.placement, split="all", batch_size=1
    )
    data.prepare_data()
    data.setup("test")
    found: dict[str, dict[str, list[bool]]] = {}
    for batch in map(data.represent, data.test_dataloader()):
        gender = data.recording(int(batch.index)).gender
        if gender is None:
            continue
        factor = {"male": 1.5, "female": 0.66}[gender]
        picture = batch.input[0, 0].double().numpy()
        middle = (float(batch.offset) + float(batch.length) / 2) / 35 - 2
        there = along_frequency(picture, factor)
        pictures = {
            "none": picture,
            "pitch of the other gender": there,
            "away from the other gender": along_frequency(picture, 0.66 if gender == "male" else 1.5),
            "there and back": along_frequency(there, 1 / factor),
            "time stretched": along_frequency(picture.T, 1.5, middle, 113.0).T,
            "time compressed": along_frequency(picture.T, 0.66, middle, 113.0).T,
        }
        for name, changed in pictures.items():
            answer = int(saved.network(torch.from_numpy(changed).float()[None, None]).argmax())
            for group in ("all", gender):
                found.setdefault(name, {}).setdefault(group, []).append(answer == int(batch.label))
    return found


def along_frequency(picture: np.ndarray, factor: float, origin: float = 0.0, destination: float = 0.0) -> np.ndarray:
    rows = np.arange(len(picture))
    places = (rows - destination) / factor + origin
    return np.stack([np.interp(places, rows, column, left=0.0, right=0.0) for column in picture.T], axis=1)


class TestScaling:
    @pytest.mark.parametrize("task", ["gender", "digit"])
    def test_every_recording_of_another_corpus_as_a_slow_reference(
        self, study: Path, corpus: Path, task: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """At 16 kHz, some longer than a second, one speaker's gender unknown."""
        other = Path("other")
        for path in sorted((corpus / "data").glob("*/*.wav")):
            samples, _ = soundfile.read(path)
            copy = other / path.relative_to(corpus)
            copy.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(copy, np.tile(samples[::-1], 4 if path.name.startswith("7") else 2), 16000)
        metadata = json.loads((corpus / "data" / "audioMNIST_meta.txt").read_text())
        del metadata["05"]
        (other / "data" / "audioMNIST_meta.txt").write_text(json.dumps(metadata))
        option = best(study, "alexnet", task)
        assert exit_code("scaling", option, "--corpus=other", *PLUGINS) == 0
        printed = capsys.readouterr()
        expected = scaled_slowly(Path(option.partition("=")[2]), other, task)
        rows = table("scaling-other", "frequency_scaling")
        assert len(rows) == 18
        for row in rows:
            correct = expected[row["manipulation"]][row["speakers"]]
            assert row["clips"] == len(correct) == {"all": 50, "male": 20, "female": 30}[row["speakers"]]
            assert row["accuracy"] == pytest.approx(np.mean(correct), abs=1e-12)
            assert row["low"] <= row["accuracy"] <= row["high"]
        if task == "digit":
            assert "10 of 60 recordings are left out: the gender of their speakers is not known" in printed.err
        assert "recordings of " in printed.err
        assert f"{100 * np.mean(expected['none']['all']):.1f}" in printed.out
        with Path("scaling-other/tables/frequency_scaling.csv").open(newline="") as file:
            assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [row["accuracy"] for row in rows]
        assert Path("scaling-other/figures/frequency_scaling.png").read_bytes().startswith(b"\x89PNG")
        about = json.loads(Path("scaling-other/about.json").read_text())
        assert (about["recordings"], about["speakers"]) == ((50, 5) if task == "gender" else (60, 6))
        assert about["part"] == "all"

    def test_a_single_speaker_gives_no_intervals(self, study: Path, corpus: Path) -> None:
        speakers_removed(corpus, "alone", ("03",))
        assert exit_code("scaling", best(study, "alexnet", "gender"), "--corpus=alone", *PLUGINS) == 0
        rows = table("scaling-alone", "frequency_scaling")
        assert [row["speakers"] for row in rows] == ["all", "male"] * 6
        assert {(row["clips"], row["low"], row["high"]) for row in rows} == {(10, None, None)}

    def test_known_voices_are_told_of(self, study: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(corpus, "copy")
        assert exit_code("scaling", best(study, "alexnet", "gender"), "--corpus=copy", *PLUGINS) == 0
        assert "the network was trained on 2 of these speakers" in capsys.readouterr().err
        assert exit_code("scaling", best(study, "alexnet", "gender"), *PLUGINS, "--output=own") == 0
        assert "trained on" not in capsys.readouterr().err

    def test_waveforms_have_no_frequency_axis(self, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("scaling", best(study, "audionet", "digit"), *PLUGINS) == 1
        assert "is of a network that takes waveforms" in complaint(capsys)

    @pytest.mark.parametrize(
        ("task", "message"), [("gender", "has no labels for the task 'gender'"), ("digit", "does not say the gender")]
    )
    def test_no_metadata(
        self, study: Path, corpus: Path, task: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(corpus, "silent")
        Path("silent/data/audioMNIST_meta.txt").unlink()
        assert exit_code("scaling", best(study, "alexnet", task), "--corpus=silent", *PLUGINS) == 1
        sentence = complaint(capsys)
        assert message in sentence
        assert "--data.task" not in sentence  # no option of this command


@pytest.mark.parametrize("command", ["scaling", "faithfulness"])
class TestMistakes:
    def test_no_checkpoint(self, command: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code(command, "--checkpoint=absent.ckpt", f"--corpus={corpus}") == 1
        assert "there is no checkpoint absent.ckpt" in complaint(capsys)
        assert exit_code(command, f"--corpus={corpus}") == 2
        assert "--checkpoint" in complaint(capsys)

    def test_a_checkpoint_of_another_project(
        self, command: str, corpus: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.save({"state_dict": {"w": torch.zeros(2)}, "pytorch-lightning_version": "2.6.4"}, "theirs.ckpt")
        assert exit_code(command, "--checkpoint=theirs.ckpt", f"--corpus={corpus}") == 1
        assert "does not say what network it holds" in complaint(capsys)

    def test_a_network_that_is_not_trusted(
        self, command: str, study: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert exit_code(command, best(study, "alexnet", "digit"), f"--corpus={corpus}") == 1
        assert "--plugin small_study" in complaint(capsys)

    def test_no_corpus(self, command: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("empty").mkdir()
        Path("hollow/data").mkdir(parents=True)
        for name, code, message in (
            ("absent", 2, "there is no folder"),
            ("empty", 2, "has neither AudioMNIST's layout"),
            ("hollow", 1, "no recordings"),
        ):
            assert exit_code(command, best(study, "alexnet", "digit"), f"--corpus={name}", *PLUGINS) == code
            assert message in complaint(capsys)

    def test_classes_that_no_corpus_tells(
        self, command: str, study: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = torch.load(best(study, "alexnet", "gender").partition("=")[2], weights_only=True)
        content["audio_lrp"]["class_names"] = ["cat", "dog"]
        torch.save(content, "animals.ckpt")
        assert exit_code(command, "--checkpoint=animals.ckpt", f"--corpus={corpus}", *PLUGINS) == 1
        assert "knows the classes cat, dog" in complaint(capsys)

    def test_its_own_recordings_are_gone(self, command: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = Path(best(study, "alexnet", "gender").partition("=")[2])
        content = torch.load(path, weights_only=True)
        settings = yaml.safe_load(content["audio_lrp"]["config"])
        settings["data"]["init_args"]["corpus"]["init_args"]["root"] = "gone"
        torch.save(content | {"audio_lrp": content["audio_lrp"] | {"config": yaml.safe_dump(settings)}}, "gone.ckpt")
        assert exit_code(command, "--checkpoint=gone.ckpt", *PLUGINS) == 1
        assert "gone" in complaint(capsys)
        del content["audio_lrp"]["config"]
        torch.save(content, "bare.ckpt")
        assert exit_code(command, "--checkpoint=bare.ckpt", *PLUGINS) == 1
        assert "name some by --corpus" in complaint(capsys)

    def test_a_folder_in_the_way(self, command: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("taken").mkdir()
        Path("taken/thesis.txt").touch()
        for name in ("taken", "taken/thesis.txt"):
            assert exit_code(command, best(study, "alexnet", "gender"), f"--output={name}", *PLUGINS) == 1
            assert "is not an empty folder: choose another place with --output" in complaint(capsys)
        assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]

    def test_exclusions_need_a_corpus(self, command: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code(command, best(study, "alexnet", "gender"), "--exclude=audiomnist", *PLUGINS) == 2
        assert "--exclude is for a --corpus" in complaint(capsys)


class TestFaithfulness:
    def test_another_corpus(self, study: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mine.yaml").write_text("03/4_03_0.wav: a cough\n")
        speakers_removed(corpus, "two", ("03", "04"))
        options = [best(study, "audionet", "digit"), "--corpus=two", "--exclude=mine.yaml", "--composite=epsilon"]
        assert exit_code("faithfulness", *options, "--clips=1000", *PLUGINS) == 0
        printed = capsys.readouterr()
        assert "19 recordings of 2 speakers (all)" in printed.err
        about = json.loads(Path("faithfulness-two/about.json").read_text())
        assert (about["recordings"], about["explained"], about["composite"]) == (19, 19, "epsilon")
        scores = {row["score"]: row for row in table("faithfulness-two", "scores")}
        assert f"srg {scores['srg']['mean']:>28.3f}".split() == next(
            line.split()[:2] for line in printed.out.splitlines() if line.startswith("srg ")
        )
        names = {path.stem for path in Path("faithfulness-two/figures").glob("*.png")}
        assert names == {"removal", "scores", "randomization", "bands-tinynetwork-digit"}

    def test_mistakes_of_its_own(self, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = [best(study, "audionet", "digit"), *PLUGINS]
        assert exit_code("faithfulness", *options, "--clips=0") == 2
        assert "--clips is 0" in complaint(capsys)
        assert exit_code("faithfulness", *options, "--composite=epsilonn") != 0
        assert "epsilon" in complaint(capsys)


def test_a_corpus_of_a_plugin_is_that_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A corpus that is no folder in a known layout is measured where the run's configuration names it."""
    assert exit_code("fit", *tiny_run(Path("tones")), "--data.preload_to_device=true") == 0
    option = f"--checkpoint={only_checkpoint(only_folder(Path('runs')))}"
    assert exit_code("faithfulness", option, "--clips=3") == 1
    assert "--plugin" in complaint(capsys)
    assert exit_code("faithfulness", option, "--clips=3", *PLUGINS) == 0
    assert "20 recordings of 2 speakers (test split of fold 0)" in capsys.readouterr().err
