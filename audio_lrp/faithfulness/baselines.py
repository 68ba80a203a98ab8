"""Baselines: what stands in the place of removed values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from audio_lrp.faithfulness.draws import drawn


class Baseline(ABC):
    """Replaces removed values.

    Removing a value takes its information away, but what takes its place is itself an input the network never saw;
    a conclusion that holds for several baselines is worth more than one for a single. Subclasses give one reference
    value for each value of the input, or override `fill` where the replacement depends on what is left.

    Args:
        silence: the input value that stands for silence: 0 for waveforms, the floor for spectrograms. What equals it
            is padding and by default no candidate for removal; loudness is the distance from it.
    """

    def __init__(self, silence: float = 0.0) -> None:
        self.silence = silence

    @abstractmethod
    def reference(
        self,
        input: Tensor,  # noqa: A002
        candidates: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Replacement of each value, broadcastable to the input, computed once for a batch.

        Args:
            input: [B, C, ...].
            candidates: which values may be removed, bool of the same shape.
            generators: one for each example, for random replacements: the same numbers in every batch and on every
                device.
        """

    def fill(self, input: Tensor, removed: Tensor, reference: Tensor) -> Tensor:  # noqa: A002
        """The inputs without what is removed.

        Args:
            input: [R, C, ...].
            removed: bool of the same shape.
            reference: these inputs' part of what `reference` returned.

        Returns:
            New inputs [R, C, ...].
        """
        return torch.where(removed, reference, input)


class Silence(Baseline):
    """Silence: 0 for waveforms, the floor for spectrograms.

    Example:
        >>> signal = torch.tensor([[[3.0, 1.0, 2.0]]])
        >>> Silence().fill(signal, signal > 2, torch.zeros(1, 1, 1))
        tensor([[[0., 1., 2.]]])
    """

    def reference(
        self,
        input: Tensor,  # noqa: A002
        candidates: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Silence for each value [B, 1, ...]."""
        return input.new_full([len(input)] + [1] * (input.ndim - 1), self.silence)


class MatchedNoise(Baseline):
    """Gaussian noise with the mean and variance of what may be removed of each input: its level stays the same."""

    def reference(
        self,
        input: Tensor,  # noqa: A002
        candidates: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Noise of the input's shape, the same for all orders and fractions."""
        noise = drawn(torch.randn, input.shape[1:], generators, like=input)
        axes = tuple(range(1, input.ndim))
        count = candidates.sum(dim=axes, keepdim=True).clamp(min=1)
        mean = (input * candidates).sum(dim=axes, keepdim=True) / count
        variance = ((input - mean).abs().square() * candidates).sum(dim=axes, keepdim=True) / count
        return mean + variance.sqrt() * noise


class Interpolation(Baseline):
    """A straight line along time, between the nearest values that are left on either side.

    Removed values at an end repeat the nearest one that is left; where nothing is left there is silence. In
    spectrograms each frequency bin is interpolated on its own.

    Example:
        >>> signal = torch.tensor([[[3.0, 7.0, 7.0, 6.0, 7.0]]])
        >>> Interpolation().fill(signal, signal == 7, torch.zeros(1, 1, 1))
        tensor([[[3., 4., 5., 6., 6.]]])
    """

    def reference(
        self,
        input: Tensor,  # noqa: A002
        candidates: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Silence, for rows of which nothing is left [B, 1, ...]."""
        return Silence(self.silence).reference(input, candidates, generators)

    def fill(self, input: Tensor, removed: Tensor, reference: Tensor) -> Tensor:  # noqa: A002
        """The inputs with the gaps along the last axis bridged [R, C, ...]."""
        length = input.shape[-1]
        positions = torch.arange(length, device=input.device).expand_as(removed)
        left = positions.masked_fill(removed, -1).cummax(dim=-1).values
        right = positions.masked_fill(removed, length).flip(-1).cummin(dim=-1).values.flip(-1)
        nothing_left = right[..., :1] == length
        start = torch.where(left < 0, right, left).clamp(max=length - 1)
        end = torch.where(right == length, left, right).clamp(min=0)
        exact = torch.promote_types(input.dtype, torch.float32)  # bfloat16 does not tell samples beyond the 256th apart
        weight = (positions - start).to(exact) / (end - start).clamp(min=1)
        before, after = input.gather(-1, start), input.gather(-1, end)
        bridged = before + (after - before) * weight.to(input.dtype)
        return torch.where(removed, torch.where(nothing_left, reference, bridged), input)
