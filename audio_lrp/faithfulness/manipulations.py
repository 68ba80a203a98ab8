"""The paper's manipulations of spectrograms: does the network hear pitch, or something else?

Becker et al. (arXiv 1807.03418v2) scale the frequency axis of spectrograms so that a voice takes on the other gender's
pitch, and the accuracy of a gender classifier breaks down. Controls tell what broke it: scaling away from the other
gender, scaling there and back (what interpolation and the lost top of the band cost), and scaling of time.

The paper's other manipulation, samples of waveforms removed at random among the non-zero ones, by amplitude or by
relevance, is `audio_lrp.faithfulness.perturbation_curves` with its defaults.
"""

from typing import Final

import torch
from torch import Tensor

from audio_lrp.errors import UserError

PITCH_FACTORS: Final = (1.5, 0.66)
"""Factors that give male (class 0) and female (class 1) voices the other gender's pitch (arXiv 1807.03418v2)."""


def scale_frequency(spectrogram: Tensor, factor: Tensor, *, silence: float) -> Tensor:
    """Scale the frequency axis: what was at f Hz moves to ``factor * f`` Hz.

    Rows are interpolated linearly. What moves beyond the top is lost; above what comes down there is silence.

    Args:
        spectrogram: [B, channels, F, T], row 0 at 0 Hz.
        factor: of each sample, above 0 [B].
        silence: the value that stands for silence.

    Returns:
        The scaled spectrograms, same shape.

    Raises:
        UserError: an argument of the wrong shape or range.

    Example:
        >>> tone = torch.zeros(1, 1, 9, 1)
        >>> tone[:, :, 4] = 1.0
        >>> scale_frequency(tone, torch.tensor([1.5]), silence=0.0).argmax(dim=2).item()
        6
    """
    origin = torch.zeros(len(factor))
    return _scaled(spectrogram, factor, 2, origin, 0.0, silence)


def scale_time(spectrogram: Tensor, factor: Tensor, *, centre: Tensor, silence: float) -> Tensor:
    """Scale the time axis about the middle of each utterance, which moves to the middle of the spectrogram.

    Frames are interpolated linearly. Above factor 1 the utterance grows longer, and what grows beyond the ends is lost.

    Args:
        spectrogram: [B, channels, F, T].
        factor: of each sample, above 0 [B].
        centre: middle of each utterance, in frames from the first [B].
        silence: the value that stands for silence.

    Returns:
        The scaled spectrograms, same shape.

    Raises:
        UserError: an argument of the wrong shape or range.
    """
    middle = (spectrogram.shape[-1] - 1) / 2
    return _scaled(spectrogram, factor, 3, centre, middle, silence)


def _scaled(
    spectrogram: Tensor, factor: Tensor, axis: int, origin: Tensor, destination: float, silence: float
) -> Tensor:
    """Scale an axis so that place ``origin`` [B] comes to lie at ``destination``."""
    if spectrogram.ndim != 4 or factor.shape != spectrogram.shape[:1] or origin.shape != factor.shape:
        raise UserError(
            f"spectrograms of shape {list(spectrogram.shape)} with factors {list(factor.shape)} and places "
            f"{list(origin.shape)}: pass spectrograms [B, channels, F, T] and one of the others for each"
        )
    if not (factor > 0).all():
        raise UserError(f"factors are {factor.tolist()}: scale by numbers above 0")
    size = spectrogram.shape[axis]
    device = spectrogram.device
    place = torch.arange(size, dtype=torch.float64, device=device) - destination
    source = place / factor.to(device, torch.float64)[:, None] + origin.to(device, torch.float64)[:, None]
    below = source.floor().clamp(0, size - 1)
    weight = _along(axis, source - below).to(spectrogram.dtype)
    outside = _along(axis, (source < 0) | (source > size - 1))
    lower, upper = (
        torch.take_along_dim(spectrogram, _along(axis, index.long()), dim=axis)
        for index in (below, (below + 1).clamp(max=size - 1))
    )
    return torch.lerp(lower, upper, weight.expand_as(lower)).masked_fill(outside, silence)


def _along(axis: int, values: Tensor) -> Tensor:
    """Values [B, size] as [B, 1, size, 1] or [B, 1, 1, size]."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None, :]
