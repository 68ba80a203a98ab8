"""Figures of a study, the counterparts of the paper's, drawn from the study's tables."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audio_lrp.data.tasks import TASKS
from audio_lrp.study.reported import REPORTED, TEST_ACCURACY
from audio_lrp.study.rows import Row, Value, by_setting
from audio_lrp.study.tables import Tables
from audio_lrp.utils.files import replacing

# Okabe and Ito's colours, which differ for every kind of colour vision, with a line style each.
_ORDERS: Final = {
    "morf": ("#d55e00", "-", "relevance, most relevant first (MoRF)"),
    "amplitude": ("#009e73", "--", "amplitude, loudest first"),
    "random": ("#000000", "-.", "random"),
    "lerf": ("#0072b2", ":", "relevance, least relevant first (LeRF)"),
}
_SETTINGS: Final = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7")
_CLASSES: Final = ("#0072b2", "#d55e00")
_FINE: Final = 0.1
"""The paper's region: up to a tenth of the input removed."""


def draw(tables: Tables, folder: Path) -> None:
    """Draw every figure that there are rows for, as ``<folder>/<name>.png``."""
    for name, figure in figures(tables):
        with replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")


def figures(tables: Tables) -> Iterator[tuple[str, Figure]]:
    """All figures by name."""
    if "accuracy" in tables:
        yield "accuracy", accuracy_chart(tables["accuracy"])
    if "perturbation" in tables:
        yield "removal", removal_chart(tables["perturbation"])
    if "frequency_scaling" in tables:
        yield "frequency_scaling", scaling_chart(tables["frequency_scaling"])
    if "scores" in tables:
        yield "scores", scores_chart(tables["scores"])
    if "randomization" in tables:
        yield "randomization", randomization_chart(tables["randomization"])
    for (network, task), rows in by_setting(tables.get("bands", [])):
        yield f"bands-{network}-{task}", bands_chart(rows, f"{network}, {task}")


def accuracy_chart(rows: Sequence[Row]) -> Figure:
    """Test accuracy of every network and task: each fold as a dot, their mean as a bar, beside the paper's."""
    figure = Figure(figsize=(8, 4.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    names = []
    for place, ((network, task), cells) in enumerate(by_setting(rows)):
        names.append(f"{network}\n{task}")
        _bar_with_dots(axes, place, [100 * float(cell["test_accuracy"] or 0) for cell in cells])
        _mark_reported(axes, place, (TEST_ACCURACY, network, task))
    _mark_reported(axes, None)
    axes.plot([], [], "o", color="black", label="one fold of this study")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 102), ylabel="test accuracy [%]", title="accuracy on speakers never heard before; bars: means")
    _legend_below(figure, axes, columns=2)
    return figure


def removal_chart(rows: Sequence[Row]) -> Figure:
    """Accuracy while the input is removed: the paper's region, and the whole way."""
    settings = list(by_setting(rows))
    figure = Figure(figsize=(10, 1 + 2.7 * len(settings)), dpi=100, layout="constrained")
    grid = figure.subplots(len(settings), 2, squeeze=False, sharey="row")
    for ((network, task), cells), (fine, coarse) in zip(settings, grid, strict=True):
        for order in dict.fromkeys(str(row["order"]) for row in cells):
            color, style, label = _ORDERS.get(
                order, ("#cc79a7", (0, (6, 2)), f"{order.replace('_', ' ')}, highest first")
            )
            points = [row for row in cells if row["order"] == order]
            fractions = sorted({float(row["fraction"] or 0) for row in points})
            values = _folds(points, "fraction", "accuracy", fractions)
            for axes in (fine, coarse):
                axes.plot(fractions, values.mean(axis=0), color=color, linestyle=style, label=label)
                if len(values) > 1:
                    spread = values.std(axis=0, ddof=1)
                    low, high = values.mean(axis=0) - spread, values.mean(axis=0) + spread
                    axes.fill_between(fractions, np.maximum(low, 0), np.minimum(high, 1), color=color, alpha=0.12, lw=0)
        fine.set(xlim=(0, _FINE), ylim=(0, 1.02), ylabel="accuracy", title=f"{network}, {task}")
        coarse.set(xlim=(0, 1), title="the whole way")
        for axes in (fine, coarse):
            axes.grid(color="0.9")
    for axes in grid[-1]:
        axes.set_xlabel("fraction of the clip's samples or bins removed")
    spread = "; mean and standard deviation over folds" if any("fold" in row for row in rows) else ""
    figure.suptitle(f"accuracy while single samples or bins are silenced{spread}")
    _legend_below(figure, grid[0, 0], columns=2)
    return figure


def scaling_chart(rows: Sequence[Row]) -> Figure:
    """Accuracy of gender classifiers after every manipulation of the spectrograms."""
    overall = [row for row in rows if row["speakers"] == "all"]
    settings = list(by_setting(overall))
    figure = Figure(figsize=(8, 3.6 * len(settings)), dpi=100, layout="constrained")
    for index, ((network, task), cells) in enumerate(settings):
        axes = figure.add_subplot(len(settings), 1, index + 1)
        names = list(dict.fromkeys(str(row["manipulation"]) for row in cells))
        for place, name in enumerate(names):
            values = [100 * float(row["accuracy"] or 0) for row in cells if row["manipulation"] == name]
            _bar_with_dots(axes, place, values)
            _mark_reported(axes, place, (name, network, task))
        _mark_reported(axes, None)
        axes.axhline(100 / len(TASKS[task].classes), color="0.5", linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(names)), [fill(name, width=16) for name in names])
        axes.set(ylim=(0, 102), ylabel="accuracy [%]", title=f"{network}, {task}: spectrograms scaled (dotted: chance)")
        if index == 0:
            _legend_below(figure, axes, columns=1)
    return figure


def scores_chart(rows: Sequence[Row]) -> Figure:
    """Scores of the explanations, mean over folds; each fold's interval as a thin line. Not in it: those in nats."""
    rows = [row for row in rows if row["score"] != "complexity"]
    settings = list(by_setting(rows))
    names = list(dict.fromkeys(str(row["score"]) for row in rows))
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for index, ((network, task), cells) in enumerate(settings):
        color = _SETTINGS[index % len(_SETTINGS)]
        shift = (index - (len(settings) - 1) / 2) * 0.8 / len(settings)
        for place, name in enumerate(names):
            found = [row for row in cells if row["score"] == name]
            if not found:
                continue
            for low, high in ((row["low"], row["high"]) for row in found):
                if low is not None and high is not None:  # one speaker gives no interval
                    axes.plot([float(low), float(high)], [place + shift] * 2, color=color, lw=0.8)
            mean = np.mean([float(row["mean"] or 0) for row in found])
            axes.plot(mean, place + shift, "o", color=color, label=f"{network}, {task}" if place == 0 else None)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.grid(color="0.9", axis="x")
    axes.set(xlabel="score; thin lines: 95 % intervals over test speakers", title="scores of the explanations")
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    _legend_below(figure, axes, columns=len(settings))
    return figure


def randomization_chart(rows: Sequence[Row]) -> Figure:
    """Rank correlation of maps with those of a network that forgets what it learnt, layer by layer from the output."""
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    most = 0
    for index, ((network, task), cells) in enumerate(by_setting(rows)):
        layers = list(dict.fromkeys(str(row["layer"]) for row in cells))
        means = [_mean(row["mean"] for row in cells if row["layer"] == layer) for layer in layers]
        axes.plot(
            range(1, len(layers) + 1), means, "o-", color=_SETTINGS[index % len(_SETTINGS)], label=f"{network}, {task}"
        )
        most = max(most, len(layers))
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_xticks(range(1, most + 1))
    axes.set(xlabel="randomised layers, from the output down", ylabel="rank correlation with the original")
    axes.set_title("randomised parameters: maps that depend on what was learnt fall to 0")
    _legend_below(figure, axes, columns=4)
    return figure


def bands_chart(rows: Sequence[Row], title: str) -> Figure:
    """Share of the relevance in each band of frequencies: lines for two classes, an image for more."""
    classes = list(dict.fromkeys(str(row["class"]) for row in rows))
    lows = sorted({float(row["low_hertz"] or 0) for row in rows})
    top = max(float(row["high_hertz"] or 0) for row in rows)
    shares = [_folds([row for row in rows if row["class"] == name], "low_hertz", "share", lows) for name in classes]
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    if len(classes) <= len(_CLASSES):
        for name, values, color in zip(classes, shares, _CLASSES, strict=False):
            axes.stairs(values.mean(axis=0), [*lows, top], color=color, label=name, linewidth=1.6)
            for fold in values:
                axes.stairs(fold, [*lows, top], color=color, alpha=0.3, linewidth=0.7)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set(xlim=(0, top), ylabel="share of a clip's relevance")
        axes.legend(frameon=False, title="class, thin: folds")
    else:
        means = np.stack([values.mean(axis=0) for values in shares])
        peak = float(np.abs(means).max()) or 1.0
        image = axes.imshow(means, "RdBu_r", vmin=-peak, vmax=peak, aspect="auto", extent=(0, top, len(classes), 0))
        axes.set_yticks(np.arange(len(classes)) + 0.5, classes)
        axes.set_ylabel("class")
        figure.colorbar(image, ax=axes, label="share of a clip's relevance")
    axes.set(xlabel="frequency [Hz]", title=f"{title}: relevance for the true class by band, mean over test clips")
    return figure


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def _bar_with_dots(axes: Axes, place: float, values: Sequence[float]) -> None:
    axes.bar(place, float(np.mean(values)), width=0.5, color="#56b4e9")
    axes.plot([place] * len(values), values, "o", color="black", markersize=3.5)


def _mean(values: Iterable[Value]) -> float:
    """Mean of the numbers among values; NaN where there is none."""
    numbers = [float(value) for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else float("nan")


def _mark_reported(axes: Axes, place: float | None, key: tuple[str, str, str] | None = None) -> None:
    """The paper's mean and deviation beside a bar where there is one; without a place, the legend's entry."""
    if place is None:
        axes.errorbar([], [], yerr=[], fmt="D", color="0.4", capsize=3, label="reported (arXiv 1807.03418v2)")
    elif key in REPORTED:
        mean, std = REPORTED[key]
        axes.errorbar(place + 0.33, mean, yerr=std, fmt="D", color="0.4", capsize=3)


def _folds(rows: Sequence[Row], along: str, column: str, places: Sequence[float]) -> NDArray[np.float64]:
    """A column's values along another one [folds, places]; NaN where a fold has none."""
    folds = sorted({int(row.get("fold") or 0) for row in rows})
    values = np.full((len(folds), len(places)), np.nan)
    for row in rows:
        values[folds.index(int(row.get("fold") or 0)), places.index(float(row[along] or 0))] = row[column]
    return values
