"""Time-frequency relevance of explained waveforms, by the modified gradient where the rules know it."""

from typing import Any

from torch import Tensor

from audio_lrp.timefrequency.stft import STABILIZER, STFT, plane_relevance


def coefficient_relevance(
    transform: STFT, network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None
) -> Tensor:
    """Relevance of each coefficient of a waveform's STFT.

    Args:
        transform: the STFT.
        network_input: waveforms [B, 1, N].
        relevance: relevance of each sample, same shape.
        modified_gradient: relevance over input where the rules know it (see `audio_lrp.attribution.Explanation`).

    Returns:
        Relevance [B, 1, bins, frames]; sums to that of the waveform.

    Raises:
        UserError: the first layer's rule gives relevance to silent samples, so it has no time-frequency form, or
            signals of another length than the transform's.
    """
    return transform.relevance(network_input, **_of_samples(relevance, modified_gradient))


def relevance_in_plane(network_input: Tensor, relevance: Tensor, modified_gradient: Tensor | None) -> Tensor:
    """Relevance of waveforms in the plane of the paper's spectrograms.

    Args:
        network_input: waveforms [B, 1, 8000].
        relevance: relevance of each sample, same shape.
        modified_gradient: relevance over input where the rules know it.

    Returns:
        Relevance, frequency x time [B, 227, 227]; sums to that of the waveform.

    Raises:
        UserError: as `coefficient_relevance`.
    """
    return plane_relevance(network_input, **_of_samples(relevance, modified_gradient))[:, 0]


def _of_samples(relevance: Tensor, modified_gradient: Tensor | None) -> dict[str, Any]:
    """What is propagated from samples to frequencies, and how."""
    # The modified gradient saves the division, and with it the doubt about samples of zero, but not the stabilizer:
    # it is itself large at zero crossings wherever a rule's denominators are small there, so that by LRP-0 AudioNet's
    # alpha-beta maps hold thirty times the magnitude of the relevance that they propagate. With the stabilizer it is
    # 1.02 times, and the sums are as exact.
    given = relevance if modified_gradient is None else None
    return {"relevance": given, "modified_gradient": modified_gradient, "stabilizer": STABILIZER}
