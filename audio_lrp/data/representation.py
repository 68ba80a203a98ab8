"""Input representations: what of a one-second signal the network sees, and how relevance on it is looked at.

Both follow the recipe of the paper's published code (arXiv 1807.03418v2), computed for a whole batch on its device.
Signals are in int16 scale (full scale = 32768), because the recipe's constants are.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError
from audio_lrp.timefrequency.coefficients import relevance_in_plane
from audio_lrp.timefrequency.stft import spectrogram_plane
from audio_lrp.timefrequency.utterance import utterance_frames, utterance_samples

SAMPLE_RATE = 8000
"""Sampling rate of every network input, in Hz."""
NUM_SAMPLES = 8000
"""Samples of every network input: one second."""
FULL_SCALE = 32768
"""Full scale of the signals that representations map."""

RepresentationName = Literal["waveform", "spectrogram"]
SpectrogramScale = Literal["unit", "decibel"]


def refuse_rounding(precision: str | None) -> None:
    """Refuse a Trainer's precision that rounds signals to 16 bits before they become network inputs.

    Raises:
        UserError: it is ``"16-true"`` or ``"bf16-true"``.
    """
    if precision in ("16-true", "bf16-true"):
        raise UserError(
            f"trainer.precision {precision} would round recordings to 16-bit floating-point numbers, of which no "
            f"spectrogram can be computed: set it to {precision.removesuffix('true')}mixed"
        )


class Representation(nn.Module):
    """Maps signals [B, 8000] in int16 scale to network inputs of shape [B, ...].

    Relevance of any representation can be looked at over time and in one plane of time and frequency, that of the
    paper's spectrograms.

    Attributes:
        name: what configurations and networks call it.
        view: how relevance on the network's input is drawn: along the ``"waveform"``, or in ``"time_frequency"``.
        shape: shape of one network input.
        silence: the input value that stands for silence.
        spectrogram_name: what `spectrogram` is called under a figure.
    """

    name: ClassVar[RepresentationName]
    view: ClassVar[Literal["waveform", "time_frequency"]]
    spectrogram_name: ClassVar[str]
    shape: tuple[int, ...]
    silence: float

    def utterance(self, offset: Tensor, length: Tensor) -> Tensor:
        """Which input values belong to the utterance.

        Args:
            offset: first sample of each utterance in its clip, integer [B].
            length: its number of samples, integer [B].

        Returns:
            Mask, bool, to be broadcast over the inputs [B, ...].
        """
        raise NotImplementedError

    def in_plane(self, network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None) -> Tensor:
        """Relevance in time and frequency.

        Args:
            network_input: [B, ...].
            relevance: relevance of each input value, same shape.
            modified_gradient: relevance over input where the rules know it (see `audio_lrp.attribution.Explanation`).

        Returns:
            Relevance, frequency x time [B, 227, 227]; sums to that of the input.

        Raises:
            UserError: the first layer's rule gives relevance to silence, so it has no time-frequency form.
        """
        raise NotImplementedError

    def over_time(self, relevance: Tensor) -> Tensor:
        """Relevance of each sample [B, 8000], of that of each input value [B, ...]."""
        raise NotImplementedError

    def spectrogram(self, signal: Tensor, network_input: Tensor) -> Tensor:
        """The spectrogram that is shown beside relevance in time and frequency [B, 227, 227].

        Args:
            signal: the signals in any scale [B, 8000].
            network_input: what the network saw of them [B, ...].
        """
        raise NotImplementedError


class Waveform(Representation):
    """The waveform divided by its 95th percentile: ``x / (percentile(x, 95) + 0.001)``, x in int16 scale.

    The percentile is taken of the signed, padded signal. For a clip shorter than about 0.1 s it is zero and the
    recipe's quotient explodes; the divisor is therefore at least a hundredth of the peak, a bound that spoken digits
    of ordinary length do not touch.

    Example:
        >>> signal = torch.sin(torch.arange(8000.0)).repeat(2, 1) * 1000
        >>> Waveform()(signal).shape
        torch.Size([2, 1, 8000])
    """

    name = "waveform"
    view = "waveform"
    spectrogram_name = "spectrogram, -80 dB to 0 dB as 0 to 1"
    shape = (1, NUM_SAMPLES)
    silence = 0.0

    def forward(self, signal: Tensor) -> Tensor:
        """Scale ``signal`` [B, 8000] to [B, 1, 8000]."""
        # The two order statistics that NumPy's linear interpolation needs; sorting everything costs 20 times more.
        position = 0.95 * (NUM_SAMPLES - 1)
        below = math.floor(position)
        largest = signal.topk(NUM_SAMPLES - below, dim=-1).values
        percentile = torch.lerp(largest[:, -1], largest[:, -2], position - below)
        peak = signal.abs().amax(dim=-1)
        divisor = torch.maximum(percentile + 0.001, peak / 100).clamp(min=0.001)
        return (signal / divisor[:, None])[:, None]

    def utterance(self, offset: Tensor, length: Tensor) -> Tensor:
        """Mask of samples [B, 1, 8000]."""
        return utterance_samples(offset, length, NUM_SAMPLES)

    def in_plane(self, network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None) -> Tensor:
        """Relevance of samples, propagated through the STFT."""
        return relevance_in_plane(network_input, relevance, modified_gradient)

    def over_time(self, relevance: Tensor) -> Tensor:
        """The relevance itself."""
        return relevance[:, 0]

    def spectrogram(self, signal: Tensor, network_input: Tensor) -> Tensor:
        """The paper's spectrogram of the signals, -80 dB to 0 dB as 0 to 1."""
        levels: Tensor = Spectrogram().to(signal.device)(signal)
        return levels[:, 0]


class Spectrogram(Representation):
    """Decibels of the short-time Fourier transform relative to the loudest bin, floor -80 dB.

    ``scipy.signal.stft(x, 8000, nperseg=455, noverlap=420, window="hann")`` restricted to ``[0:227, 2:-1]``: rows are
    frequencies ``k * 8000 / 455`` Hz, lowest first, columns are frames centred at ``(m + 2) * 35 / 8000`` s.

    Args:
        scale: ``"unit"`` maps -80..0 dB to 0..1, so that rules proportional to the input give silence no relevance;
            ``"decibel"`` keeps the decibels of the original recipe.

    Example:
        >>> signal = torch.sin(torch.arange(8000.0)).repeat(2, 1) * 1000
        >>> Spectrogram()(signal).shape
        torch.Size([2, 1, 227, 227])
    """

    window_length = 455
    hop_length = 35
    num_bins = 227
    num_frames = 227
    floor_decibel = -80.0

    name = "spectrogram"
    view = "time_frequency"
    spectrogram_name = "network input"
    shape = (1, num_bins, num_frames)

    window: Tensor

    def __init__(self, scale: SpectrogramScale = "unit") -> None:
        super().__init__()
        self.scale = scale
        self.silence, self._loudest = (0.0, 1.0) if scale == "unit" else (self.floor_decibel, 0.0)
        window = torch.hann_window(self.window_length, periodic=True, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Transform ``signal`` [B, 8000] to [B, 1, 227, 227]."""
        # scipy pads half a window at both ends and the recipe drops the first two frames.
        padded = nn.functional.pad(signal, (self.window_length // 2 - 2 * self.hop_length, self.window_length))
        frames = padded.unfold(-1, self.window_length, self.hop_length)[:, : self.num_frames]
        if signal.is_cpu:  # frames of silence are left out; a GPU would have to be waited for to know their number
            sounding = self._sounding(padded)
            power = self._power(frames[sounding].mul_(self.window))
            clip = sounding.nonzero()[:, 0]
            loudest = signal.new_zeros(len(signal)).scatter_reduce_(0, clip, power.amax(dim=1), "amax")
            level = signal.new_full((len(signal), self.num_frames, self.num_bins), self.silence)
            level[sounding] = self._level(power, loudest[clip][:, None])
        else:
            power = self._power(frames * self.window)
            level = self._level(power, power.amax(dim=(1, 2), keepdim=True))
        return level.transpose(1, 2)[:, None]

    def _sounding(self, padded: Tensor) -> Tensor:
        """Which frames of padded signals hold anything but zeros, bool [B, 227]."""
        hops = padded.unfold(-1, self.hop_length, self.hop_length)
        sounding_hops = (hops.amax(dim=-1) != 0) | (hops.amin(dim=-1) != 0)
        hops_of_frame = self.window_length // self.hop_length
        sounding = sounding_hops.unfold(-1, hops_of_frame, 1).any(dim=-1)[:, : self.num_frames]
        sounding[:1, :1] = True  # one at least: MKL does not transform nothing
        return sounding

    def _power(self, windowed: Tensor) -> Tensor:
        """The power spectrum [..., 227] of windowed frames [..., 455]."""
        spectrum = torch.fft.rfft(windowed)[..., : self.num_bins]
        power: Tensor = spectrum.real.square()
        return power.addcmul_(spectrum.imag, spectrum.imag)

    def _level(self, power: Tensor, loudest: Tensor) -> Tensor:
        """Powers [..., 227] relative to their clip's loudest one, in the representation's scale.

        Powers are overwritten, for fresh memory takes longest here. Silence counts as nine decades below the least
        that a loudest power counts as, and so stays silent where it is all there is.
        """
        per_decade = (self._loudest - self.silence) * 10 / -self.floor_decibel
        offset = self._loudest - per_decade * loudest.clamp(min=1e-28).log10()
        return power.clamp_(min=1e-37).log10_().mul_(per_decade).add_(offset).clamp_(self.silence, self._loudest)

    def utterance(self, offset: Tensor, length: Tensor) -> Tensor:
        """Mask of frames [B, 1, 1, 227]."""
        return utterance_frames(offset, length, spectrogram_plane())

    def in_plane(self, network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None) -> Tensor:
        """The relevance itself."""
        return relevance[:, 0]

    def over_time(self, relevance: Tensor) -> Tensor:
        """Relevance of frames, evenly over the hop around each frame's centre."""
        first = 2 * self.hop_length - self.hop_length // 2
        of_frames = relevance[:, 0].sum(dim=1) / self.hop_length
        spread = of_frames.repeat_interleave(self.hop_length, dim=-1)[:, : NUM_SAMPLES - first]
        return nn.functional.pad(spread, (first, NUM_SAMPLES - first - spread.shape[-1]))

    def spectrogram(self, signal: Tensor, network_input: Tensor) -> Tensor:
        """What the network saw."""
        return network_input[:, 0]


def make_representation(name: RepresentationName, scale: SpectrogramScale = "unit") -> Representation:
    """The representation of a name.

    Args:
        name: ``"waveform"`` or ``"spectrogram"``.
        scale: of a spectrogram.
    """
    return Spectrogram(scale) if name == Spectrogram.name else Waveform()


def plane_frequencies() -> Tensor:
    """Frequency of each row of the plane in Hz, float64 [227]."""
    return spectrogram_plane().frequencies(SAMPLE_RATE)[: Spectrogram.num_bins]


def plane_times() -> Tensor:
    """Time of each column of the plane in seconds, float64 [227]."""
    return spectrogram_plane().times(SAMPLE_RATE)
