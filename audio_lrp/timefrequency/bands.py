"""Sums of time-frequency relevance over bands of frequencies and segments of time."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audio_lrp.errors import UserError


def interval_weights(centres: Tensor, edges: Sequence[float]) -> Tensor:
    """Weights that sum bins into bands, or frames into segments, without overlap.

    Args:
        centres: frequencies in Hz or times in seconds (`STFT.frequencies`, `STFT.times`) [centres].
        edges: rising limits of the intervals, in the same unit; a centre on a limit belongs to the interval above.

    Returns:
        1 where a centre lies in an interval, else 0 [len(edges) - 1, centres]; centres outside are in none.

    Raises:
        UserError: fewer than two edges, or edges that do not rise.

    Example:
        >>> interval_weights(torch.tensor([0.0, 1.0, 2.0, 3.0]), [0, 2, 4]).tolist()
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    limits = torch.as_tensor(edges, dtype=centres.dtype, device=centres.device)
    if len(limits) < 2 or not (limits.diff() > 0).all():
        raise UserError(f"the edges of the intervals are {list(edges)}: pass two or more numbers that rise")
    return ((centres >= limits[:-1, None]) & (centres < limits[1:, None])).to(centres.dtype)


def mel_weights(frequencies: Tensor, num_bands: int, lowest: float = 0.0, highest: float | None = None) -> Tensor:
    """Weights that sum bins into overlapping triangular bands, evenly spaced on the mel scale.

    The mel filter bank without area normalisation, ``mel = 2595 * log10(1 + f / 700)``, but for the outer slopes:
    the lowest band reaches down to 0 and the highest up to the last bin at full weight, so that each bin's weights sum
    to 1 and the bands' relevance sums to the bins'.

    Args:
        frequencies: bins in Hz [bins].
        num_bands: number of bands.
        lowest: where the lowest band's triangle would begin, in Hz.
        highest: where the highest band's triangle would end, in Hz; None: at the last bin.

    Returns:
        Weights [num_bands, bins].

    Raises:
        UserError: no bands, or limits that are not 0 <= lowest < highest.

    Example:
        >>> mel_weights(torch.linspace(0, 4000, 228), 40).sum(dim=0).unique().tolist()
        [1.0]
    """
    highest = float(frequencies[-1]) if highest is None else highest
    if num_bands < 1 or not 0 <= lowest < highest:
        raise UserError(
            f"{num_bands} mel bands from {lowest} to {highest} Hz do not exist: pass 1 or more bands and "
            "0 <= lowest < highest"
        )
    bottom, top = (math.log10(1 + limit / 700) for limit in (lowest, highest))
    mel = np.linspace(bottom, top, num_bands + 2)
    centres = 700 * (10 ** mel[1:-1] - 1)
    # One band's weight is 1 at its centre and falls linearly to 0 at its neighbours'; interp is flat beyond the ends.
    weights = [np.interp(frequencies.double().cpu().numpy(), centres, peak) for peak in np.eye(num_bands)]
    return torch.from_numpy(np.stack(weights)).to(frequencies)


def pooled(relevance: Tensor, *, bands: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
    """Sum relevance over bands of frequencies, over segments of time, or both.

    Args:
        relevance: relevance [..., bins, frames].
        bands: weights of the bins [bands, bins] (`interval_weights`, `mel_weights`); None: leave bins alone.
        frames: weights of the frames [segments, frames] (`interval_weights`); None: leave frames alone.

    Returns:
        Relevance [..., bands or bins, segments or frames].

    Raises:
        UserError: weights for another number of bins or frames.
    """
    for weights, size, axis in ((bands, relevance.shape[-2], "bins"), (frames, relevance.shape[-1], "frames")):
        if weights is not None and weights.shape[1:] != (size,):
            raise UserError(f"the weights have shape {list(weights.shape)} but the relevance has {size} {axis}")
    if bands is not None:
        relevance = bands.to(relevance) @ relevance
    if frames is not None:
        relevance = relevance @ frames.to(relevance).T
    return relevance
