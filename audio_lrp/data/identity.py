"""Hashes that tell recordings apart, whatever they are called and wherever they lie."""

from typing import Final

import torch
import xxhash
from torch import Tensor

from audio_lrp.data.corpora.corpus import Corpus
from audio_lrp.data.loading.dataset import ClipDataset

TRAINED_ON: Final = "trained_on"
"""Where a checkpoint's description keeps the identities of what its network was trained on."""


def trained_on(description: object) -> Tensor | None:
    """What a checkpoint's description says its network was trained on: identities, int64 [K]; None: it does not say."""
    known = description.get(TRAINED_ON) if isinstance(description, dict) else None
    return known if isinstance(known, Tensor) and known.dtype == torch.int64 else None


def identities(dataset: ClipDataset) -> Tensor:
    """A hash of the sound of each clip, also the same in a copy of the corpus, int64 [N]; 0 stands for silence."""
    samples, first, scale = dataset.clips.stored("energy")
    length = dataset.clips.window("energy")[1]
    hashes = [
        xxhash.xxh3_64_intdigest(samples[first[i] : first[i] + length[i]].tobytes()) >> 1 if scale[i] else 0
        for i in dataset.index.tolist()
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def speakers_among(known: Tensor, corpus: Corpus, dataset: ClipDataset) -> set[str]:
    """The speakers of a corpus of whom at least one clip of a dataset is among known ones.

    Args:
        known: identities of recordings, int64 [K].
        corpus: the corpus.
        dataset: clips of the corpus.
    """
    found = torch.isin(identities(dataset), known[known != 0])
    return {corpus.recordings[position].speaker for position in dataset.index[found.numpy()].tolist()}
