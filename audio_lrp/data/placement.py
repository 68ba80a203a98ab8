"""Where in the second a clip lies: offsets that depend on the recording, the seed and the epoch alone."""

from typing import Literal

import torch
from torch import Tensor, nn

from audio_lrp.data.representation import NUM_SAMPLES

Placement = Literal["random", "fixed", "centered"]
"""How clips are placed, see :class:`~audio_lrp.data.CorpusDataModule`."""


def _logical_shift(value: Tensor, bits: int) -> Tensor:
    """Shift int64 ``value`` right as if it were unsigned."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on int64, whose products wrap like unsigned ones."""
    value = (value ^ _logical_shift(value, 30)) * -0x40A7B892E31B1A47
    value = (value ^ _logical_shift(value, 27)) * -0x6B2FB644ECCEEE15
    return value ^ _logical_shift(value, 31)


def _random_bits(index: Tensor, seed: int, epoch: int) -> Tensor:
    """32 random bits for every recording, int64 [B].

    A hash of (seed, epoch, recording), not a generator: those of a clip do not depend on the batch it comes in, on
    the number of workers or processes, or on anything drawn before.
    """
    key = _mix(torch.full_like(index, seed) * 0x9E3779B1 + epoch)
    return _logical_shift(_mix(_mix(key + index) ^ key), 32)


def random_offsets(index: Tensor, length: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Uniform offsets in ``[0, 8000 - length)`` for every clip, 0 where it fills the second.

    Args:
        index: index of each recording in the corpus, int64 [B].
        length: number of samples of each clip, int64 [B].
        seed: the data module's seed.
        epoch: changes the placement from epoch to epoch.

    Returns:
        First sample of each clip, int64 [B].

    Example:
        >>> index, length = torch.arange(3), torch.tensor([8000, 7999, 5000])
        >>> offsets = random_offsets(index, length, seed=0, epoch=0)
        >>> bool((offsets[:2] == 0).all() and 0 <= offsets[2] < 3000)
        True
    """
    return (_random_bits(index, seed, epoch) * (NUM_SAMPLES - length)) >> 32


def random_shifts(index: Tensor, largest: int, *, seed: int, epoch: int) -> Tensor:
    """Uniform shifts in ``[-largest, largest]`` for every clip, int64 [B]; arguments as in :func:`random_offsets`.

    Example:
        >>> random_shifts(torch.arange(1000), 1, seed=0, epoch=0).unique().tolist()
        [-1, 0, 1]
    """
    return ((_random_bits(index, seed, epoch) * (2 * largest + 1)) >> 32) - largest


def centered_offsets(clip: Tensor) -> Tensor:
    """Offsets that put the centroid of each clip's amplitude into the middle of the second.

    Silence before or after the speech does not move it: words lie upon one another however they were cut. It is
    computed in integers, whose sums do not depend on their order, and so not on the batch.

    Args:
        clip: samples of any scale, each clip from sample 0, zeros after it, [B, 8000].

    Returns:
        First sample of each clip, int64 [B], negative where its beginning does not fit into the second; 0 for silence.

    Example:
        >>> clip = torch.zeros(1, 8000)
        >>> clip[0, 300:401] = 1.0  # a sound after a while of silence
        >>> centered_offsets(clip)
        tensor([3650])
    """
    amplitude = clip.abs()
    peak = amplitude.amax(dim=1, keepdim=True)
    weight = (amplitude / peak.masked_fill(peak == 0, 1) * 32767).round().long()
    total = weight.sum(dim=1)
    centroid = (weight * torch.arange(clip.shape[1], device=clip.device)).sum(dim=1) // total.clamp(min=1)
    return torch.where(total > 0, NUM_SAMPLES // 2 - centroid, 0)


def part_within_second(offset: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """The part of clips of ``length`` [B] at ``offset`` [B] that lies in the second: its first sample and its length.

    Example:
        >>> part_within_second(torch.tensor([-100, 2000, 7000, -400]), torch.tensor([500, 500, 5000, 100]))
        (tensor([   0, 2000, 7000,    0]), tensor([ 400,  500, 1000,    0]))
    """
    first = offset.clamp(min=0)
    return first, ((offset + length).clamp(max=NUM_SAMPLES) - first).clamp(min=0)


def place(clip: Tensor, offset: Tensor) -> Tensor:
    """Move clips [B, 8000] that begin at sample 0 to begin at ``offset`` [B], zeros where they leave room.

    Offsets lie between -8000 and 8000.

    Example:
        >>> place(torch.tensor([[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 3.0, 0.0]]), torch.tensor([2, -1]))
        tensor([[0., 0., 1., 2.],
                [2., 3., 0., 0.]])
    """
    length = clip.shape[1]
    padded = nn.functional.pad(clip, (length, length))
    return padded.unfold(1, length, 1)[torch.arange(len(clip), device=clip.device), length - offset]
