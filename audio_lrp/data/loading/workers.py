"""Worker processes of data loaders, and what is said where they cannot start or send a batch."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final, NoReturn

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from audio_lrp.data.loading.batch import Batch
from audio_lrp.errors import UserError

SHARED_MEMORY: Final = Path("/dev/shm")
"""Where workers put their batches."""


class WorkerLoader(DataLoader[Batch]):
    """A data loader that says what its worker processes lack to start; give it `answer_with_errors`."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            return super().__iter__()
        except OSError as error:
            raise _refused("worker processes cannot start", error) from error


def answer_with_errors(_: int) -> None:
    """Let this worker process answer with the error where it cannot send a batch; a loader's ``worker_init_fn``.

    Batches are sent by a thread of the standard library's, which only prints its errors: the training would wait for
    ever.
    """
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    # Used by the thread alone that hands over memory, to complain when whoever it is for has ended.
    sys.excepthook = lambda *_: None


class _Unsent(ExceptionWrapper):
    """What a data loader gets in the place of a batch that could not be sent, and raises."""

    def __init__(self, error: UserError) -> None:
        self.error = error

    def reraise(self) -> NoReturn:
        raise self.error


def _send_error(queue: "Queue[Any]", error: BaseException, item: Any) -> None:
    number, _ = item
    queue.put((number, _Unsent(_refused("a worker process cannot send its batch", error))))


def _refused(what: str, error: BaseException) -> UserError:
    """The error for workers that the system refuses something, and the fix."""
    reason = str(error).partition("\n")[0]
    if os.strerror(errno.EMFILE) in reason:
        fix = "allow more open files, ulimit -n 4096"
    elif SHARED_MEMORY.is_dir():
        memory = shutil.disk_usage(SHARED_MEMORY)
        sizes = f"{memory.free / 1e6:,.1f} of its {memory.total / 1e6:,.1f} MB are free"
        fix = f"{SHARED_MEMORY} must be writable and large enough, {sizes}; in a container --shm-size=1g"
    else:
        fix = f"there is no {SHARED_MEMORY}, where they put their batches"
    return UserError(f"{what} ({reason}): {fix}, or read without workers, --data.num_workers 0")
