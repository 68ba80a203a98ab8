"""The report of a sweep: a table of its trials, the best one's configuration, and figures."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

import optuna
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from audio_lrp import __version__
from audio_lrp.errors import UserError
from audio_lrp.jobs import FAILURE, Queue
from audio_lrp.sweeps.figures import Line, comparison_chart, importance_chart, parallel_coordinates, short_name
from audio_lrp.sweeps.options import printed_config
from audio_lrp.sweeps.sweep_file import Sweep
from audio_lrp.sweeps.work import PARAMETERS
from audio_lrp.utils.files import replacing

_FEWEST = 4
"""Trials below which importances mean nothing."""
_MOST_FAILURES = 5
"""Failed trials that are named one by one."""


def write_report(queue: Queue, sweep: Sweep, folder: Path) -> str:
    """Write a table of the trials, the best one's configuration and figures into a sweep's folder.

    The files are ``trials.csv``, ``best.yaml``, ``importance.png`` and ``parallel_coordinates.png``; where a single
    parameter is tried choice by choice, ``comparison.png`` instead of the figures.

    Args:
        queue: the sweep's, with no trial running.
        sweep: what was searched.
        folder: the sweep's folder.

    Returns:
        What came out, as lines to print.

    Raises:
        UserError: no trial was completed.
    """
    trials, study = queue.latest(), queue.study
    by_state = {state: [trial for trial in trials if trial.state == state] for state in TrialState}
    complete, pruned, failed = (by_state[state] for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    _write_table(trials, sweep, folder / "trials.csv")
    failures = [f"trial {trial.number} failed: {_failure(trial)}" for trial in failed[:_MOST_FAILURES]]
    if not complete:
        reason = failures[0] if failures else "all were pruned"
        raise UserError(f"none of the sweep's {len(trials)} trials was completed ({reason}): see {folder}")
    best = study.best_trial
    lines = [
        ("trials", f"{len(complete)} complete, {len(pruned)} pruned, {len(failed)} failed"),
        (f"best {sweep.metric}", f"{best.value:.6g} (trial {best.number})"),
        *((short_name(name), str(value)) for name, value in best.user_attrs[PARAMETERS].items()),
    ]
    if sweep.method == "grid" and len(complete) > 1:
        values = [_value(trial) for trial in complete]
        spread = statistics.stdev(values)
        lines.append(("mean of the grid", f"{statistics.fmean(values):.6g} ± {spread:.2g} (standard deviation)"))
    _write_config(best, sweep, folder / "best.yaml")
    lines += [("table", str(folder / "trials.csv")), ("configuration", str(folder / "best.yaml"))]
    for name, figure in _figures(study, sweep, complete, pruned).items():
        with replacing(folder / f"{name}.png") as path:
            figure.savefig(path, format="png")
        lines.append((name.replace("_", " "), str(folder / f"{name}.png")))
    lines.append(("to train it again", f"audio-lrp {sweep.words[0]} --config {folder / 'best.yaml'}"))
    width = max(len(name) for name, _ in lines) + 1
    return "\n".join([*(f"{name + ':':<{width}} {text}" for name, text in lines), *failures])


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _failure(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get(FAILURE, "its worker died again and again"))


def _write_table(trials: Sequence[FrozenTrial], sweep: Sweep, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", sweep.metric, "logged values", "seconds", *sweep.parameters, "failure"])
        for trial in trials:
            point = trial.user_attrs.get(PARAMETERS, {})
            seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
            failure = _failure(trial) if trial.state == TrialState.FAIL else ""
            values = [trial.value, len(trial.intermediate_values), seconds]
            options = [point.get(name) for name in sweep.parameters]
            writer.writerow([trial.number, trial.state.name.lower(), *values, *options, failure])


def _write_config(best: FrozenTrial, sweep: Sweep, path: Path) -> None:
    head = f"# audio-lrp {__version__}: trial {best.number} of the sweep, {sweep.metric} {best.value:.6g}\n"
    with replacing(path) as temporary:
        temporary.write_text(head + printed_config(sweep.arguments(best.user_attrs[PARAMETERS])))


def _figures(
    study: optuna.Study, sweep: Sweep, complete: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial]
) -> dict[str, Figure]:
    varied = {name: parameter for name, parameter in sweep.parameters.items() if not parameter.is_constant}
    judged = [trial for trial in (*complete, *pruned) if trial.value is not None]
    lines = [Line(trial.user_attrs[PARAMETERS], _value(trial), trial.state == TrialState.PRUNED) for trial in judged]
    figures = {}
    if len(varied) == 1:
        ((name, parameter),) = varied.items()
        if isinstance(parameter.variable, CategoricalDistribution):
            return {"comparison": comparison_chart(lines, name, parameter.grid or (), sweep.metric)}
    if varied:
        figures["parallel_coordinates"] = parallel_coordinates(lines, varied, sweep.metric, sweep.maximize)
    if varied and len(judged) >= _FEWEST:
        importances = _importances(study, judged, list(varied))
        figures["importance"] = importance_chart(importances, sweep.metric, len(judged))
    return figures


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial], names: list[str]) -> dict[str, float]:
    """Share of each parameter; pruned trials count with their last value, for what made them bad matters too."""
    copies = [
        optuna.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
        for trial in trials
    ]
    judged = optuna.create_study(direction=study.direction)
    judged.add_trials(copies)
    return get_param_importances(judged, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25), params=names)
