"""What makes a training that was interrupted resume as if it never had been."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.loading.workers import WorkerLoader


class ResumableLoader(WorkerLoader):
    """A data loader that begins an epoch at any of its batches.

    Args:
        *args: as of PyTorch's data loader.
        first_batch: asked at the beginning of every epoch, when its first batch is wanted; how many batches of the
            epoch's order to leave out.
        **kwargs: as of PyTorch's data loader.
    """

    def __init__(self, *args: Any, first_batch: Callable[[], int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator: nothing is asked of the sampler before Lightning has told it the epoch.
        yield from islice(super().__iter__(), self.first_batch(), None)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is the training loop's. The method tells Lightning that the loader finds it again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def seed_batch(*position: int) -> None:
    """Seed PyTorch's generators for one training batch.

    Args:
        *position: what tells the batch from all others, e.g. seed, epoch, number in the epoch, process.
    """
    torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]) >> 1)
