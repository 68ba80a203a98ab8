"""Relevance in time and frequency, for networks that see the waveform.

A network on waveforms says which samples it listened to; people think in frequencies. The inverse DFT or STFT is put
before the network as a linear layer without bias (Vielhaben et al., 2023, "Explainable AI for time series via virtual
inspection layers", arXiv 2303.06365), and relevance is handed one layer further down by LRP-0: a coefficient gets the
share of each sample's relevance that it contributed to the sample. Neither is an approximation: the network's output is
the same, and the sum of the coefficients' relevance is the sum of the samples'. The layer's matrix is never built; two
Fourier transforms do the same in O(N log N).

All functions take signals [..., N] with any leading dimensions, which broadcast: signals [B, 1, N] against the
relevance of all classes [B, C, N] give [B, C, ...]. Float32 and float64, computed in the signal's own precision.
"""

from functools import cache

import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError

_LEAST_OVERLAP = 1e-6
"""Least sum of overlapping windows, relative to the largest: below it the inverse transform amplifies rounding."""

STABILIZER = 0.03
"""Stabilizer for maps that people look at or listen to, see `STFT.relevance`."""

Segment = tuple[int, int]
"""First sample of a stretch of the signal and the first one after it."""


def dft_relevance(
    signal: Tensor,
    relevance: Tensor | None = None,
    *,
    modified_gradient: Tensor | None = None,
    segment: Segment | None = None,
) -> Tensor:
    """Relevance of each frequency of the whole signal: LRP-0 through the inverse DFT.

    ``R_k = c_k / N * Re(conj(X_k) * DFT(R / x)_k)``, where X is the signal's DFT and c_k counts the coefficients that
    a real signal's bin k stands for: 1 at zero and, for even N, at the Nyquist frequency, else 2.

    Args:
        signal: the network's input x [..., N].
        relevance: relevance R of each sample [..., N]; or
        modified_gradient: R / x in its place [..., N], as value-preserving rules have it before the last step: the
            gradient that, multiplied by the input, is the relevance.
        segment: the relevance of these samples alone, e.g. of one word; None: of all.

    Returns:
        Relevance of bins 0 to N // 2, frequency k / N per sample [..., N // 2 + 1]; sums to the samples' relevance.

    Raises:
        UserError: shapes or types that do not fit, not exactly one of ``relevance`` and ``modified_gradient``, or
            samples of zero with relevance (see `STFT.relevance`).

    Example:
        A network that hears a tone of three periods out of a sum of two:

        >>> angle = 2 * torch.pi * torch.arange(8) / 8
        >>> heard = torch.cos(3 * angle + 0.1)
        >>> signal = torch.cos(angle + 0.2) + heard
        >>> dft_relevance(signal, signal * heard).round().abs().tolist()
        [0.0, 0.0, 0.0, 4.0, 0.0]
    """
    shared = _modified_gradient(signal, relevance, modified_gradient, segment)
    return _product(torch.fft.rfft(signal), torch.fft.rfft(shared), signal.shape[-1], dim=-1)


class STFT:
    """A short-time Fourier transform that can be inverted: of signals, and of their relevance.

    Frame m holds samples ``start + m * hop_length`` onward; beyond the signal's ends there are zeros. The inverse
    overlap-adds the frames, weighted by the synthesis window, and divides by the overlap-added product of both windows,
    which must therefore be positive at every sample.

    Args:
        num_samples: samples of a signal.
        window: analysis window [window length].
        hop_length: samples from one frame to the next.
        synthesis_window: synthesis window [window length]; None: the analysis window.
        start: first sample of frame 0; None: ``-(window length // 2)``, which centres it at sample 0.
        num_frames: number of frames; None: as many as are centred within the signal.

    Raises:
        UserError: sizes that are not positive, windows of different shapes, or windows and hop with which some sample
            is not reached by a positive overlap-added product.

    Example:
        >>> stft = STFT(8000, torch.hann_window(256), hop_length=64)
        >>> signal = torch.sin(torch.arange(8000.0)).repeat(2, 1)
        >>> stft.spectrum(signal).shape
        torch.Size([2, 129, 125])
        >>> torch.allclose(stft.inverse(stft.spectrum(signal)), signal, atol=1e-5)
        True
    """

    def __init__(
        self,
        num_samples: int,
        window: Tensor,
        hop_length: int,
        *,
        synthesis_window: Tensor | None = None,
        start: int | None = None,
        num_frames: int | None = None,
    ) -> None:
        synthesis_window = window if synthesis_window is None else synthesis_window
        if window.ndim != 1 or len(window) == 0 or synthesis_window.shape != window.shape:
            raise UserError(
                f"STFT windows have shapes {list(window.shape)} and {list(synthesis_window.shape)}: "
                "pass an analysis and a synthesis window of the same length"
            )
        self.num_samples = num_samples
        self.window_length = len(window)
        self.hop_length = hop_length
        self.start = -(self.window_length // 2) if start is None else start
        if hop_length > 0 and num_frames is None:
            num_frames = (num_samples - 1 - self.start - self.window_length // 2) // hop_length + 1
        self.num_frames = num_frames or 0
        if min(num_samples, hop_length, self.num_frames) < 1:
            raise UserError(
                f"an STFT of {num_samples} samples with hop_length {hop_length} has {self.num_frames} frames: "
                "all three must be at least 1"
            )
        length = (self.num_frames - 1) * hop_length + self.window_length
        if not -length < self.start < num_samples:
            raise UserError(
                f"an STFT of {num_samples} samples with {self.num_frames} frames from sample {self.start} cannot be "
                "inverted: no frame holds any sample"
            )
        self.window = window.detach().double()
        self.synthesis_window = synthesis_window.detach().double()
        self._overlap = self._overlap_add((self.window * self.synthesis_window).expand(self.num_frames, -1))
        self._check_overlap()

    def _check_overlap(self) -> None:
        least, place = self._overlap.min(dim=0)
        if least <= _LEAST_OVERLAP * self._overlap.abs().max():
            raise UserError(
                f"an STFT with windows of {self.window_length} samples at hop {self.hop_length} cannot be inverted: "
                f"their overlap-added product is {least:.2g} at sample {place}; choose a shorter hop, windows whose "
                "product is not negative, or more frames at the ends"
            )

    @property
    def num_bins(self) -> int:
        """Number of frequency bins, from 0 to the Nyquist frequency or the last bin below it."""
        return self.window_length // 2 + 1

    def frequencies(self, sample_rate: float) -> Tensor:
        """Frequency of each bin in Hz, float64 [bins]."""
        return torch.arange(self.num_bins, dtype=torch.float64) * sample_rate / self.window_length

    def times(self, sample_rate: float) -> Tensor:
        """Time of each frame's centre in seconds from sample 0, float64 [frames]."""
        first = self.start + self.window_length // 2
        return (first + torch.arange(self.num_frames, dtype=torch.float64) * self.hop_length) / sample_rate

    def spectrum(self, signal: Tensor) -> Tensor:
        """Complex STFT [..., bins, frames] of signals [..., num_samples]."""
        return self._transform(signal, self.window)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Signals [..., num_samples] of complex spectra [..., bins, frames]; undoes `spectrum`."""
        frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=self.window_length)
        return self._overlap_add(frames * self.synthesis_window.to(frames)) / self._overlap.to(frames)

    def relevance(
        self,
        signal: Tensor,
        relevance: Tensor | None = None,
        *,
        modified_gradient: Tensor | None = None,
        segment: Segment | None = None,
        stabilizer: float = 0.0,
    ) -> Tensor:
        """Relevance of each frequency at each time: LRP-0 through the inverse STFT.

        ``R_mk = c_k / n * Re(conj(X_mk) * Y_mk)``, where X is the signal's STFT, Y the STFT of R / x / D with the
        synthesis window, D the overlap-added product of both windows, n the window's length, and c_k is 1 at zero and
        at the Nyquist frequency (even n only), else 2. For sums over bands and segments see
        `audio_lrp.timefrequency.bands`.

        Near a zero crossing a sample is the small sum of large contributions. Where it is relevant all the same (rules
        that propagate biases, as alpha-beta does, see to that), LRP-0 gives huge relevance of both signs to all
        frequencies, which a map then shows instead of what matters. With a stabilizer s, a sample propagates only
        ``x^2 / (x^2 + (s * level)^2)`` of its relevance by LRP-0, where level is the signal's root mean square around
        the sample; the rest goes to the frames that hold the sample and there to frequencies by their power. Sums stay
        exact. 0.03 changes the way of about 1 % of AudioNet's relevance, and removing the most relevant bins then
        costs the network clearly more of its confidence.

        A sample that is exactly zero has no relevance to propagate, so padding gets none. That holds only for rules
        proportional to the input; flat, w-square and z-box at the first layer are not, and their relevance has no
        time-frequency form.

        Args:
            signal: the network's input x [..., num_samples].
            relevance: relevance R of each sample [..., num_samples]; or
            modified_gradient: R / x in its place (see `dft_relevance`).
            segment: the relevance of these samples alone, e.g. of one word; None: of all.
            stabilizer: 0: LRP-0; `STABILIZER` is a good choice for maps to be looked at or listened to.

        Returns:
            Relevance [..., bins, frames]; sums to the samples' relevance.

        Raises:
            UserError: shapes or types that do not fit, not exactly one of ``relevance`` and ``modified_gradient``,
                samples of zero with relevance, or a negative stabilizer.

        Example:
            What the first half of a signal contributed, in the band from 1 to 2 kHz:

            >>> from audio_lrp.timefrequency.bands import interval_weights, pooled
            >>> stft = STFT(8000, torch.hann_window(256), hop_length=64)
            >>> signal, relevance = torch.randn(8000), torch.ones(8000)
            >>> of_half = stft.relevance(signal, relevance, segment=(0, 4000))
            >>> round(of_half.sum().item())
            4000
            >>> pooled(of_half, bands=interval_weights(stft.frequencies(8000), [1000, 2000])).shape
            torch.Size([1, 125])
        """
        if stabilizer < 0:
            raise UserError(f"the stabilizer is {stabilizer}: pass 0 for LRP-0, or a small positive share")
        shared = _modified_gradient(signal, relevance, modified_gradient, segment)
        spectrum = self.spectrum(signal)
        if stabilizer == 0:
            return self._by_lrp_0(spectrum, shared)
        kept = self._fraction_by_lrp_0(signal, stabilizer)
        rest = self._by_power(spectrum, signal * shared * (1 - kept))
        return self._by_lrp_0(spectrum, shared * kept) + rest

    def _by_lrp_0(self, spectrum: Tensor, shared: Tensor) -> Tensor:
        """LRP-0 of the modified gradients ``shared`` [..., num_samples]."""
        transformed = self._transform(shared / self._overlap.to(shared), self.synthesis_window)
        return _product(spectrum, transformed, self.window_length, dim=-2)

    def _fraction_by_lrp_0(self, signal: Tensor, stabilizer: float) -> Tensor:
        """Fraction of each sample's relevance that LRP-0 propagates [..., num_samples]."""
        power = self._frames(signal, self.window).square().sum(dim=-1) / self.window.square().sum()
        both = (self.window * self.synthesis_window).to(signal)
        level = (self._overlap_add(power[..., None] * both) / self._overlap.to(signal)).clamp(min=0).sqrt()
        ratio = stabilizer * level / signal.masked_fill(signal == 0, 1.0)
        return 1 / (1 + ratio.square())

    def _by_power(self, spectrum: Tensor, relevance: Tensor) -> Tensor:
        """Relevance [..., num_samples] to frames by their part of the overlap, and there to bins by their power."""
        both = self.window * self.synthesis_window
        of_frames = self._frames(relevance / self._overlap.to(relevance), both).sum(dim=-1)
        magnitude = spectrum.abs()
        loudest = magnitude.amax(dim=-2, keepdim=True)
        relative = magnitude / loudest.where(loudest > 0, 1.0)  # its square cannot underflow in every bin
        power = _one_sided(relative.square(), self.window_length, dim=-2)
        return of_frames[..., None, :] * power / power.sum(dim=-2, keepdim=True).where(loudest > 0, 1.0)

    def _transform(self, signal: Tensor, window: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(self._frames(signal, window))
        return spectrum.transpose(-1, -2)

    def _frames(self, signal: Tensor, window: Tensor) -> Tensor:
        """Windowed frames [..., frames, window length]."""
        if signal.shape[-1:] != (self.num_samples,):
            raise UserError(
                f"the signal has shape {list(signal.shape)}: this STFT takes signals of {self.num_samples} samples"
            )
        end = self.start + (self.num_frames - 1) * self.hop_length + self.window_length
        padded = nn.functional.pad(signal, (-self.start, end - self.num_samples))
        return padded.unfold(-1, self.window_length, self.hop_length) * window.to(signal)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Add frames [..., frames, window length] where they overlap, to [..., num_samples]."""
        length = (self.num_frames - 1) * self.hop_length + self.window_length
        flat = frames.reshape(-1, self.num_frames, self.window_length).transpose(1, 2)
        sizes = {"output_size": (1, length), "kernel_size": (1, self.window_length), "stride": (1, self.hop_length)}
        added = nn.functional.fold(flat, **sizes).reshape(*frames.shape[:-2], length)
        return nn.functional.pad(added, (self.start, self.num_samples - length - self.start))


class HannSTFT(STFT):
    """An STFT with periodic Hann windows, which a configuration can name by its class path.

    Args:
        window_length: samples of a window; by default that of the paper's spectrograms, 57 ms at 8 kHz.
        hop_length: samples from one frame to the next.
        num_samples: samples of a signal.

    Raises:
        UserError: as `STFT`.

    Example:
        >>> HannSTFT(window_length=256, hop_length=64).num_bins
        129
    """

    def __init__(self, window_length: int = 455, hop_length: int = 35, num_samples: int = 8000) -> None:
        if window_length < 1:
            raise UserError(f"window_length of HannSTFT is {window_length}: pass 1 or more")
        with torch.inference_mode(False):
            window = torch.hann_window(window_length, periodic=True, dtype=torch.float64)
            super().__init__(num_samples, window, hop_length)


@cache
def spectrogram_plane() -> STFT:
    """The STFT of the paper's spectrograms (arXiv 1807.03418v2): one second at 8 kHz, 227 frames of 228 bins.

    Periodic Hann window of 455 samples, hop 35. The recipe computes 230 frames and drops the first two and the last;
    the 227 that remain reach every sample, so the transform is inverted from them alone and no relevance falls to
    frames outside of the plane. The recipe's spectrogram also drops the topmost bin, 227; see `plane_relevance`.
    """
    with torch.inference_mode(False):  # kept for later callers, who may want gradients
        window = torch.hann_window(455, periodic=True, dtype=torch.float64)
        return STFT(8000, window, hop_length=35, start=2 * 35 - 455 // 2, num_frames=227)


def plane_relevance(
    signal: Tensor,
    relevance: Tensor | None = None,
    *,
    modified_gradient: Tensor | None = None,
    segment: Segment | None = None,
    stabilizer: float = 0.0,
) -> Tensor:
    """Relevance of one-second signals in the very plane of the paper's spectrograms, which AlexNet sees.

    Row k is at k * 8000 / 455 Hz, column m at (m + 2) * 35 / 8000 s. The recipe's spectrogram lacks bin 227
    (3.99 kHz, half a bin below the Nyquist frequency); its relevance is added to row 226, so that the map's sum is the
    signal's relevance.

    Args:
        signal: the network's input [..., 8000].
        relevance: relevance of each sample [..., 8000]; or
        modified_gradient: relevance divided by the input in its place (see `dft_relevance`).
        segment: the relevance of these samples alone; None: of all.
        stabilizer: see `STFT.relevance`; 0: LRP-0.

    Returns:
        Relevance [..., 227, 227], frequency x time.

    Raises:
        UserError: as `STFT.relevance`.

    Example:
        >>> signal = torch.sin(torch.arange(8000.0)).repeat(2, 1, 1)
        >>> plane_relevance(signal, signal**2).shape
        torch.Size([2, 1, 227, 227])
    """
    plane = spectrogram_plane().relevance(
        signal, relevance, modified_gradient=modified_gradient, segment=segment, stabilizer=stabilizer
    )
    return torch.cat([plane[..., :-2, :], plane[..., -2:, :].sum(dim=-2, keepdim=True)], dim=-2)


def _modified_gradient(
    signal: Tensor, relevance: Tensor | None, modified_gradient: Tensor | None, segment: Segment | None
) -> Tensor:
    """Relevance over signal [..., N]: zero where the signal is, and outside the segment."""
    given = modified_gradient if relevance is None else relevance
    if given is None or (relevance is not None and modified_gradient is not None):
        raise UserError("pass either the relevance of each sample or its modified_gradient, relevance over input")
    for name, value in (("signal", signal), ("relevance", given)):
        if value.dtype not in (torch.float32, torch.float64):
            raise UserError(f"the {name} holds {value.dtype}: pass float32 or float64")
    if signal.ndim == 0 or given.shape[-1:] != signal.shape[-1:]:
        raise UserError(
            f"the signal has shape {list(signal.shape)} but its relevance {list(given.shape)}: "
            "pass one value for each sample"
        )
    silent = signal == 0
    if relevance is not None:
        if ((relevance != 0) & silent).any():
            raise UserError(
                "samples of zero have relevance, which no frequency contributed: use a composite whose first rule is "
                "proportional to the input (not flat, w-square or z-box)"
            )
        given = relevance / signal.masked_fill(silent, 1.0)
    shared = given.masked_fill(silent, 0.0)
    if not shared.isfinite().all():
        raise UserError("relevance over input is not finite: check the relevance, or pass the modified_gradient itself")
    if segment is not None:
        begin, end = segment
        if not 0 <= begin < end <= signal.shape[-1]:
            raise UserError(f"segment {segment} does not lie in the signal: 0 <= begin < end <= {signal.shape[-1]}")
        outside = torch.ones(signal.shape[-1], dtype=torch.bool, device=signal.device)
        outside[begin:end] = False
        shared = shared.masked_fill(outside, 0.0)
    return shared


def _product(spectrum: Tensor, shared: Tensor, length: int, dim: int) -> Tensor:
    """``c_k / length * Re(conj(spectrum) * shared)``, bins along ``dim``."""
    return _one_sided((spectrum.real * shared.real + spectrum.imag * shared.imag) / length, length, dim)


def _one_sided(values: Tensor, length: int, dim: int) -> Tensor:
    """Values of a real signal's bins times c_k, in place."""
    last = values.shape[dim] - (length % 2 == 0)  # even lengths have a bin at the Nyquist frequency, which is alone
    values.narrow(dim, 1, max(0, last - 1)).mul_(2)
    return values
