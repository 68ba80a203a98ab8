"""Studies: the cells that are run, what is in their tables, and what happens when something goes wrong."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from command_line import exit_code
from fake_corpus import ToneCorpus
from tiny_study import BUDGET, in_this_process, tones_as_audiomnist
from waiting import wait_until

from audio_lrp.checkpoints import load_network
from audio_lrp.constants import BUDGETS
from audio_lrp.study import plan, run, subject, training, work
from audio_lrp.study.budget import SyntheticSize, find_budget, load_budget
from audio_lrp.study.charts import figures, randomization_chart
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.explanations import score_rows
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.recipe import read_recipe
from audio_lrp.study.reported import REPORTED
from audio_lrp.study.tables import collect
from audio_lrp.study.training import fit_settings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_as_audiomnist(tmp_path_factory.mktemp("corpora") / "tones")


@pytest.fixture(scope="module")
def options(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    budget = tmp_path_factory.mktemp("budget") / "smallest.yaml"
    budget.write_text(yaml.safe_dump(BUDGET))
    return [f"--corpus={corpus}", f"--budget={budget}"]


class Weights(L.Callback):
    """Keeps the weights after every step."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        folder = Path(trainer.checkpoint_callback.dirpath).parent / "weights"
        folder.mkdir(exist_ok=True)
        torch.save(pl_module.network.state_dict(), folder / f"{trainer.global_step}.pt")


@pytest.fixture(autouse=True, scope="module")
def tiny_networks_are_trusted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "load_network", partial(load_network, plugins=["tiny_study", "command_line"]))
        yield


@pytest.fixture(scope="module")
def study(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one fold: AlexNet's genders and AudioNet's digits."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run_supervised", in_this_process)
        for network, task in (("alexnet", "gender"), ("audionet", "digit")):
            chosen = [f"--networks={network}", f"--tasks={task}", "--folds=1", f"--output={folder}"]
            assert exit_code("study", *options, *chosen) == 0
    return folder


def table(study: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((study / "tables" / f"{name}.json").read_text())
    return rows


def predictions(study: Path, cell: str) -> list[dict[str, str]]:
    with (study / "cells" / cell / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestTables:
    def test_accuracy_is_that_of_the_predictions(self, study: Path) -> None:
        rows = {row["network"]: row for row in table(study, "accuracy")}
        assert set(rows) == {"alexnet", "audionet"}
        for network, task in (("alexnet", "gender"), ("audionet", "digit")):
            clips = predictions(study, f"{network}-{task}-fold1")
            assert len(clips) == rows[network]["clips"] == 20  # two of six speakers
            assert rows[network]["test_accuracy"] == np.mean([clip["label"] == clip["prediction"] for clip in clips])
            assert 0 <= rows[network]["validation_accuracy"] <= 1
            assert rows[network]["composite"] == "epsilon_alpha2_beta1"

    def test_clips_lie_as_they_did_in_training(self, study: Path, options: list[str]) -> None:
        corpus, budget = (option.partition("=")[2] for option in options)
        settings = load_budget(Path(budget))
        measured = Study(study, find_corpus(corpus, settings.synthetic), settings)
        assert subject.load_subject(measured, Cell("audionet", "digit", 1)).data.placement == "centered"

    def test_predictions_name_the_test_speakers_files(self, study: Path, corpus: Path) -> None:
        clips = predictions(study, "alexnet-gender-fold1")
        assert all((corpus / clip["file"]).is_file() for clip in clips)
        assert {clip["file"].split("/")[1] for clip in clips} == {"03", "04"}  # fold 1 of three
        for clip in clips:
            probabilities = {name: float(clip[name]) for name in ("male", "female")}
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert clip["prediction"] == max(probabilities, key=probabilities.get)

    def test_confusions_add_up(self, study: Path) -> None:
        rows = [row for row in table(study, "confusion") if row["network"] == "alexnet"]
        assert sum(row["clips"] for row in rows) == 20
        right = sum(row["clips"] for row in rows if row["label"] == row["prediction"])
        accuracy = next(row for row in table(study, "accuracy") if row["network"] == "alexnet")
        assert right / 20 == accuracy["test_accuracy"]

    def test_unchanged_spectrograms_give_the_test_accuracy(self, study: Path) -> None:
        rows = [row for row in table(study, "frequency_scaling") if row["manipulation"] == "none"]
        by_speakers = {row["speakers"]: row for row in rows}
        accuracy = next(row for row in table(study, "accuracy") if row["network"] == "alexnet")
        assert by_speakers["all"]["accuracy"] == accuracy["test_accuracy"]
        assert by_speakers["male"]["clips"] == by_speakers["female"]["clips"] == 10
        assert {row["network"] for row in table(study, "frequency_scaling")} == {"alexnet"}  # spectrograms alone

    def test_orders_begin_together_and_every_fraction_is_there(self, study: Path) -> None:
        rows = [row for row in table(study, "perturbation") if row["network"] == "audionet"]
        assert {row["order"] for row in rows} == {"morf", "lerf", "random", "amplitude", "gradient_times_input"}
        assert len(rows) == 5 * len(BUDGET["fractions"])
        assert len({row["accuracy"] for row in rows if row["fraction"] == 0}) == 1

    def test_comparison_equals_slow_means(self, study: Path) -> None:
        with np.load(study / "cells" / "audionet-digit-fold1" / "perturbation.npz") as outcomes:
            orders, fractions = outcomes["orders"].tolist(), outcomes["fractions"].tolist()
            probability = outcomes["probability"]
        for row in table(study, "comparison"):
            if row["network"] != "audionet" or row["quantity"] != "probability":
                continue
            step = fractions.index(row["fraction"])
            gains = [
                probability[orders.index(row["competitor"])][clip][step] - probability[orders.index("morf")][clip][step]
                for clip in range(6)
            ]
            assert row["mean"] == pytest.approx(np.mean(gains), abs=1e-6)
            assert row["low"] <= row["mean"] <= row["high"]

    def test_bands_sum_to_shares(self, study: Path) -> None:
        rows = [row for row in table(study, "bands") if row["network"] == "alexnet"]
        assert {row["class"] for row in rows} == {"male", "female"}
        assert [row["low_hertz"] for row in rows if row["class"] == "male"] == list(range(0, 4000, 100))
        assert all(row["clips"] == 3 for row in rows)
        assert all(abs(row["share"]) <= 1 for row in rows)

    def test_scores_have_intervals(self, study: Path) -> None:
        rows = [row for row in table(study, "scores") if row["network"] == "alexnet"]
        assert {
            "aopc_morf",
            "srg",
            "comprehensiveness",
            "relevance_mass_accuracy",
            "sparseness",
            "max_sensitivity",
        } <= {row["score"] for row in rows}
        assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)

    def test_summary_stands_beside_what_is_reported(self, study: Path) -> None:
        rows = {(row["quantity"], row["network"], row["task"]): row for row in table(study, "summary")}
        accuracy = {row["network"]: row["test_accuracy"] for row in table(study, "accuracy")}
        own = rows["test accuracy", "audionet", "digit"]
        assert own["mean"] == pytest.approx(100 * accuracy["audionet"])
        assert (own["std"], own["folds"]) == (None, 1)
        assert (own["reported_mean"], own["reported_std"]) == (92.53, 2.04)
        assert rows["pitch of the other gender", "alexnet", "gender"]["reported_mean"] == 20.3
        assert {key for key in REPORTED if key[1:] == ("audionet", "digit")} <= set(rows)

    def test_csv_and_json_say_the_same(self, study: Path) -> None:
        for path in (study / "tables").glob("*.csv"):
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            assert [list(map(str, row.values())) for row in table(study, path.stem)] == [
                ["None" if text == "" else text for text in row.values()] for row in rows
            ]

    def test_a_single_test_speaker_gives_no_intervals(self, study: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(study, tmp_path / "study"))
        for path in folder.glob("cells/*/perturbation.npz"):
            with np.load(path) as found:
                content = dict(found)
            np.savez(path, **content | {"speaker": np.zeros_like(content["speaker"])})
        run.write_results(folder)
        for row in table(folder, "comparison"):
            assert row["mean"] is not None
            assert (row["low"], row["high"]) == (None, None)
        assert exit_code("report", str(folder)) == 0
        assert "<td>None</td>" not in (folder / "report.html").read_text()
        (score,) = score_rows({"srg": torch.tensor([0.0, 1.0])}, torch.tensor([7, 7]))
        assert score == {"score": "srg", "mean": 0.5, "low": None, "high": None}

    def test_figures(self, study: Path) -> None:
        names = {path.stem for path in (study / "figures").glob("*.png")}
        assert names == {
            "accuracy", "removal", "frequency_scaling", "scores", "randomization",
            "bands-alexnet-gender", "bands-audionet-digit",
        }  # fmt: skip

    def test_figures_are_drawn_without_warnings(self, study: Path) -> None:
        """Also with a second fold of which an order of removal and all correlations are missing, a layer's in both."""
        tables = collect(study)
        tables["randomization"][0]["mean"] = None
        more = [row | {"fold": 2} for row in tables["perturbation"] if row["order"] != "gradient_times_input"]
        tables["perturbation"] += more
        tables["randomization"] += [row | {"fold": 2, "mean": None} for row in tables["randomization"]]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _, figure in figures(tables):
                figure.canvas.draw()


def test_no_legend_covers_the_curves_of_randomised_networks() -> None:
    rows = [
        {"network": "alexnet", "task": "digit", "fold": 0, "layer": layer, "mean": mean, "std": 0.0}
        for layer, mean in (("last", -0.2), ("middle", 0.2), ("first", 0.0))
    ]
    figure = randomization_chart(rows)
    assert [legend.get_texts()[0].get_text() for legend in figure.legends] == ["alexnet, digit"]
    assert figure.axes[0].get_legend() is None


class TestRunning:
    def test_a_finished_cell_is_not_run_again(
        self, study: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(training, "run_supervised", None)  # not to be called
        before = (study / "cells" / "alexnet-gender-fold1" / "result.json").stat().st_mtime_ns
        chosen = ["--networks=alexnet", "--tasks=gender", "--folds=1", f"--output={study}"]
        assert exit_code("study", *options, *chosen) == 0
        assert (study / "cells" / "alexnet-gender-fold1" / "result.json").stat().st_mtime_ns == before
        output = capsys.readouterr().out
        assert "test accuracy" in output
        assert "95.9 ± 2.9" in output

    def test_of_a_finished_cell_the_best_checkpoint_alone_is_kept(self, study: Path) -> None:
        kept = sorted(path.name for path in study.glob("cells/*/checkpoints/*"))
        assert kept == ["best.ckpt", "best.ckpt"]

    def test_a_begun_cell_goes_on_from_its_last_checkpoint(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The first call is interrupted after two of four steps; here all test clips are explained."""
        budget = tmp_path / "all.yaml"
        budget.write_text(yaml.safe_dump(BUDGET | {"explained_clips": None}))
        options = [f"--corpus={corpus}", f"--budget={budget}"]
        calls: list[list[str]] = []

        def interrupted_once(arguments: list[str], log: Any, claim: Any) -> int:
            calls.append(arguments)
            if len(calls) == 1:
                in_this_process([*arguments, "--trainer.max_steps=2"], log, claim)
                raise KeyboardInterrupt
            return in_this_process(arguments, log, claim)

        monkeypatch.setattr(training, "run_supervised", interrupted_once)
        chosen = ["--networks=alexnet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 130
        assert "error: interrupted; the same command goes on with the study\n" in capsys.readouterr().err
        cell = tmp_path / "study" / "cells" / "alexnet-digit-fold0"
        assert not (cell / "result.json").exists()
        assert exit_code("study", *options, *chosen) == 0
        assert calls[1][-1] == f"--ckpt_path={cell / 'checkpoints' / 'last.ckpt'}"
        first, second = (read_steps(path) for path in sorted(cell.glob("training/*/metrics.csv")))
        assert (first, second) == ({1}, {3})  # validated after two steps and after four
        assert json.loads((cell / "result.json").read_text())["steps"] == 4
        with np.load(cell / "perturbation.npz") as outcomes:
            assert outcomes["accuracy"].shape == (5, 20, len(BUDGET["fractions"]))

    def test_averaged_weights_are_kept_and_go_on_after_an_interruption(
        self, corpus: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The best checkpoint holds what was validated; the last one shows that the average goes on after two steps."""
        decay = 0.5
        average = {"class_path": "EMAWeightAveraging", "init_args": {"decay": decay}}
        read = read_recipe
        cell = tmp_path / "study" / "cells" / "audionet-digit-fold0"

        def averaging(name: str) -> dict[str, Any]:
            recipe = read(name)
            shipped = "WeightAveragingCallback"  # its decay is not constant: slower to check by hand
            others = (item for item in recipe["trainer"]["callbacks"] if item["class_path"] != shipped)
            recipe["trainer"]["callbacks"] = [average, *others]
            return recipe

        def interrupted_once(arguments: list[str], log: Any, claim: Any) -> int:
            watched = [*arguments, "--trainer.callbacks+=test_study.Weights"]
            if "--ckpt_path" not in arguments[-1]:
                in_this_process([*watched, "--trainer.max_steps=2"], log, claim)
                raise KeyboardInterrupt
            code = in_this_process(watched, log, claim)
            shutil.copy(cell / "checkpoints" / "last.ckpt", tmp_path)  # the study removes it
            return code

        def assert_averaged(checkpoint: dict[str, Any]) -> None:
            numbers = range(1, checkpoint["global_step"] + 1)
            steps = [torch.load(cell / "weights" / f"{number}.pt", weights_only=True) for number in numbers]
            for name, last in steps[-1].items():
                mean = steps[0][name]
                for weights in steps[1:]:
                    mean = decay * mean + (1 - decay) * weights[name]
                saved = checkpoint["state_dict"][f"network.{name}"]
                torch.testing.assert_close(saved, mean, rtol=1e-5, atol=1e-7)
                assert (saved - last).abs().max() > 1e-5

        monkeypatch.setattr(training, "read_recipe", averaging)
        monkeypatch.setattr(training, "run_supervised", interrupted_once)
        chosen = ["--networks=audionet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 130
        assert exit_code("study", *options, *chosen) == 0
        last = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert last["global_step"] == 4
        assert_averaged(last)
        best = torch.load(cell / "checkpoints" / "best.ckpt", weights_only=True)
        assert_averaged(best)
        assert not {"optimizer_states", "current_model_state"} & best.keys()

    def test_a_damaged_last_checkpoint_is_not_gone_on_from(self, options: list[str], tmp_path: Path) -> None:
        last = tmp_path / "study" / "cells" / "alexnet-digit-fold0" / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True)
        last.write_bytes(b"half a checkpoint")
        seen: list[list[str]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "run_supervised", lambda arguments, *_: seen.append(arguments) or 1)
            (tmp_path / "study" / "study.json").write_text(json.dumps(describe(options, tmp_path / "study")))
            chosen = ["--networks=alexnet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
            assert exit_code("study", *options, *chosen) == 1
        assert not any("ckpt_path" in argument for argument in seen[0])

    @pytest.mark.parametrize(
        ("code", "reason"),
        [(0, "it ended after 2 of 4 steps"), (-9, "it was ended by SIGKILL"), (143, "it was ended by SIGTERM")],
    )
    def test_a_cell_is_finished_only_with_all_its_steps(
        self, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
    ) -> None:
        """Whatever ended the training, and although a best checkpoint is there."""

        def ends_early(arguments: list[str], log: Any, claim: Any) -> int:
            in_this_process([*arguments, "--trainer.max_steps=2"], log, claim)
            return code

        monkeypatch.setattr(training, "run_supervised", ends_early)
        chosen = ["--networks=audionet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 1
        cell = tmp_path / "study" / "cells" / "audionet-digit-fold0"
        assert json.loads((cell / "failure.json").read_text())["reason"] == f"TrainingFailedError: {reason}"
        assert not (cell / "result.json").exists()
        monkeypatch.setattr(training, "run_supervised", in_this_process)
        assert exit_code("study", *options, *chosen) == 0
        assert json.loads((cell / "result.json").read_text())["steps"] == 4
        assert max(step for path in cell.glob("training/*/metrics.csv") for step in read_steps(path)) == 3

    def test_a_cell_that_fails_takes_no_other_down(
        self,
        study: Path,
        options: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fails(arguments: list[str], log: Any, claim: Any) -> int:
            log.write("Traceback\nMemoryError: out of memory\n")
            log.flush()
            return 1

        monkeypatch.setattr(training, "run_supervised", fails)
        chosen = ["--tasks=gender", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 1
        message = capsys.readouterr().err
        assert "2 of 2 cells failed" in message
        assert "MemoryError: out of memory" in message
        assert not list(tmp_path.glob("study/cells/*/result.json"))
        cell = tmp_path / "study" / "cells" / "alexnet-gender-fold0"
        assert "out of memory" in json.loads((cell / "failure.json").read_text())["reason"]
        # The next call tries again: here with a training that is already there.
        os.link(study / "cells/alexnet-gender-fold1/checkpoints/best.ckpt", tmp_path / "best.ckpt")

        def succeeds(arguments: list[str], log: Any, claim: Any) -> int:
            (cell / "checkpoints").mkdir()
            (tmp_path / "best.ckpt").rename(cell / "checkpoints" / "best.ckpt")
            state = {"ModelCheckpoint": {"monitor": "val/accuracy", "best_model_score": torch.tensor(0.5)}}
            torch.save({"state_dict": {}, "callbacks": state, "global_step": 4}, cell / "checkpoints" / "last.ckpt")
            return 0

        monkeypatch.setattr(training, "run_supervised", succeeds)
        assert exit_code("study", *options, *chosen, "--networks=alexnet") == 0
        assert not (cell / "failure.json").exists()
        assert json.loads((cell / "result.json").read_text())["validation_accuracy"] == 0.5

    def test_workers_that_end_too_early_are_told_of(
        self, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(run, "_work_in_processes", lambda *_: None)
        chosen = ["--folds=0", "--tasks=digit", "--workers=2", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 1
        assert "2 of 2 cells are left" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("chosen", "started"),
        [
            (["--folds=0", "--tasks=digit"], [2]),
            (["--folds", "0", "1", "--tasks=digit"], [3]),  # of four cells one is finished
            (["--folds=0", "--tasks=digit", "--networks=alexnet"], []),  # one cell: this process does it
            (["--folds=1", "--tasks=digit", "--networks=audionet"], []),
        ],
    )
    def test_no_more_workers_than_unfinished_cells(
        self,
        study: Path,
        options: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        chosen: list[str],
        started: list[int],
    ) -> None:
        shutil.copytree(study, tmp_path / "study")
        counts: list[int] = []
        monkeypatch.setattr(run, "_work_in_processes", lambda study, arguments, count: counts.append(count))
        monkeypatch.setattr(run, "work", lambda *_: None)
        monkeypatch.setattr(run, "write_results", lambda *_: None)
        exit_code("study", *options, *chosen, "--workers=40", f"--output={tmp_path / 'study'}")
        assert counts == started

    def test_workers_share_the_cores_that_the_study_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(run, "usable_cores", lambda: 6)
        threads = [run._worker_environment(0, count)["OMP_NUM_THREADS"] for count in (1, 2, 40)]
        assert threads == ["6", "3", "1"]


@pytest.mark.parametrize("shift", [-1e6, 1e6])
def test_a_failure_counts_whatever_the_clock_says(tmp_path: Path, shift: float) -> None:
    cell = Cell("alexnet", "digit", 0)
    study = SimpleNamespace(cell_folder=lambda cell: tmp_path)
    assert not work.has_failed(study, cell, work.failures(study, [cell]))
    work._write_json(tmp_path / "failure.json", {"reason": "an earlier one"})
    earlier = work.failures(study, [cell])
    assert not work.has_failed(study, cell, earlier)
    work._write_json(tmp_path / "failure.json", {"reason": "another"})
    os.utime(tmp_path / "failure.json", (time.time() + shift, time.time() + shift))
    assert work.has_failed(study, cell, earlier)
    assert work.has_failed(study, cell, {})


def read_steps(path: Path) -> set[int]:
    """The steps after which a training was validated."""
    with path.open(newline="") as file:
        return {int(row["step"]) for row in csv.DictReader(file) if row["val/accuracy"]}


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
        monkeypatch.setattr(training, "run_supervised", in_this_process)
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
        monkeypatch.setattr(run, "work", lambda *_: None)
        command = ["study", *options, "--tasks=digit", "--folds=0", "--output=study"]
        exit_code(*command, f"--exclude={exclusions}")
        remembered = json.loads(Path("study/study.json").read_text())["corpus"]
        assert remembered["excluded"] == ["01/4_01_0.wav", "05/7_05_0.wav"]
        assert remembered["recordings"] == 58
        Path(exclusions).rename("elsewhere.yaml")
        capsys.readouterr()
        exit_code(*command, "--exclude=elsewhere.yaml")
        assert "2 of 2 cells are left" in capsys.readouterr().err
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
            ({"validate_every": 0}, "has 0 for validate_every: give a number above 0"),
            ({"explained_clips": 0}, "has 0 for explained_clips: give a number above 0"),
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
        monkeypatch.setattr(training, "run_supervised", lambda *_: 1)
        arguments = [f"--corpus={tmp_path}", options[1], "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *arguments) == 1
        assert "FSDD has no labels for the task gender, which is left out" in capsys.readouterr().err
        assert {path.name for path in (tmp_path / "study" / "cells").iterdir()} == {
            "alexnet-digit-fold0", "audionet-digit-fold0",
        }  # fmt: skip
        assert exit_code("study", *arguments, "--tasks=gender") == 1
        assert "nothing is left to do" in capsys.readouterr().err


@pytest.mark.slow
class TestProcesses:
    """With trainings in processes of their own."""

    def command(self, options: list[str], study: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "audio_lrp", "study", *options, f"--output={study}", *more]

    def test_killed_in_the_middle(self, options: list[str], tmp_path: Path) -> None:
        """After kill -9 nothing goes on writing, and the same command goes on from the last checkpoint."""
        budget = tmp_path / "longer.yaml"
        budget.write_text(yaml.safe_dump(BUDGET | {"steps": {"alexnet_gender": 20}, "validate_every": 2}))
        study = tmp_path / "study"
        command = self.command([options[0], f"--budget={budget}"], study, "--tasks=gender", "--folds=0")
        checkpoint = study / "cells" / "alexnet-gender-fold0" / "checkpoints" / "last.ckpt"
        with subprocess.Popen(command) as first:
            wait_until(checkpoint.exists)
            first.kill()
        wait_until(lambda: not trainings_of(study))
        assert not list(study.rglob("result.json"))
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "test accuracy" in done
        starts = [min(read_steps(path)) for path in sorted(study.rglob("metrics.csv"))]
        assert len(starts) == 2
        assert starts[0] == 1 < starts[1]

    def test_workers_share_the_cells(self, options: list[str], tmp_path: Path) -> None:
        study = tmp_path / "study"
        (tmp_path / "mine.yaml").write_text("01/4_01_0.wav: a cough\n")
        more = ["--folds=0", "--networks=alexnet", "--workers=2", f"--exclude={tmp_path / 'mine.yaml'}"]
        subprocess.run(self.command(options, study, *more), check=True)
        for task in ("digit", "gender"):
            cell = study / "cells" / f"alexnet-{task}-fold0"
            assert [path.name for path in cell.glob("claim-*")] == ["claim-0001.json"]
            assert len(list(cell.glob("training/*"))) == 1
        holders = {json.loads(path.read_text())["process"] for path in study.rglob("claim-0001.json")}
        assert len(holders) == 2
        assert [row["clips"] for row in table(study, "accuracy")] == [19, 19]


def trainings_of(study: Path) -> list[str]:
    """Processes whose command line names the study."""
    lines = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if str(study) in line and "supervised" in line]
