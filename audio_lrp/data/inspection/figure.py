"""A corpus at a glance: how many recordings there are of each digit by each speaker, how loud and how long they are."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_DPI = 100
_LEVEL_BINS = np.arange(-100, 1, 2)  # decibels
_NAMED_CELLS = 40  # with more speakers the numbers in the cells cannot be read


def corpus_overview(
    counts: NDArray[np.int64],
    levels: Sequence[NDArray[np.float64]],
    seconds: NDArray[np.float64],
    speakers: Sequence[str],
    title: str,
    *,
    longest: float = 1.0,
) -> Figure:
    """Recordings per speaker and digit, histogram of levels per speaker, histogram of lengths.

    Args:
        counts: number of recordings [speakers, 10].
        levels: levels of each speaker's recordings, in dB relative to full scale, [recordings] each.
        seconds: lengths of all recordings [recordings].
        speakers: the speakers' names, in the order of ``counts`` and ``levels``.
        title: the corpus.
        longest: length in seconds that is marked, beyond which recordings are cut.

    Returns:
        The figure, 1200 pixels wide, higher for more speakers.
    """
    height = min(12.0, 3.2 + 0.2 * len(speakers))
    figure = Figure(figsize=(12, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    cells, loudness, length = figure.subplots(1, 3, width_ratios=(3, 4, 3))
    _draw_counts(cells, counts, speakers)
    histograms = np.stack([np.histogram(values, _LEVEL_BINS)[0] for values in levels])
    _name_speakers(loudness, speakers)
    loudness.imshow(
        histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1),
        aspect="auto",
        cmap="Greys",
        extent=(_LEVEL_BINS[0], _LEVEL_BINS[-1], len(speakers) - 0.5, -0.5),
    )
    (heard,) = np.nonzero(histograms.sum(axis=0))
    if len(heard):
        loudness.set_xlim(_LEVEL_BINS[heard[0]] - 2, _LEVEL_BINS[heard[-1] + 1] + 2)
    loudness.set(title="share of each speaker's recordings", xlabel="level (dB of full scale)")
    length.hist(seconds, bins=50, color="#0072b2")
    length.axvline(longest, color="#d55e00", linestyle="--", label="longer ones are cut")
    length.set(title="length", xlabel="seconds", ylabel="recordings")
    length.legend()
    return figure


def _draw_counts(axes: Axes, counts: NDArray[np.int64], speakers: Sequence[str]) -> None:
    axes.imshow(counts, aspect="auto", cmap="viridis", vmin=0)
    axes.set(title="number of recordings", xlabel="digit", ylabel="speaker", xticks=range(10))
    _name_speakers(axes, speakers)
    if len(speakers) > _NAMED_CELLS:
        return
    for (row, digit), count in np.ndenumerate(counts):
        dark = count < counts.max() * 0.6
        axes.text(digit, row, str(count), ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _name_speakers(axes: Axes, speakers: Sequence[str]) -> None:
    axes.set_yticks(range(len(speakers)), speakers, fontsize=min(8.0, 500 / len(speakers)), parse_math=False)
