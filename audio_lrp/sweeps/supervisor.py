"""The process that keeps a sweep's workers alive and shows how far they are."""

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Final, Never

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

from audio_lrp.errors import UserError
from audio_lrp.sweeps.study import (
    is_finished,
    latest,
    repeat,
    running,
    running_by_worker,
    startable,
    told_as_user_errors,
    unsigned,
)
from audio_lrp.sweeps.sweep_file import Sweep
from audio_lrp.sweeps.worker import DISK_FULL, Job, has_ended, log_file, work, worker_name

_POLL: Final = 1.0
"""Seconds between two looks at the sweep."""
_MOST_IDLE_DEATHS: Final = 3


class _Crew:
    """The workers of this machine.

    Args:
        job: what they do.
        study: the study that they share.
    """

    def __init__(self, job: Job, study: optuna.Study) -> None:
        self._job = job
        self._study = study
        self._spawn = multiprocessing.get_context("spawn")  # a fork would share PyTorch's and the database's state
        self._alive: dict[int, SpawnProcess] = {}
        """By the share of the machine that a worker has taken."""
        self._idle_deaths = 0

    def keep_up(self, sweep: Sweep) -> None:
        """Bury the dead, have their trials repeated, and start as many workers as there is work for."""
        for index, process in list(self._alive.items()):
            if not process.is_alive():
                del self._alive[index]
                self._bury(process)
        busy = sum(len(running(self._study, worker_name(process.pid or 0))) for process in self._alive.values())
        wanted = min(self._job.workers, startable(self._study, sweep, self._job.total) + busy)
        for index in range(self._job.workers):
            if index not in self._alive and len(self._alive) < wanted:
                self._alive[index] = self._spawn.Process(target=work, args=(self._job, index))
                self._alive[index].start()

    def _bury(self, process: SpawnProcess) -> None:
        assert process.pid is not None
        lost = running(self._study, worker_name(process.pid))
        for trial in lost:
            repeat(self._study, trial)
        if process.exitcode == DISK_FULL:
            raise UserError(
                f"the disk is full in {self._job.folder}: free space there, then type the same command to go on with "
                "the sweep"
            )
        if not process.exitcode or lost:
            return
        self._idle_deaths += 1  # killed between two trials: bad luck, but not again and again
        if process.exitcode > 0 or self._idle_deaths > _MOST_IDLE_DEATHS:
            log = log_file(self._job.folder, process.pid)
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise UserError(f"a worker of the sweep could not work ({''.join(last)}): its output is in {log}")

    def stop(self) -> None:
        """End all workers at once; their trials are repeated when the sweep goes on."""
        for process in self._alive.values():
            process.kill()
        for process in self._alive.values():
            process.join()
            for trial in running(self._study, worker_name(process.pid or 0)):
                repeat(self._study, trial)


def supervise(study: optuna.Study, sweep: Sweep, job: Job) -> None:
    """Run a sweep to its end, with the help of whoever else shares its storage.

    Args:
        study: the sweep's study.
        sweep: what is searched.
        job: what the workers are told.

    Raises:
        UserError: the storage is lost, or no worker can work.
        KeyboardInterrupt: the user has stopped the sweep, and its workers have ended.
    """
    with told_as_user_errors(job.storage), _crew(job, study) as crew:
        for worker, trials in running_by_worker(study).items():
            for trial in trials if has_ended(worker) else ():  # of a sweep that was killed: no need to wait
                repeat(study, trial)
        bar: tqdm[Never] = tqdm(total=job.total, desc="sweep", unit="trial", disable=None)
        while not is_finished(study, sweep, job.total):
            optuna.storages.fail_stale_trials(study)
            for trial in unsigned(study):
                repeat(study, trial)
            crew.keep_up(sweep)
            _show(bar, study, sweep)
            time.sleep(_POLL)
        _show(bar, study, sweep)
        bar.close()


@contextmanager
def _crew(job: Job, study: optuna.Study) -> Iterator[_Crew]:
    crew = _Crew(job, study)
    try:
        yield crew
    finally:
        with contextlib.suppress(Exception):  # a lost storage has been told of by then
            crew.stop()


def _show(bar: "tqdm[Never]", study: optuna.Study, sweep: Sweep) -> None:
    trials = latest(study.get_trials(deepcopy=False))
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    facts = {"running": counts[TrialState.RUNNING], "pruned": counts[TrialState.PRUNED]}
    facts |= {"failed": counts[TrialState.FAIL]} if counts[TrialState.FAIL] else {}
    best = f"{max(values) if sweep.maximize else min(values):.4g}" if values else "-"
    bar.n = sum(trial.state.is_finished() for trial in trials)
    bar.set_postfix({**facts, f"best {sweep.metric}": best})
