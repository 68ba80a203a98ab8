"""Figures of relevance, perturbation curves and confusion matrices: NumPy arrays in, matplotlib figures out.

Only matplotlib's object-oriented interface is used, so that drawing never touches the plots of a notebook or a
training script. Relevance is drawn on a diverging scale, symmetric about zero: red is evidence for the explained class,
blue evidence against it; people with a colour vision deficiency tell the two apart as well.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

_AREA_COLORS = "RdBu_r"
# On a thin line zero is grey instead of white, which would vanish on the paper.
_LINE_COLORS = LinearSegmentedColormap.from_list("relevance_line", ["#08519c", "#c4c4c4", "#b3000c"])
# Okabe and Ito's colours with a line style each, so that curves differ in print and for every kind of colour vision.
_CURVE_STYLES = (("#d55e00", "-"), ("#0072b2", "--"), ("#000000", "-."), ("#009e73", ":"), ("#cc79a7", (0, (6, 2))))
_DPI = 100


def waveform_relevance(
    waveform: NDArray[np.float32],
    relevance: NDArray[np.float32],
    title: str,
    *,
    sample_rate: int = 8000,
    utterance: tuple[int, int] | None = None,
    window: int = 40,
) -> Figure:
    """A waveform coloured by relevance, above the relevance over time.

    The relevance of single samples flickers faster than a picture has pixels; it is summed over short windows, which
    keeps its total.

    Args:
        waveform: the network's input [samples].
        relevance: relevance of each sample [samples].
        title: what is explained.
        sample_rate: samples per second.
        utterance: first sample of the utterance and the first one after it, shaded lightly.
        window: samples in a window over which relevance is summed.

    Returns:
        The figure, 1000 x 420 pixels.
    """
    starts = np.arange(0, len(waveform), window)
    summed = np.add.reduceat(relevance, starts)
    seconds = np.arange(len(waveform) + 1) / sample_rate
    scale = _symmetric(summed)

    figure = _figure(10.0, 4.2)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(60, 1), hspace=0.2, wspace=0.04)
    figure.subplots_adjust(left=0.095, right=0.91, bottom=0.125, top=0.915)
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=above)

    # One polyline per window and one sample longer than it, so that neighbours touch.
    points = np.column_stack([seconds[:-1], waveform])
    lines = LineCollection([points[start : start + window + 1] for start in starts], cmap=_LINE_COLORS, norm=scale)
    lines.set_array(summed)
    lines.set_linewidth(1.1)
    above.add_collection(lines)
    peak = 1.05 * _peak(waveform)
    above.set(ylim=(-peak, peak), ylabel="amplitude", title=title)
    above.tick_params(labelbottom=False)

    edges = np.append(seconds[starts], seconds[-1])
    below.stairs(np.maximum(summed, 0), edges, fill=True, color=_LINE_COLORS(1.0), linewidth=0)
    below.stairs(np.minimum(summed, 0), edges, fill=True, color=_LINE_COLORS(0.0), linewidth=0)
    below.set(xlim=(0, seconds[-1]), ylim=(scale.vmin, scale.vmax), ylabel="relevance")
    below.set_xlabel("time [s]" if utterance is None else "time [s], utterance shaded")
    figure.align_ylabels((above, below))
    below.xaxis.set_major_locator(MultipleLocator(0.1))
    below.locator_params(axis="y", nbins=4)
    for axes in (above, below):
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))  # long labels would push the axis's name out
    if utterance is not None:
        for axes in (above, below):
            axes.axvspan(utterance[0] / sample_rate, utterance[1] / sample_rate, color="0.94", zorder=0)
    _colorbar(figure, lines, figure.add_subplot(grid[:, 1]), f"relevance per {1000 * window / sample_rate:g} ms")
    return figure


def spectrogram_relevance(
    spectrogram: NDArray[np.float32],
    relevance: NDArray[np.float32],
    title: str,
    *,
    frequencies: NDArray[np.float64],
    times: NDArray[np.float64],
    utterance: tuple[float, float] | None = None,
    window: int = 5,
    name: str = "network input",
) -> Figure:
    """A spectrogram beside its relevance map.

    The relevance of single bins is speckled by the strides of the network; around each bin it is averaged.

    Args:
        spectrogram: the network's input [frequency, time].
        relevance: relevance of each time-frequency bin [frequency, time].
        title: what is explained.
        frequencies: centre of each row, evenly spaced, in Hz [frequency].
        times: centre of each column, evenly spaced, in seconds [time].
        utterance: begin and end of the utterance in seconds, marked by thin lines.
        window: odd side of the square, in bins, over which relevance is averaged.
        name: what the spectrogram is called.

    Returns:
        The figure, 1000 x 420 pixels.
    """
    figure = _figure(10.0, 4.2)
    grid = figure.add_gridspec(1, 5, width_ratios=(28, 1, 4.5, 28, 1), wspace=0.08)
    figure.subplots_adjust(left=0.075, right=0.92, bottom=0.125, top=0.86)
    figure.suptitle(title, y=0.975)
    half_bin, half_frame = (frequencies[1] - frequencies[0]) / 2, (times[1] - times[0]) / 2
    extent = (times[0] - half_frame, times[-1] + half_frame, frequencies[0] - half_bin, frequencies[-1] + half_bin)
    padded = np.pad(relevance, window // 2)
    averaged = sliding_window_view(padded, (window, window)).mean(axis=(2, 3))
    panels = (
        (spectrogram, name, "viridis", _spanning(spectrogram)),
        (averaged, f"relevance, averaged over {window} x {window} bins", _AREA_COLORS, _symmetric(averaged)),
    )
    for column, (values, label, colors, scale) in zip((0, 3), panels, strict=True):
        axes = figure.add_subplot(grid[0, column])
        image = axes.imshow(values, colors, scale, aspect="auto", origin="lower", extent=extent)
        axes.set(xlim=extent[:2], xlabel="time [s]", title=label)  # an utterance may reach beyond the outermost frames
        axes.set_ylabel("frequency [Hz]" if column == 0 else "")
        axes.tick_params(labelleft=column == 0)
        if utterance is not None:
            for second in utterance:
                axes.axvline(second, color="0.6", linewidth=0.8, linestyle=":")
        _colorbar(figure, image, figure.add_subplot(grid[0, column + 1]), "" if column == 0 else "relevance per bin")
    return figure


def perturbation_chart(
    fractions: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]], orders: Sequence[str], title: str
) -> Figure:
    """Perturbation curves: what remains of the network's output while ever more of the input is removed.

    Args:
        fractions: fraction of the input removed at each step, 0 to 1 [steps].
        curves: for each quantity (accuracy, probability, ...), a curve per order [orders, steps].
        orders: in which order the input is removed, e.g. ``("morf", "random", "amplitude")``.
        title: what is shown.

    Returns:
        The figure: a panel per quantity, the orders as lines in each.
    """
    figure = Figure(figsize=(3.6 * len(curves) + 0.4, 3.9), dpi=_DPI, layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (quantity, values) in zip(panels, curves.items(), strict=True):
        for order, curve, (color, style) in zip(orders, values, itertools.cycle(_CURVE_STYLES), strict=False):
            axes.plot(fractions, curve, label=order, color=color, linestyle=style, marker="o", markersize=3)
        axes.set(xlabel="fraction removed", ylabel=quantity, xlim=(0, fractions[-1]))
        axes.grid(color="0.9")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(curves), frameon=False)
    return figure


def conservation_chart(rows: Sequence[Mapping[str, str | float]], title: str) -> Figure:
    """Where each layer's relevance went: to its inputs, its biases and the stabilizer, as bars that add up.

    Args:
        rows: one per layer, from the input to the output, with ``layer``, ``rule``, ``upper``, ``lower``, ``to_bias``
            and ``to_stabilizer`` (see `audio_lrp.attribution.Conservation`).
        title: what is shown.

    Returns:
        The figure: the output's layer on top, relevance that came from above as a black mark.
    """
    figure = Figure(figsize=(9.0, 1.4 + 0.34 * len(rows)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    # Amounts of either sign stack on their own side of zero.
    ends = {1: np.zeros(len(rows)), -1: np.zeros(len(rows))}
    parts = {"inputs": "lower", "biases": "to_bias", "stabilizer": "to_stabilizer"}
    for (label, key), color in zip(parts.items(), ("#0072b2", "#e69f00", "#cc79a7"), strict=True):
        amounts = np.array([float(row[key]) for row in rows])
        begins = np.where(amounts < 0, ends[-1], ends[1])
        axes.barh(places, amounts, left=begins, height=0.7, color=color, label=label)
        ends[1], ends[-1] = ends[1] + np.maximum(amounts, 0), ends[-1] + np.minimum(amounts, 0)
    upper = [float(row["upper"]) for row in rows]
    axes.plot(upper, places, "|", color="black", markersize=16, markeredgewidth=2, label="came from above")
    axes.set_yticks(places, [f"{row['layer']}  {row['rule']}" for row in rows])
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="relevance, mean over the batch", title=title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: counts in the cells, colours by each true class's share.

    Args:
        counts: examples of each true class (row) given to each predicted class (column) [classes, classes].
        class_names: the classes' names.
        title: what is shown.

    Returns:
        The figure.
    """
    side = max(4.0, 1.8 + 0.45 * len(class_names))
    figure = Figure(figsize=(1.2 * side, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, "Blues", Normalize(0, 1), aspect="auto")
    for row, column in np.ndindex(counts.shape):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure to an RGB image [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI)


def _peak(values: NDArray[np.float32]) -> float:
    """The largest magnitude; 1 where everything is zero, so that it always spans an axis."""
    return float(np.abs(values).max()) or 1.0


def _symmetric(values: NDArray[np.float32]) -> Normalize:
    """A colour scale from minus to plus the largest magnitude, zero in the middle."""
    return Normalize(-_peak(values), _peak(values))


def _spanning(values: NDArray[np.float32]) -> Normalize:
    """A colour scale over the values; where all are the same, as in silence, that value is its dark end."""
    lowest, highest = float(values.min()), float(values.max())
    return Normalize(lowest, highest if highest > lowest else lowest + 1)


def _colorbar(figure: Figure, drawn: ScalarMappable, axes: Axes, label: str) -> None:
    bar = figure.colorbar(drawn, cax=axes)
    bar.outline.set_linewidth(0.5)
    bar.set_label(label)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
