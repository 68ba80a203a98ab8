"""The batch that data modules hand to models and callbacks."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Batch:
    """A batch of clips in one input representation.

    Attributes:
        input: what the network sees, float32 [B, 1, 8000] (waveform) or [B, 1, 227, 227] (spectrogram).
        label: class index of each clip, int64 [B].
        speaker: index of each clip's speaker among the corpus's speakers in sorted order, int64 [B].
        offset: first sample of the clip inside the 8,000 samples, int64 [B].
        length: number of samples of the clip, int64 [B]; outside ``offset .. offset + length`` there is padding.
        index: index of the recording in the corpus, int64 [B].
    """

    input: Tensor
    label: Tensor
    speaker: Tensor
    offset: Tensor
    length: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)))

    def utterances(self) -> list[tuple[int, int]]:
        """Of each clip the first sample of the recording and the first one after it."""
        return list(zip(self.offset.tolist(), (self.offset + self.length).tolist(), strict=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by the data loader)."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))  # pragma: no cover: on GPUs
