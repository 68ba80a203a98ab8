"""Masks of the utterance, whose place in the padded clip is known, among samples and among frames."""

import torch
from torch import Tensor

from audio_lrp.timefrequency.stft import STFT


def utterance_samples(offset: Tensor, length: Tensor, num_samples: int) -> Tensor:
    """Which samples of a waveform belong to the utterance.

    Args:
        offset: first sample of each utterance, integer [B].
        length: its number of samples, integer [B].
        num_samples: samples of the padded clip N.

    Returns:
        Mask, bool [B, 1, N].

    Example:
        >>> utterance_samples(torch.tensor([1]), torch.tensor([2]), 4).tolist()
        [[[False, True, True, False]]]
    """
    position = torch.arange(num_samples, device=offset.device)
    return ((position >= offset[:, None]) & (position < (offset + length)[:, None]))[:, None]


def utterance_frames(offset: Tensor, length: Tensor, stft: STFT) -> Tensor:
    """Which frames of a spectrogram hold samples of the utterance, all or some.

    Args:
        offset: first sample of each utterance, integer [B].
        length: its number of samples, integer [B].
        stft: the spectrogram's; `spectrogram_plane` for the paper's.

    Returns:
        Mask, bool [B, 1, 1, frames], to be broadcast over the bins.
    """
    begin = stft.start + torch.arange(stft.num_frames, device=offset.device) * stft.hop_length
    holds = (begin + stft.window_length > offset[:, None]) & (begin < (offset + length)[:, None])
    return holds[:, None, None]
