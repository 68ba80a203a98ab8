"""Audible explanations: hear what a network listened to.

Weighting each sample by its relevance would not do: relevance changes its sign from sample to sample, and the product
is a rattle with frequencies the recording never had. Instead relevance in time and frequency weights the recording's
short-time Fourier transform, phases are kept, and what comes out is the recording through a filter that opens where,
and when, relevance lies. The same filter serves networks on waveforms (relevance from `STFT.relevance` or
`plane_relevance`) and on spectrograms (relevance of the spectrogram as it is).
"""

import io
import os
from pathlib import Path
from typing import Literal

import soundfile
import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError
from audio_lrp.timefrequency.loudness import equally_loud
from audio_lrp.timefrequency.stft import STFT, Segment, spectrogram_plane

Sign = Literal["positive", "negative"]

_MAIN_LOBE = 5
"""Bins that one pure tone lights up, for Hann-like windows."""
_NIL = 1e-5
"""Relevance below this share of the largest is nil: rounding, which nobody should hear."""


def audible_relevance(
    signal: Tensor,
    relevance: Tensor,
    sign: Sign = "positive",
    *,
    band: tuple[float, float] | None = None,
    sample_rate: int = 8000,
    stft: STFT | None = None,
) -> Tensor:
    """The signal through a filter that follows its relevance.

    Around each bin relevance is averaged over what the transform cannot resolve anyway, half a window by the width of
    a tone, since within it signs flicker. Where the average has the wanted sign, the spectrum's power is multiplied by
    its share of the largest magnitude, its amplitude hence by the square root: relevance is quadratic in amplitudes,
    as energy is. Phases stay the signal's own. Positive and negative explanations never share a bin.

    Args:
        signal: samples in any scale [..., N].
        relevance: relevance in the plane of ``stft`` [..., bins, frames]; bins missing at the top have none.
        sign: hear the evidence for the explained class (``"positive"``) or against it (``"negative"``).
        band: hear these frequencies alone, lowest and highest in Hz; None: all.
        sample_rate: of the signal, in Hz.
        stft: the transform; None: the plane of the paper's spectrograms, for one second at 8 kHz.

    Returns:
        Samples in the signal's scale [..., N]; exactly zero further than a window and a half from any relevance.
        For listening bring it to the signal's loudness by `audio_lrp.timefrequency.loudness.equally_loud`.

    Raises:
        UserError: relevance that does not fit the plane or is not finite, an unknown sign, or an empty band.

    Example:
        A network that hears the first half of a tone:

        >>> import torch
        >>> from audio_lrp.timefrequency.stft import plane_relevance
        >>> signal = torch.sin(0.5 + torch.arange(8000.0))
        >>> heard = signal.square() * (torch.arange(8000) < 4000)
        >>> sound = audible_relevance(signal, plane_relevance(signal, heard))
        >>> bool(sound[:3000].abs().max() > 0.9), bool(sound[5000:].abs().max() == 0)
        (True, True)
    """
    stft = spectrogram_plane() if stft is None else stft
    gain = _gain(relevance, sign, stft)
    if band is not None:
        lowest, highest = band
        frequencies = stft.frequencies(sample_rate).to(gain.device)
        inside = (frequencies >= lowest) & (frequencies < highest)
        if not inside.any():
            raise UserError(f"no frequency of the transform lies in the band {band}: pass (lowest, highest) in Hz")
        gain = gain * inside[:, None]
    return stft.inverse(stft.spectrum(signal) * gain.to(signal))


def _gain(relevance: Tensor, sign: Sign, stft: STFT) -> Tensor:
    """What each bin's amplitude is multiplied by, 0 to 1 [..., bins, frames]."""
    if sign not in ("positive", "negative"):
        raise UserError(f"unknown sign {sign!r}: pass 'positive' or 'negative'")
    missing = stft.num_bins - relevance.shape[-2] if relevance.ndim >= 2 else -1
    if missing < 0 or relevance.shape[-1] != stft.num_frames:
        raise UserError(
            f"the relevance has shape {list(relevance.shape)} but the transform's plane "
            f"{[stft.num_bins, stft.num_frames]}: pass relevance in time and frequency (see plane_relevance)"
        )
    if not relevance.isfinite().all():
        raise UserError("the relevance is not finite and cannot be made audible")
    half_window = stft.window_length // (2 * stft.hop_length) // 2 * 2 + 1
    flat = nn.functional.pad(relevance, (0, 0, 0, missing)).reshape(-1, 1, stft.num_bins, stft.num_frames)
    averaged = nn.functional.avg_pool2d(
        flat, (_MAIN_LOBE, half_window), stride=1, padding=(_MAIN_LOBE // 2, half_window // 2)
    )
    largest = averaged.abs().amax(dim=(-1, -2), keepdim=True)
    share = averaged / largest.where(largest > 0, 1.0)
    share = share if sign == "positive" else -share
    return share.masked_fill(share < _NIL, 0.0).sqrt().reshape(*relevance.shape[:-2], stft.num_bins, stft.num_frames)


def audible_explanations(
    signal: Tensor, plane: Tensor | None, utterance: Segment, band: tuple[float, float] | None = None
) -> dict[str, Tensor]:
    """A recording and what of it is evidence for and against the explained class, equally loud.

    Args:
        signal: one second at 8 kHz in any scale [8000].
        plane: its relevance in the plane of the paper's spectrograms [227, 227]; None: it has no such form, so that
            only the recording can be heard.
        utterance: first sample of the recording and the first one after it; sounds are cut to it.
        band: also explanations limited to these frequencies, lowest and highest in Hz.

    Returns:
        ``"original"`` and, of a plane, ``"positive"``, ``"negative"`` and, with a band from 300 to 600 Hz,
        ``"positive 300 to 600 Hz"`` and ``"negative 300 to 600 Hz"``: samples, full scale 1 [N].

    Raises:
        UserError: as `audible_relevance`.
    """
    bands = {"": None} if band is None else {"": None, f" {band[0]:g} to {band[1]:g} Hz": band}
    sounds = {"original": signal}
    if plane is not None:
        for name, limits in bands.items():
            sounds[f"positive{name}"] = audible_relevance(signal, plane, "positive", band=limits)
            sounds[f"negative{name}"] = audible_relevance(signal, plane, "negative", band=limits)
    levelled = equally_loud(torch.stack([sound[slice(*utterance)] for sound in sounds.values()]), 8000)
    return dict(zip(sounds, levelled, strict=True))


def write_wav(path: Path, sound: Tensor, sample_rate: int = 8000) -> None:
    """Write a sound as mono 16-bit WAV, under a temporary name until it is complete.

    Args:
        path: the file.
        sound: samples, full scale 1 [N].
        sample_rate: in Hz.

    Raises:
        UserError: samples beyond full scale or not finite, which would be clipped.
        OSError: the file cannot be written.
    """
    if sound.ndim != 1 or not (sound.abs() <= 1).all():
        raise UserError(f"{path.name} would be clipped: pass samples [N] between -1 and 1 (see equally_loud)")
    samples = (sound.detach().cpu().double() * 32767).round().short().numpy()
    content = io.BytesIO()
    soundfile.write(content, samples, sample_rate, subtype="PCM_16", format="WAV")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content.getbuffer())  # not by libsndfile, whose error does not tell of a full disk
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
