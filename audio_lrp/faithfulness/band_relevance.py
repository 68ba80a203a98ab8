"""Relevance by band of frequencies, class by class: which part of the spectrum a network listens to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audio_lrp.errors import UserError
from audio_lrp.timefrequency.bands import interval_weights, pooled
from audio_lrp.timefrequency.stft import STABILIZER, plane_relevance, spectrogram_plane


@dataclass(frozen=True, eq=False)
class ClassBands:
    """Relevance by band, averaged over the clips of each class.

    Attributes:
        relevance: mean relevance of each band, in the units of the relevance (logits), float64 [C, bands].
        share: mean over clips of each band's relevance divided by the sum of all bands' magnitudes, from -1 to 1:
            every clip counts alike, however sure the network is, float64 [C, bands].
        count: number of clips of each class, int64 [C].

    Classes without clips have NaN.
    """

    relevance: Tensor
    share: Tensor
    count: Tensor


def band_relevance(network_input: Tensor, relevance: Tensor, edges: Sequence[float], sample_rate: float) -> Tensor:
    """Relevance of each clip by band of frequencies.

    The relevance of waveforms is computed in time and frequency first (Vielhaben et al., arXiv 2303.06365; see
    `audio_lrp.timefrequency.stft.plane_relevance`, with its stabilizer for maps).

    Args:
        network_input: waveforms [B, 1, 8000], or spectrograms [B, 1, F, T] with rows as in
            `audio_lrp.timefrequency.stft.spectrogram_plane`.
        relevance: of each input value, same shape.
        edges: rising limits of the bands in Hz.
        sample_rate: samples per second.

    Returns:
        Relevance [B, bands]; sums to the clip's relevance where the bands cover all frequencies.

    Raises:
        UserError: shapes that do not fit, or edges that do not rise.

    Example:
        >>> spectrogram = torch.rand(2, 1, 227, 227)
        >>> band_relevance(spectrogram, spectrogram, [0, 1000, 4000], 8000).shape
        torch.Size([2, 2])
    """
    if network_input.ndim not in (3, 4) or relevance.shape != network_input.shape:
        raise UserError(
            f"inputs of shape {list(network_input.shape)} with relevance {list(relevance.shape)}: "
            "pass waveforms [B, 1, N] or spectrograms [B, 1, F, T] and the relevance of each value"
        )
    waveforms = network_input.ndim == 3
    plane = plane_relevance(network_input, relevance, stabilizer=STABILIZER) if waveforms else relevance
    frequencies = spectrogram_plane().frequencies(sample_rate)[: plane.shape[-2]].to(plane.device)
    return pooled(plane, bands=interval_weights(frequencies, edges)).sum(dim=(1, -1))


def by_class(of_clips: Tensor, label: Tensor, num_classes: int) -> ClassBands:
    """Average the relevance of clips over each class.

    Args:
        of_clips: relevance of each clip by band [B, bands].
        label: class of each clip, int64 [B].
        num_classes: number of classes.

    Example:
        >>> by_class(torch.tensor([[1.0, 3.0], [2.0, -2.0]]), torch.tensor([0, 0]), 1).share.tolist()
        [[0.375, 0.125]]
    """
    values = of_clips.double()
    magnitude = values.abs().sum(dim=1, keepdim=True)
    shares = values / magnitude.where(magnitude > 0, 1.0)
    member = torch.nn.functional.one_hot(label, num_classes).double()
    count = member.sum(dim=0)
    relevance, share = (member.T @ each / count[:, None] for each in (values, shares))
    return ClassBands(relevance, share, count.long())
