"""A sweep as work for the job queue: its points are the jobs, and Optuna's samplers draw them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from audio_lrp.jobs import JOB, open_study
from audio_lrp.sweeps.sweep_file import Sweep, make_sweep
from audio_lrp.sweeps.trial import run_trial

PARAMETERS: Final = "parameters"
"""Attribute of a trial that holds its point: the parameters' values as its command has them."""


@dataclass(frozen=True)
class SweepWork:
    """What a sweep has to do, as `audio_lrp.jobs.Work` describes it; plain data, as other processes get it.

    Attributes:
        name: the sweep's name, and that of Optuna's study.
        content: content of the sweep's file.
        storage: URL of the storage.
        total: number of the sweep's points.
        folder: the sweep's folder.
    """

    name: str
    content: Mapping[str, Any]
    storage: str
    total: int
    folder: Path

    @cached_property
    def sweep(self) -> Sweep:
        """What is searched."""
        return make_sweep(self.content)

    @cached_property
    def jobs(self) -> Sequence[str]:
        """The numbers of the points."""
        return [str(number) for number in range(self.total)]

    def open(self) -> optuna.Study:
        """Create the sweep's study, or open the one of this name.

        Raises:
            UserError: the storage cannot be reached, or holds another sweep of this name.
        """
        return open_study(
            self.storage,
            self.name,
            self.content,
            direction="maximize" if self.sweep.maximize else "minimize",
            sampler=TPESampler() if self.sweep.method == "bayes" else RandomSampler(),
            pruner=self.sweep.pruner,
        )

    def unfinished(self, attempts: Sequence[FrozenTrial]) -> Sequence[str]:
        """All points, until one has reached the metric's target."""
        target, sign = self.sweep.target, 1 if self.sweep.maximize else -1
        values = [trial.value for trial in attempts if trial.state == TrialState.COMPLETE and trial.value is not None]
        return [] if target is not None and any(sign * (value - target) >= 0 for value in values) else self.jobs

    def parameters(self, job: str) -> Mapping[str, Any]:
        """The choices, as texts, at a point of a grid; Optuna's own grid may try one twice with several workers."""
        if self.sweep.method != "grid":
            return {}
        return {name: json.dumps(value) for name, value in self.sweep.grid[int(job)].items()}

    def run(self, attempt: optuna.Trial, job: str) -> float:
        """Run the trial of a point, and return the metric's best value."""
        point = {name: parameter.draw(attempt, name) for name, parameter in self.sweep.parameters.items()}
        attempt.set_user_attr(PARAMETERS, point)
        os.environ.setdefault("WANDB_RUN_GROUP", self.name)
        return run_trial(attempt, self.sweep, point, self.folder)

    def progress(self, attempts: Sequence[FrozenTrial]) -> tuple[int, str]:
        """How many points are finished, and the counts of the others beside the best value."""
        trials = list({trial.user_attrs[JOB]: trial for trial in attempts}.values())
        counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
        facts = [f"{state.name.lower()} {counts[state]}" for state in (TrialState.RUNNING, TrialState.PRUNED)]
        if counts[TrialState.FAIL]:
            facts.append(f"failed {counts[TrialState.FAIL]}")
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        if values:
            facts.append(f"best {self.sweep.metric} {max(values) if self.sweep.maximize else min(values):.4g}")
        return sum(trial.state.is_finished() for trial in trials), ", ".join(facts)
