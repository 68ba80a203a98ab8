"""Where in the second a clip lies: offsets that depend on seed, epoch and recording alone."""

import torch
from torch import Tensor

from audio_lrp.data.representation import NUM_SAMPLES


def _logical_shift(value: Tensor, bits: int) -> Tensor:
    """Shift int64 ``value`` right as if it were unsigned."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on int64, whose products wrap like unsigned ones."""
    value = (value ^ _logical_shift(value, 30)) * -0x40A7B892E31B1A47
    value = (value ^ _logical_shift(value, 27)) * -0x6B2FB644ECCEEE15
    return value ^ _logical_shift(value, 31)


def placement_offsets(index: Tensor, length: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Uniform offsets in ``[0, 8000 - length)`` for every clip, 0 where it fills the second.

    A hash of (seed, epoch, recording), not a generator: the offset of a clip does not depend on the batch it comes
    in, on the number of workers or processes, or on anything drawn before.

    Args:
        index: index of each recording in the corpus, int64 [B].
        length: number of samples of each clip, int64 [B].
        seed: the data module's seed.
        epoch: changes the placement from epoch to epoch.

    Returns:
        First sample of each clip, int64 [B].

    Example:
        >>> index, length = torch.arange(3), torch.tensor([8000, 7999, 5000])
        >>> offsets = placement_offsets(index, length, seed=0, epoch=0)
        >>> bool((offsets[:2] == 0).all() and 0 <= offsets[2] < 3000)
        True
    """
    key = _mix(torch.full_like(index, seed) * 0x9E3779B1 + epoch)
    bits = _mix(_mix(key + index) ^ key)
    return (_logical_shift(bits, 32) * (NUM_SAMPLES - length)) >> 32


def place(clip: Tensor, offset: Tensor) -> Tensor:
    """Move clips [B, 8000] that begin at sample 0 to begin at ``offset`` [B], zeros before.

    Example:
        >>> place(torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([2]))
        tensor([[0., 0., 1., 2.]])
    """
    source = torch.arange(clip.shape[1], device=clip.device) - offset[:, None]
    return clip.gather(1, source.clamp(min=0)).masked_fill(source < 0, 0.0)
