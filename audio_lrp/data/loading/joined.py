"""The clips of several corpora as one dataset."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch.utils.data import Dataset

from audio_lrp.data.corpora.corpus import Corpus
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.loading.dataset import ClipDataset


class JoinedDataset(Dataset[Batch]):
    """Clips of several datasets, one dataset after the other, read in whole batches.

    Indices of recordings and of speakers count on from one corpus to the next.

    Args:
        corpora: the corpora.
        parts: the dataset of each, in the same order.
    """

    def __init__(self, corpora: Sequence[Corpus], parts: Sequence[ClipDataset]) -> None:
        self.parts = list(parts)
        self._begins = np.cumsum([0, *map(len, parts)])
        self._first_index = np.cumsum([0, *(len(corpus.recordings) for corpus in corpora)])
        speakers = [len({item.speaker for item in corpus.recordings}) for corpus in corpora]
        self._first_speaker = np.cumsum([0, *speakers])

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> Batch:
        """The batch of the clips at ``positions``, in their order."""
        wanted = np.asarray(positions)
        owner = np.searchsorted(self._begins, wanted, side="right") - 1
        read = [
            self._read(number, (wanted[owner == number] - self._begins[number]).tolist())
            for number in np.unique(owner).tolist()
        ]
        # What was read corpus by corpus goes back to the places it was asked for.
        order = torch.from_numpy(np.argsort(owner, kind="stable").argsort())
        return Batch(*(torch.cat([getattr(batch, field.name) for batch in read])[order] for field in fields(Batch)))

    def _read(self, number: int, positions: list[int]) -> Batch:
        batch = self.parts[number].__getitems__(positions)
        batch.index += int(self._first_index[number])
        batch.speaker += int(self._first_speaker[number])
        return batch
