"""How training went: loss, scores and learning rate over the epochs."""

from collections.abc import Mapping, Sequence

from audio_lrp.html.blocks import Charts, Paragraph, Section
from audio_lrp.html.charts import Axis, Chart, Line, line_chart
from audio_lrp.report.run_log import STEP, RunLog, steps_per_epoch, training_rows

SHARES = ("accuracy", "f1")
"""Scores written in percent."""


class Clock:
    """Tells the time of training: epochs, or steps where the epochs' length is unknown.

    Attributes:
        unit: what is counted.
        last: the number of steps trained; None where that is unknown, as after a test alone.
    """

    def __init__(self, log: RunLog) -> None:
        rows = training_rows(log.rows)
        self._steps_per_epoch = steps_per_epoch(rows)
        self.unit = "step" if self._steps_per_epoch is None else "epoch"
        steps = [row[STEP] + 1 for row in rows] + [item.step for item in log.explanations if not item.is_test]
        self.last = max(steps, default=None)

    def at(self, steps: float) -> float:
        """The time after so many steps."""
        return round(steps / (self._steps_per_epoch or 1), 2)

    def name(self, steps: float) -> str:
        """The time after so many steps, in words."""
        return f"{self.unit} {self.at(steps):.1f}".removesuffix(".0")

    @property
    def axis(self) -> Axis:
        """Time as a chart's axis."""
        return Axis(self.unit)


def training_section(log: RunLog, clock: Clock) -> Section:
    """A chart for each quantity, training and validation together."""
    lines: dict[str, list[Line]] = {}
    for name in sorted({name for row in log.rows for name in row}):
        stage, _, quantity = name.partition("/")
        label = {"train": "training", "val": "validation"}.get(stage)
        if name.startswith("lr-"):
            quantity, label = "learning rate", name
        if label:
            points = [(clock.at(step + 1), value) for step, value in log.series(name)]
            lines.setdefault(quantity, []).append(_over_time(label, points))
    charts = [_chart(quantity, lines[quantity], clock) for quantity in sorted(lines, key=_importance)]
    if not charts:
        text = "There are no losses and accuracies of a training: either there was none, or no logger to keep them."
        return Section("training", "Training", [Paragraph(text, warning=True)])
    return Section("training", "Training", [Charts(charts)])


def _importance(quantity: str) -> int:
    order = ("accuracy", "loss", "f1")
    return order.index(quantity) if quantity in order else len(order)


def _chart(quantity: str, lines: Sequence[Line], clock: Clock) -> Chart:
    share = quantity in SHARES
    return line_chart(
        f"{quantity} ({lines[0].label})" if len(lines) == 1 and quantity != "learning rate" else quantity,
        lines,
        clock.axis,
        Axis(quantity, percent=share, limits=(0, 1) if share else None),
    )


def score_charts(scores: Mapping[float, Mapping[str, float]], orders: Sequence[str], clock: Clock) -> list[Chart]:
    """A chart for each score over time; those that differ in the order of removal alone share one."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for time, values in scores.items():
        for name, value in values.items():
            order = next((order for order in orders if name.endswith(f"_{order}")), "")
            score = name.removesuffix(f"_{order}") if order else name
            lines.setdefault(score, {}).setdefault(order or score, []).append((time, value))
    return [
        line_chart(
            score,
            [_over_time(name, named[name]) for name in [*orders, score] if name in named],
            clock.axis,
            Axis(score),
        )
        for score, named in lines.items()
    ]


def _over_time(label: str, points: Sequence[tuple[float, float]]) -> Line:
    return Line(label, [time for time, _ in points], [value for _, value in points])
