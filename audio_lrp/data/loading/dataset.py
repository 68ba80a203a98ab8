"""Clips of one split as a dataset that reads whole batches at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from audio_lrp.data.corpora.corpus import Corpus
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.packing.cache import LongClipPolicy, PackedClips
from audio_lrp.data.tasks import Task


class ClipDataset(Dataset[Batch]):
    """The clips of one split with their labels.

    An item is a :class:`Batch` whose input holds the clips in int16 scale, each from sample 0, zeros after it,
    [B, 8000]; the data module places them and computes the representation on the batch's device.

    Args:
        clips: the packed recordings of the corpus.
        index: which recordings belong to the split, int64 [N].
        label: their class indices, -1 where unknown, int64 [N].
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

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        task: Task,
        clips: PackedClips,
        index: Sequence[int],
        long_clips: LongClipPolicy,
        read: bool,
    ) -> "ClipDataset":
        """The clips of some recordings of a corpus, labelled for a task; ``index`` counts ``corpus.recordings``."""
        recordings = corpus.recordings
        speakers = {name: number for number, name in enumerate(sorted({item.speaker for item in recordings}))}
        labels = [task.label(recordings[position]) for position in index]
        return cls(
            clips,
            index=np.asarray(index, dtype=np.int64),
            label=np.asarray([-1 if label is None else label for label in labels], dtype=np.int64),
            speaker=np.asarray([speakers[recordings[position].speaker] for position in index], dtype=np.int64),
            long_clips=long_clips,
            read=read,
        )

    def __len__(self) -> int:
        return len(self.index)

    def spread(self, count: int, seed: int) -> list[int]:
        """Positions of a fixed choice of clips, spread evenly over the classes; of all where there are fewer."""
        order = np.random.default_rng(seed).permutation(len(self))
        rank_in_class = np.empty(len(order), dtype=np.int64)
        for label in np.unique(self.label):
            members = np.flatnonzero(self.label[order] == label)
            rank_in_class[members] = np.arange(len(members))
        chosen: list[int] = order[np.lexsort((self.label[order], rank_in_class))][:count].tolist()
        return chosen

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
