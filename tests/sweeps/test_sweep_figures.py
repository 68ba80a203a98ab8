"""The figures of a sweep, and the report that they are part of."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from matplotlib.image import imread

from audio_lrp.jobs import JOB, Queue
from audio_lrp.sweeps.figures import Line, comparison_chart
from audio_lrp.sweeps.report import _importances, write_report
from audio_lrp.sweeps.sweep_file import make_sweep
from audio_lrp.sweeps.work import PARAMETERS


def test_a_single_parameters_choices_are_compared() -> None:
    tried = [(True, 0.4, False), (True, 0.6, False), (1, 0.9, False), (1, 0.2, True), ("slow", 0.1, True)]
    tried.append(("1", 0.3, False))
    lines = [Line({"model.mixup": choice}, value, pruned) for choice, value, pruned in tried]
    (axes,) = comparison_chart(lines, "model.mixup", ["slow", True, 1, "never tried", "1"], "val/accuracy").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "1", "True", "slow"]  # from below
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    assert bars == pytest.approx({0: 0.3, 1: 0.9, 2: 0.5})
    dots = {(dot.get_ydata()[0], dot.get_xdata()[0], dot.get_color()) for dot in axes.lines}
    complete, pruned = "#0072b2", "0.6"
    assert dots == {
        (0, 0.3, complete),
        (1, 0.9, complete),
        (1, 0.2, pruned),
        (2, 0.4, complete),
        (2, 0.6, complete),
        (3, 0.1, pruned),
    }


def test_several_parameters_have_coordinates_and_importance(tmp_path: Path) -> None:
    mixup, fold = "model.init_args.mixup", "data.init_args.fold"
    command = ["${env}", "audio-lrp", "fit", "--config", "audionet_digit", "--data.root=corpus", "${args}"]
    parameters = {mixup: {"min": 0.0, "max": 1.0}, fold: {"values": [0, 1, 2]}}
    metric = {"name": "val/accuracy", "goal": "maximize"}
    sweep = make_sweep({"method": "random", "metric": metric, "command": command, "parameters": parameters})
    study = optuna.create_study(direction="maximize")
    for number in range(8):
        point = {mixup: number / 8, fold: number % 3}
        trial = optuna.create_trial(
            params={mixup: number / 8, fold: str(number % 3)},
            distributions={name: parameter.variable for name, parameter in sweep.parameters.items()},
            value=number / 8,  # mixup alone decides
            user_attrs={PARAMETERS: point, JOB: str(number)},
        )
        study.add_trial(trial)
    text = write_report(Queue(study), sweep, tmp_path)
    assert "best val/accuracy:    0.875 (trial 7)" in text.splitlines()
    for name in ("parallel_coordinates", "importance"):
        picture = imread(tmp_path / f"{name}.png")
        assert np.ptp(picture[..., :3]) > 0.5  # something is drawn
        assert f"{tmp_path / name}.png" in text
    assert not (tmp_path / "comparison.png").exists()
    importances = _importances(study, study.get_trials(), [mixup, fold])
    assert importances[mixup] > 0.7
