"""Figures of a sweep: which parameters matter, and which values were good."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution

from audio_lrp.sweeps.parameters import Parameter

_DPI = 100
_MOST_TICKS = 12
"""Choices named on an axis; of more, some."""


@dataclass(frozen=True)
class Line:
    """One trial in a figure.

    Attributes:
        point: a value for every parameter.
        value: the metric's value; of a pruned trial the last one.
        pruned: whether the trial was stopped early.
    """

    point: Mapping[str, Any]
    value: float
    pruned: bool


def importance_chart(importances: Mapping[str, float], metric: str, trials: int) -> Figure:
    """How much of what makes good trials good each parameter accounts for, as bars.

    Args:
        importances: share of each parameter.
        metric: name of the metric.
        trials: number of trials that the shares were computed from.

    Returns:
        The figure.
    """
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure = Figure(figsize=(8.0, 1.2 + 0.4 * len(ordered)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(ordered))
    axes.barh(places, [share for _, share in ordered], color="#0072b2", height=0.65)
    for place, (_, share) in zip(places, ordered, strict=True):
        axes.text(share, float(place), f" {share:.2f}", va="center")
    axes.set_yticks(places, [short_name(name) for name, _ in ordered])
    axes.set(xlim=(0, 1.12 * max(1e-9, ordered[-1][1])), xlabel="importance (PED-ANOVA)")
    axes.set_title(f"what decides {metric}, from {trials} trials")
    return figure


def parallel_coordinates(
    lines: Sequence[Line], parameters: Mapping[str, Parameter], metric: str, maximize: bool
) -> Figure:
    """All trials as lines across one axis per parameter, and the metric's axis at the right end.

    Args:
        lines: the trials; at least one.
        parameters: the parameters, constants left out.
        metric: name of the metric.
        maximize: whether the largest value is the best one.

    Returns:
        The figure: complete trials coloured by the metric, the best one drawn thicker, pruned ones grey.
    """
    figure = Figure(figsize=(2.0 + 2.1 * len(parameters), 5.2), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    columns = [
        *(_Axis([line.point[name] for line in lines], short_name(name), item) for name, item in parameters.items()),
        _Axis([line.value for line in lines], metric, None),
    ]
    complete = [line.value for line in lines if not line.pruned] or [line.value for line in lines]
    colors = ScalarMappable(Normalize(min(complete), max(complete)), colormaps["viridis"])
    best = max(complete) if maximize else min(complete)
    # Pruned trials lie beneath, the best one on top of all.
    for number in sorted(range(len(lines)), key=lambda i: (not lines[i].pruned, lines[i].value == best)):
        line, heights = lines[number], [column.heights[number] for column in columns]
        is_best = not line.pruned and line.value == best
        color = "0.8" if line.pruned else colors.to_rgba(np.array(line.value))
        axes.plot(range(len(columns)), heights, color=color, linewidth=3.5 if is_best else 1.4, alpha=0.9)
    for place, column in enumerate(columns):
        axes.axvline(place, color="0.3", linewidth=0.8)
        for height, text in column.ticks:
            axes.text(place - 0.03, height, text, ha="right", va="center", fontsize=8, bbox=_BACKGROUND)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], rotation=12, ha="center")
    axes.set_yticks([])
    axes.set(xlim=(-0.45, len(columns) - 0.9), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    pruned = sum(line.pruned for line in lines)
    figure.suptitle(f"{len(lines) - pruned} complete trials, {pruned} pruned (grey), the best one thick", fontsize=11)
    figure.colorbar(colors, ax=axes, label=metric, pad=0.01)
    return figure


def comparison_chart(lines: Sequence[Line], name: str, choices: Sequence[Any], metric: str) -> Figure:
    """What the metric came to with each choice of the only parameter, as bars; with several trials their mean.

    Args:
        lines: the trials; at least one.
        name: the parameter.
        choices: its values, in the order from top to bottom; those that no trial had are left out.
        metric: name of the metric.

    Returns:
        The figure: one dot for each trial, those of pruned ones grey and not in the mean.
    """
    # As JSON, in which 1, true and "1" are three choices, as they are in a sweep's file.
    trials = [[line for line in lines if json.dumps(line.point[name]) == json.dumps(choice)] for choice in choices]
    rows = [(str(choice), tried) for choice, tried in zip(choices, trials, strict=True) if tried]
    rows.reverse()  # axes grow upwards
    figure = Figure(figsize=(8.0, 1.4 + 0.4 * len(rows)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for place, (_, tried) in enumerate(rows):
        complete = [line.value for line in tried if not line.pruned]
        if complete:
            mean = float(np.mean(complete))
            axes.barh(place, mean, color="#56b4e9", height=0.65)
            axes.text(max(0.0, *complete), place, f"  {mean:.4g}", va="center")
        for line in tried:
            axes.plot(line.value, place, "o", color="0.6" if line.pruned else "#0072b2", markersize=4)
    axes.set_yticks(range(len(rows)), [text for text, _ in rows])
    axes.margins(x=0.16)  # room for the numbers
    axes.set(xlabel=metric, ylim=(-0.6, len(rows) - 0.4))
    axes.set_title(f"{metric} with each {short_name(name)}, {len(lines)} trials")
    return figure


class _Axis:
    """Where the values of one parameter lie between 0 and 1, and what is written there."""

    def __init__(self, values: Sequence[Any], name: str, parameter: Parameter | None) -> None:
        self.name = name
        self.heights: list[float]
        self.ticks: list[tuple[float, str]]
        if parameter is None or not _are_choices(values, parameter):
            self._measure(np.array(values, dtype=float), parameter is not None and parameter.logarithmic)
        else:
            self._choose(values)

    def _choose(self, values: Sequence[Any]) -> None:
        # Numbers in their order, everything else as text.
        choices = [str(value) for value in sorted(set(values))] if _are_numbers(values) else sorted({*map(str, values)})
        places = {choice: number / max(1, len(choices) - 1) for number, choice in enumerate(choices)}
        self.heights = [places[str(value)] for value in values]
        step = -(-len(choices) // _MOST_TICKS)
        self.ticks = [(places[choice], choice[:24]) for choice in choices[::step]]

    def _measure(self, values: "np.ndarray[Any, np.dtype[np.float64]]", logarithmic: bool) -> None:
        scaled = np.log(values) if logarithmic and values.min() > 0 else values
        lowest, span = scaled.min(), float(np.ptp(scaled)) or 1.0
        self.heights = ((scaled - lowest) / span).tolist()
        marks = np.linspace(0, 1, 5) if np.ptp(scaled) else np.zeros(1)
        numbers = lowest + marks * span
        texts = np.exp(numbers) if scaled is not values else numbers
        self.ticks = [(float(mark), f"{text:.3g}") for mark, text in zip(marks, texts, strict=True)]


_BACKGROUND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}


def short_name(option: str) -> str:
    """The last two words of an option's dotted name, which tell enough.

    Example:
        >>> short_name("model.init_args.optimizer.init_args.lr")
        'optimizer.lr'
    """
    return ".".join([word for word in option.split(".") if word != "init_args"][-2:])


def _are_choices(values: Sequence[Any], parameter: Parameter) -> bool:
    return isinstance(parameter.variable, CategoricalDistribution) or not _are_numbers(values)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
