"""Work on many files on all cores, in order and in bounded memory."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from audio_lrp.utils.allocator import keep_freed_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH: Final = 32
"""Items that a thread or process takes at once: a task of its own for each would cost as much as a small file."""

BATCHES_IN_MEMORY: Final = 8
"""Batches that are worked on or wait for the caller; one for each core where there are more cores."""

WORTH_PROCESSES: Final = 1000
"""Items from which on processes pay, which take a tenth of a second to start."""


def usable_cores() -> int:
    """The cores that this process may run on: of a machine that a scheduler has divided, its share alone."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to all items, batch by batch, in threads, as many as there are cores.

    Threads are enough for functions that spend their time in a library that releases Python's lock, as hashing does.

    Args:
        function: what to apply; it gets up to `BATCH` items and gives a result for each.
        items: what to apply it to; no more batches than `BATCHES_IN_MEMORY` says wait for the caller.

    Yields:
        The results in the order of the items.
    """

    def apply(start: int) -> list[Result]:
        return [*function(items[start : start + BATCH])]

    cores = usable_cores()
    in_memory = max(BATCHES_IN_MEMORY, cores)
    with ThreadPoolExecutor(cores) as pool:
        for group in range(0, len(items), BATCH * in_memory):
            starts = range(group, min(group + BATCH * in_memory, len(items)), BATCH)
            for results in pool.map(apply, starts):
                yield from results


def map_in_processes(function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to all items, batch by batch, in processes, as many as there are cores.

    Resampling keeps Python's lock, and decoding takes it up and drops it so often that threads stand in each other's
    way. The processes are those of a :class:`~torch.utils.data.DataLoader`, and end when the one that started them
    is killed. Few items are worked on where they are, and all are where processes cannot be forked.

    Args:
        function: what to apply; it gets up to `BATCH` items and gives a result for each.
        items: what to apply it to; no more batches than `BATCHES_IN_MEMORY` says wait for the caller.

    Yields:
        The results in the order of the items.
    """
    loader = DataLoader(
        _Results(function, items),
        batch_size=BATCH,
        collate_fn=list,
        worker_init_fn=_prepare_process,
        generator=torch.Generator(),  # or a draw from the global one would change what is drawn later
        **_workers(len(items)),
    )
    for results in loader:
        for result in results:
            if isinstance(result, _Failure):
                raise result.error
            yield result


@dataclass(frozen=True)
class _Failure:
    """An error on its way to the caller: DataLoader would reword it, and loses a file's name."""

    error: Exception


def _workers(count: int) -> dict[str, Any]:
    """DataLoader's arguments for working on so many items."""
    cores = usable_cores()
    can_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
    if not can_fork or cores == 1 or count < WORTH_PROCESSES or not _semaphores_work():
        return {"num_workers": 0}
    processes = min(cores, -(-count // BATCH))
    each = max(1, (BATCHES_IN_MEMORY - 1) // processes)  # the caller has a batch, too
    return {"num_workers": processes, "prefetch_factor": each, "multiprocessing_context": "fork"}


def _semaphores_work() -> bool:
    """Whether processes can be coordinated: not where ``/dev/shm`` is full, read-only or missing."""
    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True


class _Results(Dataset[Any]):
    """Results of a function, computed when they are asked for."""

    def __init__(self, function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item]) -> None:
        self.function: Callable[[Any], Iterable[Any]] = function
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        try:
            return [*self.function(self.items[indices[0] : indices[-1] + 1])]
        except Exception as error:
            return [_Failure(error)]


def _prepare_process(_: int) -> None:
    """Have the kernel kill this process when its parent ends, and the process keep the memory it gets.

    DataLoader's processes look out for their parent themselves, but wait for ever for somebody to take what they have
    to give.
    """
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    keep_freed_memory()
