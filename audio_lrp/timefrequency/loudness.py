"""Loudness of sounds, and sounds made equally loud."""

import math

import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError

_BLOCK_SECONDS = 0.4
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_PEAK = 0.99
"""Largest sample of levelled sounds: a little below full scale, so that rounding to 16 bits cannot clip."""


def loudness(sound: Tensor, sample_rate: int) -> Tensor:
    """Integrated loudness by ITU-R BS.1770-4: K-weighted, gated, of each mono sound.

    Two departures, for recordings that are short and of any level: sounds shorter than a block of 0.4 s are padded to
    one, and the absolute gate of -70 LUFS is applied to the sound scaled to full scale, so that a recording ten times
    quieter is 20 dB less loud, whatever its level.

    Args:
        sound: samples, full scale 1 [..., N].
        sample_rate: in Hz.

    Returns:
        Loudness in LUFS, float64 [...]; minus infinity for silence.

    Example:
        >>> sine = torch.sin(2 * torch.pi * 997 * torch.arange(48000) / 48000)
        >>> softer = loudness(sine / 10, 48000)
        >>> round((loudness(sine, 48000) - softer).item(), 3)
        20.0
    """
    sound = sound.double()
    peak = sound.abs().amax(dim=-1)
    weighted = _k_weighted(sound / peak.where(peak > 0, 1.0)[..., None], sample_rate)
    block = round(_BLOCK_SECONDS * sample_rate)
    padded = nn.functional.pad(weighted, (0, max(0, block - sound.shape[-1])))
    power = padded.unfold(-1, block, block // 4).square().mean(dim=-1)
    audible = _decibel(power) > _ABSOLUTE_GATE
    gate = _decibel(_mean(power, audible)) + _RELATIVE_GATE
    return _decibel(_mean(power, audible & (_decibel(power) > gate[..., None]))) + 20 * torch.log10(peak)


def equally_loud(sounds: Tensor, sample_rate: int, level: float = -23.0) -> Tensor:
    """Scale sounds to one loudness: ``level``, or the highest at which none of them clips.

    Args:
        sounds: samples [S, N]; they may have any scale.
        sample_rate: in Hz.
        level: the loudness wanted, in LUFS (EBU R 128's by default).

    Returns:
        The sounds, full scale 1, no sample beyond 0.99 [S, N]; silence stays silence.

    Raises:
        UserError: not a matrix of sounds, or samples that are not finite.
    """
    if sounds.ndim != 2 or not sounds.isfinite().all():
        raise UserError(
            f"sounds of shape {list(sounds.shape)} cannot be levelled: pass finite samples [sounds, samples]"
        )
    measured = loudness(sounds, sample_rate)
    gain = torch.where(measured.isfinite(), 10 ** ((level - measured) / 20), 0.0)
    scaled = sounds.double() * gain[:, None]
    return (scaled * (_PEAK / scaled.abs().max()).clamp(max=1.0)).to(sounds.dtype)


def _mean(power: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen blocks [..., blocks]; 0 where there are none."""
    return (power * chosen).sum(dim=-1) / chosen.sum(dim=-1).clamp(min=1)


def _decibel(power: Tensor) -> Tensor:
    return 10 * torch.log10(power) - 0.691  # the constant makes up for the weighting's gain at 997 Hz


def _k_weighted(sound: Tensor, sample_rate: int) -> Tensor:
    """The standard's two filters: a shelf for the head and a high-pass, at any sampling rate.

    Parameters of the analogue filters: De Man, 2014, "Evaluation of implementations of the EBU R128 loudness
    measurement" (shelf 4 dB at 1500 Hz, high-pass at 38 Hz); made digital by R. Bristow-Johnson's formulas.
    """
    size = 2 * sound.shape[-1]  # as much silence as sound, so that the filters' tails do not come round
    angle = 2 * math.pi * torch.fft.rfftfreq(size, dtype=torch.float64, device=sound.device)
    response = _shelf(angle, sample_rate) * _high_pass(angle, sample_rate)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(sound, size) * response, size)
    return filtered[..., : sound.shape[-1]]


def _shelf(angle: Tensor, sample_rate: int, frequency: float = 1500.0, gain: float = 4.0) -> Tensor:
    a = 10 ** (gain / 40)
    up, down = a + 1, a - 1
    cosine, sine = (function(2 * math.pi * frequency / sample_rate) for function in (math.cos, math.sin))
    slope = math.sqrt(2 * a) * sine  # quality 1 / sqrt(2)
    numerator = (a * (up + down * cosine + slope), -2 * a * (down + up * cosine), a * (up + down * cosine - slope))
    denominator = (up - down * cosine + slope, 2 * (down - up * cosine), up - down * cosine - slope)
    return _biquad(angle, numerator, denominator)


def _high_pass(angle: Tensor, sample_rate: int, frequency: float = 38.0) -> Tensor:
    cosine, sine = (function(2 * math.pi * frequency / sample_rate) for function in (math.cos, math.sin))
    side = (1 + cosine) / 2
    return _biquad(angle, (side, -2 * side, side), (1 + sine, -2 * cosine, 1 - sine))  # quality 1 / 2


def _biquad(angle: Tensor, numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Tensor:
    """Frequency response of a second-order filter."""
    delay = torch.exp(-1j * angle)
    above, below = (
        sum(value * delay**power for power, value in enumerate(terms)) for terms in (numerator, denominator)
    )
    return torch.as_tensor(above / below)
