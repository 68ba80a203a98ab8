"""A worker: a process that does one job after the other until none is left to start."""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from audio_lrp.errors import NO_SPACE, UserError, with_causes
from audio_lrp.jobs.queue import FAILURE, Queue, waiting
from audio_lrp.utils.allocator import keep_freed_memory
from audio_lrp.utils.processes import process_name

DISK_FULL: Final = 28
"""Exit code of a worker that has no space for its job's files."""


class Work(Protocol):
    """What a study or a sweep has to do; it is sent to the workers' processes."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def folder(self) -> Path:
        """Where the workers' logs lie."""

    @property
    def storage(self) -> str:
        """URL of the queue's storage."""

    @property
    def jobs(self) -> Sequence[str]:
        """Names of all jobs, in the order in which they are started."""

    def open(self) -> optuna.Study:
        """The study that keeps the attempts."""

    def unfinished(self, attempts: Sequence[FrozenTrial]) -> Sequence[str]:
        """The jobs that are still wanted, whether somebody works on them or not."""

    def parameters(self, job: str) -> Mapping[str, Any]:
        """The parameters that a job has, whoever does it; the others are drawn."""

    def run(self, attempt: optuna.Trial, job: str) -> float:
        """Do a job, in this process.

        Returns:
            The attempt's value.

        Raises:
            TrialPruned: the attempt was stopped early.
            Exception: the job has failed.
        """

    def progress(self, attempts: Sequence[FrozenTrial]) -> tuple[int, str]:
        """How many jobs are finished, and what to say beside the progress bar."""


def log_file(work: Work, process_id: int) -> Path:
    """Where a worker's output goes."""
    return work.folder / f"worker-{os.uname().nodename}-{process_id}.log"


def run_worker(work: Work, ignored: frozenset[int], supervisor: str, workers: int, index: int) -> None:
    """Do jobs in a process of its own.

    Args:
        work: what to do.
        ignored: see `Queue`.
        supervisor: name of the process that started this one.
        workers: how many workers share this machine.
        index: which of them this is.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own, for all processes, would be left behind where this one is killed
    keep_freed_memory()
    with output_to(log_file(work, os.getpid())):
        try:
            _take_share_of_machine(workers, index)
            do_jobs(work, Queue(work.open(), ignored), supervisor)
        except Exception:  # Python would print it when the output is the supervisor's again
            traceback.print_exc()
            sys.exit(1)


def _end_with_parent() -> None:
    """End this process when its supervisor has ended, however it was killed: nobody would know of a worker left."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Append to a file what the block prints, also from libraries in C."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    with path.open("ab") as log:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        for number, former in zip((1, 2), kept, strict=True):
            with suppress(OSError):  # of a full disk others tell
                streams[number - 1].flush()
            os.dup2(former, number)
            os.close(former)


def do_jobs(work: Work, queue: Queue, supervisor: str) -> None:
    """Do jobs in this process until none is left to start."""
    worker = process_name()
    while jobs := waiting(work.unfinished(attempts := queue.attempts()), attempts):
        attempt = queue.start(jobs[0], supervisor, worker, work.parameters(jobs[0]))
        if attempt is None:
            continue
        with suppress(UpdateFinishedTrialError):  # another supervisor took this worker for dead
            _do(work, queue, attempt, jobs[0])
        gc.collect()  # trainers and their models are full of cycles: their memory is the next job's


def _do(work: Work, queue: Queue, attempt: optuna.Trial, job: str) -> None:
    value, state = None, TrialState.FAIL
    try:
        value, state = work.run(attempt, job), TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except UpdateFinishedTrialError:
        raise
    except Exception as error:
        if any(isinstance(each, OSError) and each.errno in NO_SPACE for each in with_causes(error)):
            sys.exit(DISK_FULL)  # as if killed: the job is started again
        reason = " ".join(str(error).split())
        kind = "" if isinstance(error, UserError) else type(error).__name__
        attempt.set_user_attr(FAILURE, ": ".join(filter(None, (kind, reason))))
        logging.getLogger(__name__).exception("%s has failed", job)
    queue.study.tell(attempt, value, state, skip_if_finished=True)


def _take_share_of_machine(workers: int, index: int) -> None:
    """Give the worker one GPU, or its share of the CPU's cores; what the user has set stays."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    if "OMP_NUM_THREADS" not in os.environ:
        # As many as PyTorch would take alone: it counts no core that a scheduler keeps from this process.
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
