"""The plan of a study: its cells, its budget, what is left out of the corpus, and mistakes in the options."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import exit_code
from fake_corpus import ToneCorpus
from small_study import BUDGET, predictions, train_tiny

from audio_lrp.constants import BUDGETS
from audio_lrp.study import cells, plan, training
from audio_lrp.study.budget import SyntheticSize, find_budget, load_budget
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.recipe import read_recipe
from audio_lrp.study.training import fit_settings


def fails(*_: Any) -> None:
    raise RuntimeError


def describe(options: list[str], folder: Path) -> dict[str, Any]:
    values = dict(option.removeprefix("--").split("=") for option in options)
    budget = load_budget(Path(values["budget"]))
    return Study(folder, find_corpus(values["corpus"], budget.synthetic), budget).description()


class TestExclusions:
    @pytest.fixture
    def exclusions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A list of a recording that fold 0 of three tests on and of one that it trains on, named from its folder."""
        monkeypatch.chdir(tmp_path)
        Path("mine.yaml").write_text("01/4_01_0.wav: a cough\n05/7_05_0.wav: a copy\n")
        return "mine.yaml"

    def test_what_is_excluded_is_neither_trained_on_nor_tested(
        self, corpus: Path, options: list[str], exclusions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "run_lightning", train_tiny)
        chosen = ["--networks=audionet", "--tasks=digit", "--folds=0", "--output=study"]
        assert exit_code("study", *options, *chosen, f"--exclude={exclusions}") == 0
        cell = Path("study/cells/audionet-digit-fold0")
        settings = yaml.safe_load((cell / "fit.yaml").read_text())["data"]["init_args"]["corpus"]
        assert settings["init_args"] == {"root": str(corpus), "exclude": str(tmp_path / exclusions)}
        tested = {clip["file"] for clip in predictions(Path("study"), cell.name)}
        assert len(tested) == 19  # of the twenty clips of two speakers
        assert "data/01/4_01_0.wav" not in tested

    def test_a_study_remembers_what_its_list_says(
        self, options: list[str], exclusions: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.setattr(cells, "train", fails)
        command = ["study", *options, "--tasks=digit", "--folds=0", "--output=study"]
        exit_code(*command, f"--exclude={exclusions}")
        remembered = json.loads(Path("study/study.json").read_text())["corpus"]
        assert remembered["excluded"] == ["01/4_01_0.wav", "05/7_05_0.wav"]
        assert remembered["recordings"] == 58
        Path(exclusions).rename("elsewhere.yaml")
        capsys.readouterr()
        exit_code(*command, "--exclude=elsewhere.yaml")
        assert "2 of 2 cells failed" in capsys.readouterr().err
        for other in ([], ["--exclude=audiomnist"]):
            assert exit_code(*command, *other) == 1
            assert "a study with another corpus" in capsys.readouterr().err

    def test_without_a_list_a_study_is_described_as_by_earlier_versions(self, options: list[str]) -> None:
        described = describe(options, Path("/study"))["corpus"]
        assert set(described) == {"name", "recordings", "speakers", "names_sha256"}

    def test_shipped_lists_keep_their_names(self, corpus: Path) -> None:
        found = find_corpus(str(corpus), SyntheticSize(2, 1), "audiomnist")
        assert found.settings()["init_args"] == {"root": str(corpus), "exclude": "audiomnist"}
        assert "36/3_36_20.wav" in found.excluded


class TestSettings:
    @pytest.mark.parametrize("name", BUDGETS)
    def test_budgets_are_whole(self, name: str) -> None:
        budget = load_budget(find_budget(name))
        assert set(budget.steps) == {"alexnet_digit", "alexnet_gender", "audionet_digit", "audionet_gender"}
        assert {0.01, 0.05, 0.1} <= set(budget.fractions)

    @pytest.mark.parametrize("network", ["alexnet", "audionet"])
    @pytest.mark.parametrize("task", ["digit", "gender"])
    def test_short_trains_by_the_shipped_recipe(self, corpus: Path, network: str, task: str) -> None:
        budget = load_budget(find_budget("short"))
        made = Study(Path("/study"), find_corpus(str(corpus), budget.synthetic), budget)
        settings = fit_settings(made, Cell(network, task, 2))
        recipe = read_recipe(f"{network}_{task}")
        assert settings["model"] == recipe["model"]
        assert settings["data"]["init_args"]["augmentations"] == recipe["data"]["init_args"]["augmentations"]
        for name in ("max_steps", "val_check_interval", "precision"):
            assert settings["trainer"][name] == recipe["trainer"][name]
        assert settings["data"]["init_args"]["batch_size"] == recipe["data"]["init_args"]["batch_size"]
        assert settings["data"]["init_args"]["fold"] == 2
        names = [item["class_path"] for item in recipe["trainer"]["callbacks"]]
        kept = [item["class_path"] for item in settings["trainer"]["callbacks"]]
        assert kept == [name for name in names if name not in ("LRPCallback", "ConfusionMatrixCallback")]
        assert len(kept) < len(names)
        (further,) = settings["data"]["init_args"]["training_corpora"]
        assert further["init_args"]["speakers"] == budget.synthetic_voices > 100

    def test_synthetic_corpus_goes_without_further_voices(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path))
        budget = replace(load_budget(find_budget("short")), synthetic=SyntheticSize(2, 1))
        made = Study(Path("/study"), find_corpus("synthetic", budget.synthetic), budget)
        assert fit_settings(made, Cell("audionet", "digit", 0))["data"]["init_args"]["training_corpora"] == []

    def test_a_budget_of_ones_own_is_checked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "mine.yaml"
        for changes, message in (
            ({"validate_every": 3}, "multiple of validate_every"),
            ({"validate_every": 0}, "0 for validate_every"),
            ({"explained_clips": 0}, "0 for explained_clips"),
            ({"fractions": [0, 0.5, 1]}, "lacks the fraction 0.01"),
            ({"steps": "many"}, "steps"),
            ({"steps": {"audionet_age": 4}}, "has steps for 'audionet_age': choose from alexnet_digit, alexnet_gender"),
            ({"speed": 1}, "speed"),
            ({"synthetic_voices": 1000}, "1000 synthetic_voices: give 0, or 2 to 224"),
        ):
            path.write_text(yaml.safe_dump(BUDGET | changes))
            assert exit_code("study", "--corpus=synthetic", f"--budget={path}") == 2
            assert message in capsys.readouterr().err


class TestMistakes:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (["--corpus=nowhere"], "there is no folder"),
            (["--budget=huge"], "no budget 'huge'"),
            (["--folds", "3"], "no fold 3: digit has 0 to 2"),
            (["--networks=lenet"], "no 'lenet'; choose from alexnet, audionet"),
            (["--workers=0"], "1 or more"),
            (["--tasks=age"], "age"),
            (["--corpus=synthetic", "--exclude=audiomnist"], "--exclude: nothing can be left out of 'synthetic'"),
        ],
    )
    def test_options(
        self,
        options: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        wrong: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert exit_code("study", *options, *wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not list(tmp_path.iterdir())

    def test_a_folder_of_another_layout(self, options: list[str], tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "music").mkdir()
        assert exit_code("study", *options, f"--corpus={tmp_path}") == 2
        assert "has neither AudioMNIST's layout" in capsys.readouterr().err

    def test_a_missing_list_of_exclusions(self, options: list[str], capsys: Any) -> None:
        assert exit_code("study", *options, "--exclude=audiomist") == 1
        assert "did you mean audiomnist?" in capsys.readouterr().err

    def test_folders_that_hold_something_else(self, options: list[str], tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "thesis.txt").touch()
        assert exit_code("study", *options, f"--output={tmp_path}") == 1
        assert "holds something else than a study" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_what_another_command_is_writing_is_no_obstacle(
        self, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cells, "train", fails)
        (tmp_path / ".study.json.0123abcd.part").touch()
        exit_code("study", *options, "--tasks=digit", "--folds=0", f"--output={tmp_path}")
        assert (tmp_path / "study.json").exists()

    def test_another_study_and_a_damaged_one(
        self, study: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        assert exit_code("study", options[0], "--budget=tiny", f"--output={study}") == 1
        assert "a study with another budget" in capsys.readouterr().err
        recipe = read_recipe("audionet_digit")
        recipe["data"]["init_args"]["placement"] = "random"  # as another version of the package might
        with monkeypatch.context() as patch:
            patch.setattr(plan, "read_recipe", lambda name: recipe)
            assert exit_code("study", *options, f"--output={study}") == 1
        assert "a study with other recipes" in capsys.readouterr().err
        (tmp_path / "study.json").write_text('{"format": 1, "corp')
        assert exit_code("study", *options, f"--output={tmp_path}") == 1
        assert "study.json is damaged" in capsys.readouterr().err

    def test_a_task_without_labels_is_left_out(
        self, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ToneCorpus(tmp_path / "recordings", speakers=3, repetitions=1).prepare()  # FSDD's layout, which has no genders
        monkeypatch.setattr(cells, "train", fails)
        arguments = [f"--corpus={tmp_path}", options[1], "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *arguments) == 1
        assert "FSDD has no labels for the task gender, which is left out" in capsys.readouterr().err
        assert {path.name for path in (tmp_path / "study" / "cells").iterdir()} == {
            "alexnet-digit-fold0", "audionet-digit-fold0",
        }  # fmt: skip
        assert exit_code("study", *arguments, "--tasks=gender") == 1
        assert "nothing is left to do" in capsys.readouterr().err
