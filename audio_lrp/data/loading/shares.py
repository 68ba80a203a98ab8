"""How several processes share the clips of a validation or a test."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class UnrepeatedBatches(DistributedSampler[Any]):
    """Batches of one of several processes (DDP), so that together they see every clip once.

    PyTorch's and Lightning's samplers repeat clips until all processes have equally many, which changes accuracy. Here
    clips are shared out as they are, and into equally many batches, the last ones with a clip less: with normalisation
    layers DDP exchanges their buffers in every forward pass, so a process with a batch more would wait for ever. Where
    there are fewer clips than processes, clips are repeated after all.

    The type tells Lightning that the clips are shared out already. An item is a list of positions, so the data loader
    takes it with ``batch_size=None``.

    Args:
        dataset: the clips; only their number matters.
        processes: number of processes.
        rank: this one's, from 0.
        batch_size: clips in a batch. With 1 some batches hold 2, where the number of processes does not divide that of
            the clips.

    Example:
        >>> clips = [None] * 7
        >>> [list(UnrepeatedBatches(clips, 2, rank, batch_size=3)) for rank in (0, 1)]
        [[[0, 2], [4, 6]], [[1, 3], [5]]]
    """

    def __init__(self, dataset: Dataset[Any], processes: int, rank: int, batch_size: int) -> None:
        super().__init__(dataset, processes, rank, shuffle=False)
        clips = len(dataset)  # type: ignore[arg-type]
        shared = np.resize(np.arange(clips), max(clips, processes))
        fewest, most = len(shared) // processes, -(-len(shared) // processes)
        batches = min(fewest, -(-most // batch_size))
        self.batches: list[list[int]] = [part.tolist() for part in np.array_split(shared[rank::processes], batches)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
