"""A worker of a sweep: a process that runs one trial after the other until none is left to begin."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from audio_lrp.errors import NO_SPACE, UserError, with_causes
from audio_lrp.sweeps.study import give_up, is_retry, open_study, rank, sign, startable
from audio_lrp.sweeps.sweep_file import Sweep, make_sweep
from audio_lrp.sweeps.trial import run_trial
from audio_lrp.utils.allocator import keep_freed_memory

PARAMETERS = "parameters"
"""Attribute of a trial that holds its point: the parameters' values as its command has them."""
FAILURE = "failure"
"""Attribute of a trial that holds why it crashed."""

DISK_FULL = 28
"""Exit code of a worker that has no space for its trial's files."""


class _SurplusTrialError(Exception):
    """Two workers wanted to begin the sweep's last trial."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; plain data, as it is handed to another process.

    Attributes:
        name: the sweep's name.
        content: content of the sweep's file.
        storage: URL of the storage.
        total: number of the sweep's trials.
        folder: the sweep's folder.
        workers: how many workers share this machine.
    """

    name: str
    content: Mapping[str, Any]
    storage: str
    total: int
    folder: Path
    workers: int


def worker_name(process_id: int) -> str:
    """The name of a worker among those of all machines."""
    return f"{socket.gethostname()}-{process_id}"


def has_ended(worker: str) -> bool:
    """Whether a worker of this machine has ended; of another machine's nobody here knows."""
    host, _, process = worker.rpartition("-")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's process
        return False
    return False


def log_file(folder: Path, process_id: int) -> Path:
    """Where a worker's output goes."""
    return folder / f"worker-{worker_name(process_id)}.log"


def work(job: Job, index: int) -> None:
    """What a worker's process does: see `run_trials`.

    Args:
        job: what to do.
        index: which of the machine's workers this is.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    log = os.open(log_file(job.folder, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    _take_share_of_machine(job.workers, index)
    os.environ.setdefault("WANDB_RUN_GROUP", job.name)
    sweep = make_sweep(job.content)
    study = open_study(job.storage, job.name, sweep, job.content)
    run_trials(study, sweep, job)


def _end_with_parent() -> None:
    """End this process when the sweep's has ended, however it was killed: nobody would know of a worker left."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_trials(study: optuna.Study, sweep: Sweep, job: Job) -> None:
    """Run trials in this process until none is left to begin.

    Args:
        study: the sweep's study.
        sweep: what is searched.
        job: what to do.
    """
    begun: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        begun.append(trial.number)
        return _objective(study, trial, sweep, job)

    while startable(study, sweep, job.total):
        begun.clear()
        try:
            # Each call begins with ending the trials of dead workers, and keeps telling that its own is alive.
            study.optimize(objective, n_trials=1, catch=(Exception,))
        except Exception:
            # Optuna takes no value for a trial that was ended meanwhile: others held this worker for dead, because the
            # machine was asleep or the clock was set.
            if not begun or not study.get_trials()[begun[0]].state.is_finished():
                raise
            logging.getLogger(__name__).exception("trial %d was given to another worker", begun[0])


def _objective(study: optuna.Study, trial: optuna.Trial, sweep: Sweep, job: Job) -> float:
    trials = study.get_trials(deepcopy=False)
    if rank(trials, trial.number) >= job.total and not is_retry(trials[trial.number]):
        give_up(trial)
        raise _SurplusTrialError
    sign(trial, worker_name(os.getpid()))
    point = {name: parameter.draw(trial, name) for name, parameter in sweep.parameters.items()}
    trial.set_user_attr(PARAMETERS, point)
    try:
        return run_trial(trial, sweep, point, job.folder)
    except optuna.TrialPruned:
        raise
    except Exception as error:
        if _disk_is_full(error):
            sys.exit(DISK_FULL)  # as if killed: the trial is repeated
        reason = " ".join(str(error).split())
        trial.set_user_attr(FAILURE, reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}")
        logging.getLogger(__name__).exception("trial %d has failed", trial.number)
        raise


def _disk_is_full(error: BaseException) -> bool:
    return any(isinstance(each, OSError) and each.errno in NO_SPACE for each in with_causes(error))


def _take_share_of_machine(workers: int, index: int) -> None:
    """Give the worker one GPU, or its share of the CPU's cores; what the user has set stays."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    if "OMP_NUM_THREADS" not in os.environ:
        # As many as PyTorch would take alone: it counts no core that a scheduler keeps from this process.
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
