"""Random changes to training clips that leave the label alone, computed for a whole batch on its device."""

import math
from typing import Final

import torch
import torchaudio
from torch import Tensor, nn

from audio_lrp.data.representation import NUM_SAMPLES
from audio_lrp.errors import UserError

_PADDED: Final = 9000
"""Samples of a clip with silence after it, for a transform takes the signal to be periodic."""
_FAST_LENGTHS: Final = [n for n in range(_PADDED // 2, 2 * _PADDED + 1) if n % 8 == 0 and 30030**15 % n == 0]
"""Multiples of 8 without prime factors above 13, whose product is 30,030; others take up to four times as long."""
_LENGTHS: Final = sorted({min(_FAST_LENGTHS, key=lambda n: abs(n - _PADDED * 1.02**step)) for step in range(-35, 36)})
"""Some of them, about two per cent apart: few, for a transform of one clip takes longer than one of three."""


class Augmentation(nn.Module):
    """Base of all augmentations; override one of the two methods, or both.

    Random numbers come from PyTorch's global generators, which ``seed_everything`` seeds.
    """

    def change_clip(self, clip: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Change the clips before they are placed in the second.

        Args:
            clip: samples in int16 scale, each clip from sample 0, zeros after it, [B, 8000].
            length: number of samples of each clip, int64 [B].

        Returns:
            The changed clips [B, 8000] and their lengths [B].
        """
        return clip, length

    def change_input(self, network_input: Tensor, silence: float) -> Tensor:
        """Change network inputs [B, 1, ...], computed from the placed clips; ``silence`` is the value of silence."""
        return network_input


def _uniform(low: float, high: float, *shape: int, like: Tensor) -> Tensor:
    return torch.empty(shape, device=like.device).uniform_(low, high)


def _silence_after(length: Tensor, clip: Tensor) -> Tensor:
    """Set the samples of ``clip`` [B, 8000] from ``length`` [B] on to zero, in place."""
    return clip.masked_fill_(torch.arange(clip.shape[1], device=clip.device) >= length[:, None], 0.0)


class SpeedPerturbation(Augmentation):
    """Play each clip faster or slower, which moves pitch, formants and tempo together (Ko et al. 2015).

    Band-limited interpolation: the inverse Fourier transform of a clip's spectrum at another length. Speeds are
    those at which transforms are fast, two per cent apart; a clip is slowed down no further than the second allows.

    Args:
        low: smallest speed factor.
        high: largest speed factor.
    """

    def __init__(self, low: float = 0.85, high: float = 1.15) -> None:
        super().__init__()
        if not 0.5 <= low <= high <= 2:
            raise UserError(f"SpeedPerturbation needs 0.5 <= low <= high <= 2, got low {low} and high {high}")
        self.low, self.high = low, high

    def change_clip(self, clip: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Resample every clip by a factor of its own."""
        speed = _uniform(self.low, self.high, len(clip), like=clip)
        choices = torch.tensor(_LENGTHS, device=clip.device)
        outgrown = choices * length[:, None] > _PADDED * NUM_SAMPLES
        misses = (choices - _PADDED / speed[:, None]).abs().masked_fill(outgrown, math.inf)
        stretched, order = choices[misses.argmin(dim=1)].sort()  # clips of one speed side by side
        lengths, counts = (each.tolist() for each in torch.unique_consecutive(stretched, return_counts=True))
        spectrum = torch.fft.rfft(clip[order], n=_PADDED, norm="forward")
        changed = torch.zeros_like(clip)
        bands, spaces = torch.split(spectrum, counts), torch.split(changed, counts)
        for samples, whole_band, space in zip(lengths, bands, spaces, strict=True):
            # Below both Nyquist frequencies, or above speed 1 the top of the band would alias; speed 1 changes nothing.
            band = whole_band if samples == _PADDED else whole_band[:, : min(samples, _PADDED) // 2]
            signal = torch.fft.irfft(band, n=samples, norm="forward")[:, :NUM_SAMPLES]
            space[:, : signal.shape[1]] = signal
        back = order.argsort()
        new_length = (length * stretched[back] // _PADDED).clamp(min=1)
        return _silence_after(new_length, changed[back]), new_length


class RandomEqualizer(Augmentation):
    """Filter each clip with a smooth random frequency response, as another microphone and room would.

    The response is drawn in decibels at equally spaced frequencies and interpolated linearly.

    Args:
        decibel: standard deviation of the response at each of the frequencies.
        bands: number of frequencies at which the response is drawn, 0 Hz and 4 kHz among them.
    """

    def __init__(self, decibel: float = 4.0, bands: int = 8) -> None:
        super().__init__()
        if decibel < 0 or bands < 2:
            raise UserError(f"RandomEqualizer needs decibel >= 0 and bands >= 2, got {decibel} and {bands}")
        self.decibel, self.bands = decibel, bands

    def change_clip(self, clip: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Filter every clip with a response of its own."""
        drawn = torch.randn(len(clip), 1, self.bands, device=clip.device) * (self.decibel * math.log(10) / 20)
        spectrum = torch.fft.rfft(clip)
        response = nn.functional.interpolate(drawn, size=spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
        return _silence_after(length, torch.fft.irfft(spectrum.mul_(response.exp_()), n=clip.shape[1])), length


class PolarityInversion(Augmentation):
    """Turn half of the clips upside down: no ear can tell, but a network that sees waveforms can."""

    def change_clip(self, clip: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply every clip by 1 or -1."""
        sign = torch.randint(0, 2, (len(clip), 1), device=clip.device) * 2 - 1
        return clip * sign, length


class AdditiveNoise(Augmentation):
    """Add white noise to each clip, within the clip: the padding stays silent.

    Args:
        low: lowest signal-to-noise ratio in decibels.
        high: highest signal-to-noise ratio in decibels.
    """

    def __init__(self, low: float = 10.0, high: float = 50.0) -> None:
        super().__init__()
        if low > high:
            raise UserError(f"AdditiveNoise needs low <= high, got low {low} and high {high}")
        self.low, self.high = low, high

    def change_clip(self, clip: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise of a level of its own to every clip."""
        root_mean_square = (clip.square().sum(dim=1) / length.clamp(min=1)).sqrt()
        ratio = _uniform(self.low, self.high, len(clip), like=clip)
        noise = torch.randn_like(clip).mul_((root_mean_square / 10 ** (ratio / 20))[:, None])
        return _silence_after(length, noise).add_(clip), length


class SpectrogramMasking(Augmentation):
    """Silence random bands of frequencies and of frames of spectrograms (SpecAugment, Park et al. 2019).

    Args:
        max_bins: widest band of frequencies, in bins of 17.6 Hz.
        max_frames: longest stretch of time, in frames of 4.4 ms.
        masks: how many bands and how many stretches.
    """

    def __init__(self, max_bins: int = 24, max_frames: int = 24, masks: int = 2) -> None:
        super().__init__()
        if min(max_bins, max_frames, masks) < 1:
            raise UserError("SpectrogramMasking needs max_bins, max_frames and masks of at least 1")
        self.masks = masks
        self.frequency = torchaudio.transforms.FrequencyMasking(max_bins, iid_masks=True)
        self.time = torchaudio.transforms.TimeMasking(max_frames, iid_masks=True)

    def change_input(self, network_input: Tensor, silence: float) -> Tensor:
        """Mask every spectrogram [B, 1, F, T] at places of its own.

        Raises:
            UserError: the inputs are no spectrograms.
        """
        if network_input.dim() != 4:
            raise UserError(
                f"SpectrogramMasking masks spectrograms, but the inputs have shape {list(network_input.shape)}: "
                "take it out of data.augmentations or set data.representation to spectrogram"
            )
        # Drawn on one frame and on one bin: torchaudio passes over all that it is given for every mask.
        batch, _, num_bins, num_frames = network_input.shape
        bins = self.frequency(network_input.new_ones(batch, self.masks, num_bins, 1), 0.0).amin(dim=1, keepdim=True)
        frames = self.time(network_input.new_ones(batch, self.masks, 1, num_frames), 0.0).amin(dim=1, keepdim=True)
        # Products of the distance to silence: to fill what a mask names takes twice as long.
        return (network_input - silence).mul_(bins).mul_(frames).add_(silence)
