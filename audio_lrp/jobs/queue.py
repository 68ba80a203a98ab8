"""A queue of jobs whose attempts are the trials of an Optuna study, so that several workers do each job once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

JOB: Final = "job"
"""Attribute of an attempt: the name of its job."""
FAILURE: Final = "failure"
"""Attribute of an attempt: why it failed."""
SUPERVISOR: Final = "supervisor"
"""Attribute of an attempt: the process that looks after its worker."""
WORKER: Final = "worker"
"""Attribute of an attempt: the process that works on it."""
ENDED: Final = "ended"
"""Attribute of an attempt that came to no result: one of the following."""
DIED: Final = "died"
"""Its worker died, while its supervisor lived on: the job itself may be the cause."""
STOPPED: Final = "stopped"
"""Its supervisor was stopped or died, so that the job is not to blame."""
SURPLUS: Final = "surplus"
"""Another worker had started the same job before."""

_FIXED: Final = "fixed_params"
"""Optuna's own attribute of a trial whose parameters are not drawn, see Study.enqueue_trial."""

MOST_DEATHS: Final = 4
"""How many workers a job may take with it, by running out of memory for example, until it counts as failed."""


@dataclass(frozen=True)
class Queue:
    """Jobs that several workers share.

    Attributes:
        study: Optuna's study that keeps the attempts.
        ignored: numbers of attempts whose results do not count.
    """

    study: optuna.Study
    ignored: frozenset[int] = frozenset()

    def attempts(self) -> list[FrozenTrial]:
        """The attempts that count, in the order in which they were started."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.user_attrs.get(ENDED) != SURPLUS and trial.number not in self.ignored
        ]

    def latest(self) -> list[FrozenTrial]:
        """The last attempt at each job, in the order in which they were started."""
        last = {trial.user_attrs[JOB]: trial for trial in self.attempts()}
        return sorted(last.values(), key=lambda trial: trial.number)

    def start(
        self, job: str, supervisor: str, worker: str, parameters: Mapping[str, Any] = MappingProxyType({})
    ) -> optuna.Trial | None:
        """Start a job, at these parameters and those of an earlier attempt that came to no result.

        Of several workers that start the same job at once, the one whose attempt has the lowest number does it.

        Returns:
            The attempt; ``None`` where another worker was faster.
        """
        earlier = {trial.user_attrs[JOB]: trial for trial in self.attempts()}.get(job)
        known = earlier.system_attrs[_FIXED] | earlier.params if earlier else {}
        attempt = optuna.create_trial(
            state=TrialState.RUNNING,
            user_attrs={JOB: job, SUPERVISOR: supervisor, WORKER: worker},
            system_attrs={_FIXED: {**parameters, **known}},
        )
        # Study.add_trial would not say which trial it has added; Study.ask would add one that has no job yet.
        trial_id = self.study._storage.create_new_trial(self.study._study_id, template_trial=attempt)
        trial = optuna.Trial(self.study, trial_id)
        for other in self.attempts():
            if other.number < trial.number and other.user_attrs[JOB] == job and not came_to_nothing(other):
                self.end(trial.number, SURPLUS)
                return None
        return trial

    def end(self, number: int, reason: str) -> None:
        """End an attempt without a result, unless it has ended.

        Args:
            number: the attempt's.
            reason: `DIED`, `STOPPED` or `SURPLUS`.
        """
        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        with suppress(UpdateFinishedTrialError):
            self.study._storage.set_trial_user_attr(trial_id, ENDED, reason)
            self.study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def waiting(jobs: Sequence[str], attempts: Sequence[FrozenTrial]) -> list[str]:
    """The jobs, in their order, that nobody works on and that have no result.

    Args:
        jobs: names of jobs.
        attempts: `Queue.attempts`.
    """
    started = {trial.user_attrs[JOB] for trial in attempts if not came_to_nothing(trial)}
    deaths = Counter(trial.user_attrs[JOB] for trial in attempts if trial.user_attrs.get(ENDED) == DIED)
    return [job for job in jobs if job not in started and deaths[job] < MOST_DEATHS]


def running(attempts: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The attempts that somebody works on."""
    return [trial for trial in attempts if trial.state == TrialState.RUNNING]


def came_to_nothing(attempt: FrozenTrial) -> bool:
    """Whether an attempt has ended without a result, so that its job is started again."""
    return attempt.state == TrialState.FAIL and ENDED in attempt.user_attrs
