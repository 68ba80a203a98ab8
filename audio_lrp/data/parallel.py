"""Work on many files on all cores, in order and in bounded memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH: Final = 16
"""Items that a thread takes at once: a task of its own for each would cost as much as hashing a small file."""

BATCHES_IN_MEMORY: Final = 16


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to all items in threads, as many as there are cores.

    Threads are enough for functions that spend their time in libraries which release Python's lock, as reading,
    hashing, decoding and resampling do.

    Args:
        function: what to apply.
        items: what to apply it to; at most `BATCH` x `BATCHES_IN_MEMORY` results wait for the caller.

    Yields:
        The results in the order of the items.
    """

    def apply(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + BATCH]]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for group in range(0, len(items), BATCH * BATCHES_IN_MEMORY):
            starts = range(group, min(group + BATCH * BATCHES_IN_MEMORY, len(items)), BATCH)
            for results in pool.map(apply, starts):
                yield from results
