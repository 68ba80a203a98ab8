"""What people look at and listen to: relevance of either network in the plane of the paper's spectrograms."""

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from audio_lrp.data.representation import SAMPLE_RATE, Spectrogram
from audio_lrp.timefrequency.stft import STABILIZER, STFT, Segment, plane_relevance, spectrogram_plane
from audio_lrp.visualization.figures import spectrogram_relevance


def time_frequency_relevance(network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None) -> Tensor:
    """Relevance in time and frequency: that of a waveform in AlexNet's plane, that of a spectrogram as it is.

    Args:
        network_input: waveforms [B, 1, 8000] or spectrograms [B, 1, 227, 227].
        relevance: relevance of each input value, same shape.
        modified_gradient: relevance over input where the rules know it (see `audio_lrp.attribution.Explanation`).

    Returns:
        Relevance, frequency x time [B, 227, 227]; sums to that of the input.

    Raises:
        UserError: the first layer's rule gives relevance to silent samples, so it has no time-frequency form.
    """
    if network_input.dim() == 4:
        return relevance[:, 0]
    return plane_relevance(network_input, **_shared_out(relevance, modified_gradient))[:, 0]


def coefficient_relevance(
    transform: STFT, network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None
) -> Tensor:
    """Relevance of each coefficient of a waveform's STFT.

    Args:
        transform: the STFT.
        network_input: waveforms [B, 1, N].
        relevance: relevance of each sample, same shape.
        modified_gradient: relevance over input where the rules know it.

    Returns:
        Relevance [B, 1, bins, frames]; sums to that of the waveform.

    Raises:
        UserError: as `time_frequency_relevance`, or signals of another length than the transform's.
    """
    return transform.relevance(network_input, **_shared_out(relevance, modified_gradient))


def _shared_out(relevance: Tensor, modified_gradient: Tensor | None) -> dict[str, Any]:
    """What samples hand on to frequencies, and how."""
    # The modified gradient saves the division, and with it the doubt about samples of zero, but not the stabilizer:
    # it is itself large at zero crossings wherever a rule's denominators are small there, so that by LRP-0 AudioNet's
    # alpha-beta maps hold thirty times the magnitude of the relevance they share out. With the stabilizer it is 1.02
    # times, and the sums are as exact.
    given = relevance if modified_gradient is None else None
    return {"relevance": given, "quotient": modified_gradient, "stabilizer": STABILIZER}


def time_frequency_picture(
    signal: Tensor, network_input: Tensor, plane: Tensor, title: str, utterance: Segment
) -> Figure:
    """The spectrogram beside relevance in time and frequency.

    Args:
        signal: one second in any scale [8000].
        network_input: what the network saw of it [8000] or [227, 227]; a spectrogram is shown as it is.
        plane: relevance in time and frequency [227, 227].
        title: what is explained.
        utterance: first sample of the utterance and the first one after it.
    """
    if network_input.dim() == 1:
        spectrogram, name = Spectrogram()(signal[None].cpu())[0, 0], "spectrogram, -80 dB to 0 dB as 0 to 1"
    else:
        spectrogram, name = network_input, "network input"
    return spectrogram_relevance(
        spectrogram.cpu().numpy(),
        plane.cpu().numpy(),
        title,
        frequencies=plane_frequencies().numpy(),
        times=plane_times().numpy(),
        utterance=(utterance[0] / SAMPLE_RATE, utterance[1] / SAMPLE_RATE),
        name=name,
    )


def plane_frequencies() -> Tensor:
    """Frequency of each row of the plane in Hz, float64 [227]."""
    return spectrogram_plane().frequencies(SAMPLE_RATE)[: Spectrogram.num_bins]


def plane_times() -> Tensor:
    """Time of each column of the plane in seconds, float64 [227]."""
    return spectrogram_plane().times(SAMPLE_RATE)
