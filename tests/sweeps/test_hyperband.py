"""Early termination, compared with the obvious rule and with W&B's engine."""

import random

import optuna
import pytest
from optuna.trial import TrialState

from audio_lrp.sweeps.hyperband import HyperbandPruner, make_pruner


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ({"min_iter": 2}, (2, 6, 18, 54)),
        ({"min_iter": 3, "eta": 1.5}, (3, 4, 6, 10)),
        ({"max_iter": 27, "s": 3}, (1, 3, 9)),
        ({"max_iter": 10, "s": 5, "eta": 2}, (1, 2, 5)),
    ],
)
def test_rungs(settings: dict[str, float], rungs: tuple[int, ...]) -> None:
    hyperband = make_pruner({"type": "hyperband", **settings})
    assert isinstance(hyperband, HyperbandPruner)
    assert hyperband.rungs[: len(rungs)] == rungs
    assert len(hyperband.rungs) in (len(rungs), 100)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("rungs", [{"min_iter": 1, "eta": 2}, {"max_iter": 9, "s": 2, "eta": 3}])
def test_decisions_are_those_of_the_slow_obvious_rule(strict: bool, goal: str, rungs: dict[str, float]) -> None:
    settings = {"type": "hyperband", **rungs, "strict": strict}
    hyperband = make_pruner(settings)
    assert isinstance(hyperband, HyperbandPruner)
    generator = random.Random(0)
    stopped = 0
    for _ in range(20):
        histories = [[generator.random() for _ in range(generator.randrange(9))] for _ in range(7)]
        study = study_of(histories, goal)
        for trial, history in zip(study.get_trials(), histories, strict=True):
            should = stops(history, histories, hyperband.rungs, hyperband.eta, strict, goal == "maximize")
            assert hyperband.prune(study, trial) == should
            stopped += should
    assert 10 < stopped < 130


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_decisions_are_those_of_wandbs_engine(strict: bool, goal: str) -> None:
    engine = pytest.importorskip("sweeps.hyperband_stopping", reason="W&B's engine is not installed")
    from sweeps import RunState, SweepRun

    settings = {"type": "hyperband", "min_iter": 1, "eta": 2, "strict": strict}
    hyperband = make_pruner(settings)
    assert isinstance(hyperband, HyperbandPruner)
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
        assert {trial.number for trial in trials if hyperband.prune(study, trial)} == expected


def test_wandbs_own_example() -> None:
    # From the documentation of the engine's stopping function: of these, b alone should stop.
    histories = [[10, 9], [10, 10], [10, 8, 8], [10, 7, 7], [10, 6, 6]]
    study = study_of([[float(value) for value in history] for history in histories], "minimize")
    hyperband = make_pruner({"type": "hyperband", "max_iter": 5, "eta": 2, "s": 2, "strict": False})
    assert isinstance(hyperband, HyperbandPruner)
    stopped = [hyperband.prune(study, trial) for trial in study.get_trials()[1:4]]
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
