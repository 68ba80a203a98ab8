"""Charts as small SVGs that take the page's colours, light or dark, and whose numbers stand in a table too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 20, 12, 40
_STYLES = 5
"""Colours with dashes of their own; further lines begin with the first again."""
_MARKED = 40
"""A line of more points shows none."""
_DRAWN = 200
"""A line of more points is averaged."""


@dataclass(frozen=True)
class Line:
    """Values to be joined.

    Attributes:
        label: what the line stands for.
        x: rising.
        y: as many.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """What a chart's axis shows.

    Attributes:
        label: the quantity and its unit.
        percent: whether shares are written in percent.
        root: whether distances are square roots, which gives small values room.
        limits: lowest and highest value; None: as the values have it.
    """

    label: str
    percent: bool = False
    root: bool = False
    limits: tuple[float, float] | None = None

    def text(self, value: float) -> str:
        """A value, written."""
        return f"{round(100 * value, 2):g} %" if self.percent else f"{value:.4g}"


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: what it shows.
        drawing: the SVG.
        legend: what each colour means: the number of its style and its label.
        columns: names of the columns of its numbers.
        rows: its numbers, where no table beside it has them.
        filled: whether it is made of areas; else of lines.
    """

    title: str
    drawing: Markup
    legend: Sequence[tuple[int, str]]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    filled: bool = False


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Chart:
    """Lines over a common axis.

    Args:
        title: what is shown.
        lines: at least one, each of at least one finite point; points that are not finite are left out.
        x: the axis below.
        y: the axis at the left.
    """
    lines = [_finite(line) for line in lines]
    across = _Scale(x, [value for line in lines for value in line.x], _LEFT, WIDTH - _RIGHT)
    up = _Scale(y, [value for line in lines for value in line.y], HEIGHT - _BOTTOM, _TOP)
    drawn = Markup("").join(_line(number % _STYLES, _averaged(line), across, up) for number, line in enumerate(lines))
    rows = [
        [line.label, x.text(at), y.text(value)]
        for line in lines
        for at, value in zip(line.x, line.y, strict=True)
        if len(line.x) <= _DRAWN
    ]
    return Chart(
        title=title,
        drawing=_svg(HEIGHT, f"{title}: {y.label} over {x.label}", _grid(across, up) + drawn),
        legend=[(number % _STYLES, line.label) for number, line in enumerate(lines)] if len(lines) > 1 else [],
        columns=["line", x.label, y.label],
        rows=rows,
    )


def stacked_bars(title: str, parts: Sequence[str], bars: Mapping[str, Sequence[float]], axis: Axis) -> Chart:
    """Bars whose parts add up; those of either sign stack on their own side of zero.

    Args:
        title: what is shown.
        parts: the parts' names.
        bars: for each bar, from the top, its parts' amounts.
        axis: the amounts' quantity.
    """
    ends = [sum(value for value in bar if value * sign > 0) for bar in bars.values() for sign in (1, -1)]
    height = 34 * len(bars) + _BOTTOM + 4
    across = _Scale(axis, [0.0, *ends], 8, WIDTH - 16)
    bottom = height - _BOTTOM
    drawn = Markup("").join(_tick(across, value, 4, bottom) for value in across.ticks)
    drawn += Markup('<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="{1}"/>').format(across(0), bottom)
    drawn += _axis_label(axis, height)
    for row, (name, amounts) in enumerate(bars.items()):
        drawn += Markup('<text x="8" y="{}">{}</text>').format(34 * row + 16, name)
        drawn += _bar(name, parts, amounts, across, 34 * row + 20)
    return Chart(title, _svg(height, f"{title}: {axis.label}", drawn), [*enumerate(parts)], filled=True)


def _bar(name: str, parts: Sequence[str], amounts: Sequence[float], across: "_Scale", top: int) -> Markup:
    drawn, ends = Markup(""), {True: 0.0, False: 0.0}
    for number, (part, amount) in enumerate(zip(parts, amounts, strict=True)):
        begin, end = ends[amount < 0], ends[amount < 0] + amount
        ends[amount < 0] = end
        left, right = sorted((across(begin), across(end)))
        drawn += Markup(
            '<rect class="fill-{}" x="{:.1f}" y="{}" width="{:.1f}" height="11"><title>{}</title></rect>'
        ).format(number, left, top, right - left, f"{name}, {part}: {across.axis.text(amount)}")
    return drawn


class _Scale:
    """Where values of an axis lie in the drawing, and its ticks."""

    def __init__(self, axis: Axis, values: Sequence[float], begin: float, end: float) -> None:
        self.axis = axis
        low, high = axis.limits or (min(values), max(values))
        if low == high:
            low, high = low - 0.5, high + 0.5
        locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
        ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.5, 1] if axis.root else [float(v) for v in locator.tick_values(low, high)]
        if axis.limits is None and not axis.root:
            # Up to the ticks around the values where that wastes little.
            inside = [tick for tick in ticks if low <= tick <= high]
            step = ticks[1] - ticks[0]
            low = ticks[0] if not inside or inside[0] - low > 0.5 * step else min(low, inside[0])
            high = ticks[-1] if not inside or high - inside[-1] > 0.5 * step else max(high, inside[-1])
        margin = 1e-9 * (high - low)
        self.ticks = [tick for tick in ticks if low - margin <= tick <= high + margin]
        self._places = (self._stretched(low), self._stretched(high)), (begin, end)

    def _stretched(self, value: float) -> float:
        return float(np.sqrt(value)) if self.axis.root else value

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return float(np.interp(self._stretched(value), *self._places))


def _grid(across: _Scale, up: _Scale) -> Markup:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    drawn = Markup("").join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text class="left" x="{3}" y="{4:.1f}">{5}</text>'
        ).format(_LEFT, right, up(tick), _LEFT - 6, up(tick) + 4, up.axis.text(tick))
        for tick in up.ticks
    )
    drawn += Markup("").join(_tick(across, tick, _TOP, bottom) for tick in across.ticks)
    drawn += Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(_LEFT, right, bottom)
    return drawn + _axis_label(across.axis, HEIGHT)


def _tick(across: _Scale, value: float, top: int, bottom: int) -> Markup:
    return Markup(
        '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
        '<text class="below" x="{0:.1f}" y="{3}">{4}</text>'
    ).format(across(value), top, bottom, bottom + 16, across.axis.text(value))


def _axis_label(axis: Axis, height: int) -> Markup:
    return Markup('<text class="below" x="{}" y="{}">{}</text>').format(
        (_LEFT + WIDTH - _RIGHT) / 2, height - 6, axis.label
    )


def _line(number: int, line: Line, across: _Scale, up: _Scale) -> Markup:
    points = [(across(x), up(y)) for x, y in zip(line.x, line.y, strict=True)]
    drawn = Markup('<polyline class="line-{}" points="{}"/>').format(
        number, " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    )
    if len(points) <= _MARKED:
        for (x, y), at, value in zip(points, line.x, line.y, strict=True):
            text = f"{line.label}, {across.axis.label} {across.axis.text(at)}: {up.axis.text(value)}"
            drawn += Markup('<circle class="fill-{}" cx="{:.1f}" cy="{:.1f}" r="2.6">{}</circle>').format(
                number, x, y, Markup("<title>{}</title>").format(text)
            )
    return drawn


def _finite(line: Line) -> Line:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(x) and np.isfinite(y)]
    return Line(line.label, [x for x, _ in points], [y for _, y in points])


def _averaged(line: Line) -> Line:
    """The means of neighbours where there are more points than anybody could see."""
    if len(line.x) <= _DRAWN:
        return line
    x, y = ([float(part.mean()) for part in np.array_split(np.asarray(values), _DRAWN)] for values in (line.x, line.y))
    return Line(line.label, x, y)


def _svg(height: int, description: str, content: Markup) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, description, content
    )
