"""What a run has logged, whatever logger it had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

STEP, EPOCH = "step", "epoch"


@dataclass(frozen=True)
class LoggedClip:
    """An explained clip as it was logged.

    Attributes:
        caption: its classes and the composite; empty where none was kept.
        pictures: files by kind: ``"map"``, ``"time_frequency"``.
        sounds: files by name: ``"original"``, ``"positive"``, ``"negative"``.
    """

    caption: str = ""
    pictures: Mapping[str, Path] = field(default_factory=dict)
    sounds: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedExplanation:
    """What `LRPCallback` has logged at one step.

    Attributes:
        step: the training's step.
        is_test: of test clips; else of validation clips.
        scores: scalars by name, without the ``lrp/``.
        curves: rows of the perturbation curves: order, fraction, accuracy, probability, logit.
        clips: the clips shown.
        ledger: rows of the conservation ledger, layer by layer.
    """

    step: int
    is_test: bool
    scores: Mapping[str, float]
    curves: Sequence[Mapping[str, str]] = ()
    clips: Sequence[LoggedClip] = ()
    ledger: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class RunLog:
    """Everything that was logged.

    Attributes:
        rows: logged scalars by name, each row with `STEP` and mostly with `EPOCH` (see `training_rows`).
        explanations: of every step that had one, in the order of the steps.
        confusions: rows of the test's confusion matrix: true, predicted, count.
        versions: of packages, by name.
        problems: what could not be read, a sentence each.
    """

    rows: Sequence[Mapping[str, float]] = ()
    explanations: Sequence[LoggedExplanation] = ()
    confusions: Sequence[Mapping[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[str] = ()

    def series(self, name: str) -> list[tuple[float, float]]:
        """A scalar at every step it was logged at."""
        return [(row[STEP], row[name]) for row in self.rows if name in row]

    def last(self, name: str) -> float | None:
        """The scalar's last value; None where it never was logged."""
        values = self.series(name)
        return values[-1][1] if values else None


def joined(logs: Sequence[RunLog]) -> RunLog:
    """Several logs of one run as one."""
    versions: dict[str, str] = {}
    for log in logs:
        versions |= log.versions
    return RunLog(
        rows=sorted((row for log in logs for row in log.rows), key=lambda row: row[STEP]),
        explanations=_merged([item for log in logs for item in log.explanations]),
        confusions=next((log.confusions for log in reversed(logs) if log.confusions), ()),
        versions=versions,
        problems=[problem for log in logs for problem in log.problems],
    )


def _merged(explanations: Sequence[LoggedExplanation]) -> list[LoggedExplanation]:
    """In the order of the steps; parts of one explanation, which may have been logged one by one, together."""
    merged: dict[tuple[int, bool], LoggedExplanation] = {}
    for new in explanations:
        key = (new.step, new.is_test)
        old = merged.get(key, new)
        merged[key] = LoggedExplanation(
            *key,
            {**old.scores, **new.scores},
            new.curves or old.curves,
            new.clips or old.clips,
            new.ledger or old.ledger,
        )
    return [merged[key] for key in sorted(merged)]


def training_rows(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Rows of training and validation, whose steps and epochs count from 0.

    Others, of a test or without epoch, as those of explanations are, stand at the number of steps done.
    """
    return [row for row in rows if EPOCH in row and not any(name.startswith("test/") for name in row)]


def steps_per_epoch(rows: Sequence[Mapping[str, float]]) -> int | None:
    """Steps in an epoch, from `training_rows`; None where they are all of one epoch, which need not have ended.

    Exact where a row stands at the end of an epoch, as those of a validation mostly do; else, from the middle of epoch
    e, too small by at most one part in e + 1.

    Example:
        >>> steps_per_epoch([{"step": 22, "epoch": 0}, {"step": 49, "epoch": 2}, {"step": 68, "epoch": 2}])
        23
    """
    if len({row[EPOCH] for row in rows}) < 2:
        return None
    return max(ceil((row[STEP] + 1) / (row[EPOCH] + 1)) for row in rows)
