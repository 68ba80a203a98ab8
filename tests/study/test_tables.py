"""The tables and figures of a study."""

import csv
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import exit_code
from small_study import BUDGET, predictions, table

from audio_lrp.study import subject
from audio_lrp.study.budget import load_budget
from audio_lrp.study.charts import figures, randomization_chart
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.explanations import score_rows
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.reported import REPORTED
from audio_lrp.study.run import write_results
from audio_lrp.study.tables import collect


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
        write_results(folder)
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
