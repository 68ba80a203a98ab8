"""Clips of one split as a dataset that reads whole batches at once."""

import numpy as np
import torch
from torch.utils.data import Dataset

from audio_lrp.data.batch import Batch
from audio_lrp.data.cache import LongClipPolicy, PackedClips


class ClipDataset(Dataset[Batch]):
    """The clips of one split with their labels.

    An item is a :class:`Batch` whose input holds the clips in int16 scale, each from sample 0, zeros after it,
    [B, 8000]; the data module places them and computes the representation on the batch's device.

    Args:
        clips: the packed recordings of the corpus.
        index: which recordings belong to the split, int64 [N].
        label: their class indices, int64 [N].
        speaker: their speakers' indices, int64 [N].
        long_clips: what to do with clips longer than a second.
        read: read the samples; else a batch's input is empty, [B, 0], and has to be filled by its indices.
    """

    def __init__(
        self,
        clips: PackedClips,
        index: np.ndarray,
        label: np.ndarray,
        speaker: np.ndarray,
        long_clips: LongClipPolicy,
        read: bool = True,
    ) -> None:
        self.clips = clips
        self.index = index
        self.label = label
        self.speaker = speaker
        self.long_clips = long_clips
        self.read = read
        self._lengths = clips.window(long_clips)[1]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int | list[int]) -> Batch:
        return self.__getitems__([position] if isinstance(position, int) else position)

    def __getitems__(self, positions: list[int]) -> Batch:
        """The batch of the clips at ``positions``; the data loader calls this instead of one ``__getitem__`` a clip."""
        index = self.index[positions]
        samples = self.clips.gather(index, self.long_clips)[0] if self.read else np.zeros((len(index), 0), np.float32)
        return Batch(
            input=torch.from_numpy(samples),
            label=torch.from_numpy(self.label[positions]),
            speaker=torch.from_numpy(self.speaker[positions]),
            offset=torch.zeros(len(positions), dtype=torch.int64),
            length=torch.from_numpy(self._lengths[index]),
            index=torch.from_numpy(index),
        )
