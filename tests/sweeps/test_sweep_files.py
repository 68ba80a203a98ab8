"""What Optuna makes of W&B's sweep files: distributions, early termination, and what is refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import scipy.stats
from matplotlib.image import imread
from optuna.trial import TrialState

from audio_lrp.errors import UserError
from audio_lrp.sweeps.hyperband import HyperbandPruner, make_hyperband
from audio_lrp.sweeps.parameters import Parameter, make_parameter
from audio_lrp.sweeps.pictures import Line, comparison_chart
from audio_lrp.sweeps.report import _importances, write_report
from audio_lrp.sweeps.sweep_file import make_sweep, read_sweep
from audio_lrp.sweeps.worker import PARAMETERS

SWEEP: dict[str, Any] = {
    "method": "random",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "command": ["${env}", "audio-lrp", "fit", "${args}"],
    "parameters": {"model.mixup": {"min": 0.0, "max": 1.0}, "data.fold": {"values": [0, 1, 2]}},
}
GRID = SWEEP | {
    "method": "grid",
    "parameters": {"b": {"min": 1, "max": 2}, "a": {"values": ["x", [1, 2], None]}, "c": {"value": True}},
}

DISTRIBUTIONS: dict[str, tuple[dict[str, float], Any, float | None]] = {
    "uniform": ({"min": -1, "max": 3}, scipy.stats.uniform(-1, 4), None),
    "q_uniform": ({"min": 0.0, "max": 10.0, "q": 2}, scipy.stats.uniform(0, 10), 2),
    "log_uniform": ({"min": -3, "max": 1}, scipy.stats.loguniform(np.exp(-3), np.exp(1)), None),
    "log_uniform_values": ({"min": 1e-4, "max": 1e-1}, scipy.stats.loguniform(1e-4, 1e-1), None),
    "q_log_uniform": ({"min": 0, "max": 4, "q": 0.5}, scipy.stats.loguniform(1, np.exp(4)), 0.5),
    "q_log_uniform_values": ({"min": 8, "max": 256, "q": 8}, scipy.stats.loguniform(8, 256), 8),
    "inv_log_uniform": ({"min": 1, "max": 5}, scipy.stats.loguniform(np.exp(-5), np.exp(-1)), None),
    "inv_log_uniform_values": ({"min": 0.01, "max": 0.5}, scipy.stats.loguniform(0.01, 0.5), None),
    "normal": ({"mu": 2, "sigma": 0.5}, scipy.stats.norm(2, 0.5), None),
    "q_normal": ({"mu": 0, "sigma": 30, "q": 5}, scipy.stats.norm(0, 30), 5),
    "log_normal": ({"mu": -2, "sigma": 0.7}, scipy.stats.lognorm(s=0.7, scale=np.exp(-2)), None),
    "q_log_normal": ({"mu": 3, "sigma": 1, "q": 4}, scipy.stats.lognorm(s=1, scale=np.exp(3)), 4),
}


def values_at(parameter: Parameter, quantiles: np.ndarray) -> list[Any]:
    """The parameter's values where Optuna, drawing uniformly, arrives at these quantiles."""
    low, high = parameter.variable.low, parameter.variable.high
    if parameter.variable.log:
        return [parameter.value(low * (high / low) ** quantile) for quantile in quantiles]
    return [parameter.value(low + quantile * (high - low)) for quantile in quantiles]


class TestParameters:
    """W&B's distributions."""

    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_quantiles_are_those_of_scipy(self, name: str) -> None:
        settings, reference, q = DISTRIBUTIONS[name]
        quantiles = np.linspace(0.001, 0.999, 501)
        expected = reference.ppf(quantiles)
        if q is not None:
            expected = np.round(expected / q) * q
        values = values_at(make_parameter("x", {"distribution": name, **settings}), quantiles)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
        assert all(isinstance(value, int if isinstance(q, int) else float) for value in values)

    def test_choices_keep_their_kind(self) -> None:
        values = [1, True, 1.0, "1", None, [1, 2], {"class_path": "A"}]
        parameter = make_parameter("x", {"values": values})
        found = [parameter.value(text) for text in parameter.variable.choices]
        assert [(type(value), value) for value in found] == [(type(value), value) for value in values]
        assert make_parameter("x", {"value": 3}).is_constant

    def test_probabilities(self) -> None:
        settings = {"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}
        drawn = values_at(make_parameter("x", settings), np.arange(0.0005, 1, 0.001))
        assert [drawn.count(value) for value in settings["values"]] == [200, 500, 300]

    def test_integers_are_inclusive(self) -> None:
        parameter = make_parameter("x", {"min": 2, "max": 4})
        assert parameter.grid == (2, 3, 4)
        assert (parameter.variable.low, parameter.variable.high) == (2, 4)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"parameters": {"lr": {"value": 1}}}, r"x is nested.*dotted form, x\.lr"),
            ({"distribution": "beta", "a": 1, "b": 2}, "beta, which Optuna cannot draw"),
            ({"distribution": "q_beta"}, "q_beta, which Optuna cannot draw"),
            ({"distribution": "unifrom", "min": 0, "max": 1}, "unknown distribution 'unifrom': choose one of constant"),
            ({"distribution": "uniform", "min": 0}, "lacks 'max'"),
            ({"distribution": "uniform", "min": 0, "max": 1, "q": 1}, "takes no 'q'"),
            ({"distribution": "uniform", "min": "1e-4", "max": 1}, "min of the parameter x is a number, not '1e-4'"),
            ({"min": 0, "max": 1.5}, "no two integers and no two fractions"),
            ({"min": 3, "max": 2}, "its min 3 is not below its max 2"),
            ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "must be above 0"),
            ({"distribution": "log_uniform", "min": 0, "max": 10000}, "x is not valid"),
            ({"distribution": "q_uniform", "min": 0, "max": 1, "q": -1}, "q must be above 0"),
            ({"distribution": "normal", "sigma": 0}, "sigma must be above 0"),
            ({"distribution": "int_uniform", "min": 0.5, "max": 3}, "bounds are integers"),
            ({"values": []}, "one value or more"),
            ({"values": [1, 1]}, "stands there twice"),
            ({"values": [1, 2], "probabilities": [0.5]}, "as many probabilities as values"),
            ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "do not add up to 1"),
            ({}, "neither 'values' nor"),
            (0.1, "has no settings"),
        ],
    )
    def test_refusals(self, settings: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            make_parameter("x", settings)


class TestSweepFile:
    """What a file must say."""

    def test_grid(self) -> None:
        sweep = make_sweep(GRID)
        assert [tuple(point.values()) for point in sweep.grid] == [
            (a, b, True) for a in ("x", [1, 2], None) for b in (1, 2)
        ]
        assert list(sweep.grid[0]) == ["a", "b", "c"]  # sorted, as W&B's engine has them
        assert sweep.arguments(sweep.grid[2]) == ["fit", "--a=[1, 2]", "--b=1", "--c=True"]
        stepped = GRID | {"parameters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}}}
        assert [point["x"] for point in make_sweep(stepped).grid] == [0, 0.25, 0.5, 0.75]

    def test_macros(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOT", "a b")
        words = ["${env}", "${program}", "test", "--data.root=${envvar:ROOT}/c", "${args_no_equals}"]
        sweep = make_sweep(SWEEP | {"program": "audio-lrp", "command": words})
        assert sweep.arguments({"x": 1, "y": "z"}) == ["test", "--data.root=a b/c", "--x", "1", "--y", "z"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"method": "custom"}, "method is one of grid, random, bayes, not 'custom'"),
            ({"image_uri": "x"}, "key 'image_uri' is not supported without W&B"),
            ({"metric": {"goal": "maximize"}}, "names no metric"),
            ({"metric": {"name": "x", "goal": "up"}}, "minimize or maximize, not 'up'"),
            ({"metric": {"name": "x", "target": "0.9"}}, "target .* is a number, not '0.9'"),
            ({"early_terminate": {"type": "hyperband", "min_iter": "2"}}, "min_iter .* is a number, not '2'"),
            ({"metric": {"name": "x", "gaol": "maximize"}}, "metric of the sweep takes no 'gaol'"),
            ({"parameters": {}}, "no parameters"),
            ({"run_cap": 0}, "run_cap is a number of trials"),
            ({"command": None}, "has no command"),
            ({"command": ["${env}", "${interpreter}", "${program}", "${args}"]}, "must be audio-lrp with one of fit"),
            ({"command": ["audio-lrp", "explain"]}, "must be audio-lrp with one of fit"),
            ({"command": ["audio-lrp", "fit", "${args_json}"]}, r"macro \$\{args_json\} .* not supported"),
            ({"command": ["audio-lrp", "fit", "${envvar:NO_SUCH}"]}, "variable NO_SUCH: export NO_SUCH="),
            ({"early_terminate": {"type": "median"}}, "the type hyperband"),
            ({"early_terminate": {"type": "hyperband"}}, "needs min_iter, or max_iter and s"),
            ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "lacks s"),
            ({"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 1}}, "eta .* is above 1"),
            ({"early_terminate": {"type": "hyperband", "min_iter": 2, "s": 2, "x": 1}}, "takes no 'x'"),
            ({"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 2}}, "never compares"),
            ({"method": "grid"}, "model.mixup has no countable values"),
        ],
    )
    def test_refusals(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            make_sweep(SWEEP | change)

    def test_files(self, tmp_path: Path) -> None:
        (tmp_path / "audionet.yaml").write_text("- a\n")
        with pytest.raises(UserError, match=r"audiont.yaml cannot be read .*: did you mean .*audionet.yaml"):
            read_sweep(tmp_path / "audiont.yaml")
        with pytest.raises(UserError, match=r"nothing cannot be read .*: give a W&B sweep file"):
            read_sweep(tmp_path / "nothing")
        with pytest.raises(UserError, match="no YAML mapping"):
            read_sweep(tmp_path / "audionet.yaml")
        (tmp_path / "audionet.yaml").write_text("a: [")
        with pytest.raises(UserError, match=r"audionet.yaml is not valid YAML: expected .* in line 1$"):
            read_sweep(tmp_path / "audionet.yaml")


class TestHyperband:
    """Early termination."""

    @pytest.mark.parametrize(
        ("settings", "rungs"),
        [
            ({"min_iter": 2}, (2, 6, 18, 54)),
            ({"min_iter": 3, "eta": 1.5}, (3, 4, 6, 10)),
            ({"max_iter": 27, "s": 3}, (1, 3, 9)),
            ({"max_iter": 10, "s": 5, "eta": 2}, (1, 2, 5)),
        ],
    )
    def test_rungs(self, settings: dict[str, float], rungs: tuple[int, ...]) -> None:
        hyperband = make_hyperband({"type": "hyperband", **settings})
        assert hyperband is not None
        assert hyperband.rungs[: len(rungs)] == rungs
        assert len(hyperband.rungs) in (len(rungs), 100)

    @pytest.mark.parametrize("strict", [True, False])
    @pytest.mark.parametrize("goal", ["minimize", "maximize"])
    @pytest.mark.parametrize("rungs", [{"min_iter": 1, "eta": 2}, {"max_iter": 9, "s": 2, "eta": 3}])
    def test_decisions_are_those_of_the_slow_obvious_rule(
        self, strict: bool, goal: str, rungs: dict[str, float]
    ) -> None:
        settings = {"type": "hyperband", **rungs, "strict": strict}
        hyperband = make_hyperband(settings)
        assert hyperband is not None
        generator = random.Random(0)
        stopped = 0
        for _ in range(20):
            histories = [[generator.random() for _ in range(generator.randrange(9))] for _ in range(7)]
            study = study_of(histories, goal)
            for trial, history in zip(study.get_trials(), histories, strict=True):
                should = stops(history, histories, hyperband.rungs, hyperband.eta, strict, goal == "maximize")
                assert HyperbandPruner(hyperband).prune(study, trial) == should
                stopped += should
        assert 10 < stopped < 130

    @pytest.mark.parametrize("strict", [True, False])
    @pytest.mark.parametrize("goal", ["minimize", "maximize"])
    def test_decisions_are_those_of_wandbs_engine(self, strict: bool, goal: str) -> None:
        engine = pytest.importorskip("sweeps.hyperband_stopping", reason="W&B's engine is not installed")
        from sweeps import RunState, SweepRun

        settings = {"type": "hyperband", "min_iter": 1, "eta": 2, "strict": strict}
        hyperband = make_hyperband(settings)
        assert hyperband is not None
        generator = random.Random(1)
        for _ in range(100):
            histories = [[generator.random() for _ in range(generator.randrange(9))] for _ in range(7)]
            study = study_of(histories, goal)
            runs = [
                SweepRun(name=str(index), state=RunState.running, history=[{"metric": value} for value in history])
                for index, history in enumerate(histories)
            ]
            config = {"metric": {"name": "metric", "goal": goal}, "early_terminate": settings}
            expected = {int(run.name) for run in engine.hyperband_stop_runs(runs, config)}
            trials = study.get_trials()
            assert {trial.number for trial in trials if HyperbandPruner(hyperband).prune(study, trial)} == expected

    def test_wandbs_own_example(self) -> None:
        # From the documentation of the engine's stopping function: of these, b alone should stop.
        histories = [[10, 9], [10, 10], [10, 8, 8], [10, 7, 7], [10, 6, 6]]
        study = study_of([[float(value) for value in history] for history in histories], "minimize")
        hyperband = make_hyperband({"type": "hyperband", "max_iter": 5, "eta": 2, "s": 2, "strict": False})
        assert hyperband is not None
        stopped = [HyperbandPruner(hyperband).prune(study, trial) for trial in study.get_trials()[1:4]]
        assert stopped == [True, False, False]


def study_of(histories: list[list[float]], goal: str) -> optuna.Study:
    study = optuna.create_study(direction=goal)
    for history in histories:
        values = dict(enumerate(history, start=1))
        study.add_trial(optuna.create_trial(state=TrialState.RUNNING, intermediate_values=values))
    return study


def stops(
    history: list[float], histories: list[list[float]], rungs: tuple[int, ...], eta: float, strict: bool, larger: bool
) -> bool:
    """Whether the trial is not among the best ``1 / eta`` at the last rung it has reached, counted one by one."""
    reached = [rung for rung in rungs if rung <= len(history)]
    if not reached:
        return False
    competitors = [other[reached[-1] - 1] for other in histories if len(other) >= reached[-1]]
    own = history[reached[-1] - 1] if strict else (max if larger else min)(history)
    better = sum(value > own if larger else value < own for value in competitors)
    return better > len(competitors) // eta


class TestPictures:
    def test_a_single_parameters_choices_are_compared(self) -> None:
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

    def test_several_parameters_have_coordinates_and_importance(self, tmp_path: Path) -> None:
        mixup, fold = "model.init_args.mixup", "data.init_args.fold"
        command = ["${env}", "audio-lrp", "fit", "--config", "audionet_digit", "--data.root=corpus", "${args}"]
        parameters = {mixup: {"min": 0.0, "max": 1.0}, fold: {"values": [0, 1, 2]}}
        sweep = make_sweep(SWEEP | {"command": command, "parameters": parameters})
        study = optuna.create_study(direction="maximize")
        for number in range(8):
            point = {mixup: number / 8, fold: number % 3}
            trial = optuna.create_trial(
                params={mixup: number / 8, fold: str(number % 3)},
                distributions={name: parameter.variable for name, parameter in sweep.parameters.items()},
                value=number / 8,  # mixup alone decides
                user_attrs={PARAMETERS: point},
            )
            study.add_trial(trial)
        text = write_report(study, sweep, tmp_path)
        assert "best val/accuracy:    0.875 (trial 7)" in text.splitlines()
        for name in ("parallel_coordinates", "importance"):
            picture = imread(tmp_path / f"{name}.png")
            assert np.ptp(picture[..., :3]) > 0.5  # something is drawn
            assert f"{tmp_path / name}.png" in text
        assert not (tmp_path / "comparison.png").exists()
        importances = _importances(study, study.get_trials(), [mixup, fold])
        assert importances[mixup] > 0.7
