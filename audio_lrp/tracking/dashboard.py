"""A W&B workspace and a report that show what this package's runs log."""

from collections.abc import Callable
from typing import Any, NamedTuple

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

TITLE = "What the network listens to"
STEP = "trainer/global_step"

HYPERPARAMETERS = {
    "learning rate": "model.init_args.optimizer.init_args.lr",
    "weight decay": "model.init_args.optimizer.init_args.weight_decay",
    "label smoothing": "model.init_args.label_smoothing",
    "batch size": "data.init_args.batch_size",
    "fold": "data.init_args.fold",
}
"""Columns of the parallel coordinates: their names and their places in a run's configuration."""

OBJECTIVE = "val/accuracy.max"
"""What sweeps are judged by: the best value, which is the one that runs keep as their summary."""


class Topic(NamedTuple):
    """A section of the workspace, a chapter of the report.

    Attributes:
        name: its heading.
        text: what to look for, in the report.
        panels: makes its panels; anew each time, as the workspace and the report number their own.
    """

    name: str
    text: str
    panels: Callable[[], list[Any]]


def _lines(title: str, *keys: str, **settings: Any) -> Any:
    return wr.LinePlot(title=title, x=STEP, y=list(keys), **settings)


def _media(title: str, *keys: str) -> Any:
    return wr.MediaBrowser(title=title, media_keys=list(keys), num_columns=2)


def _perturbation(title: str, key: str, line: str = "order") -> Any:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": key}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "fraction", "lineKey": line, "lineVal": "probability"},
        chart_strings={"title": title, "xname": "fraction removed"},
    )


def _training() -> list[Any]:
    return [
        _lines("loss", "train/loss", "val/loss"),
        _lines("validation", "val/accuracy", "val/f1"),
        wr.BarPlot(title="test", metrics=["test/accuracy", "test/f1"]),
        _media("confusions", "test/confusion_matrix"),
    ]


def _maps() -> list[Any]:
    return [
        _media("relevance on the input", "lrp/maps"),
        _media("relevance in time and frequency", "lrp/time_frequency"),
        _media("test speakers", "lrp/test/maps"),
    ]


def _sounds() -> list[Any]:
    return [_media("validation speakers", "lrp/audio"), _media("test speakers", "lrp/test/audio")]


def _curves() -> list[Any]:
    return [
        _perturbation("validation speakers", "lrp/perturbation_table"),
        _perturbation("most relevant first, in the course of training", "lrp/perturbation_history_table", "trained"),
        _perturbation("test speakers", "lrp/test/perturbation_table"),
        _lines("area over the curve", "lrp/aopc_morf", "lrp/aopc_random", "lrp/aopc_amplitude"),
        _lines("symmetric relevance gain", "lrp/srg"),
    ]


def _conservation() -> list[Any]:
    return [
        _lines("relevance that a layer cannot account for", "lrp/conservation_error", log_y=True),
        _lines("share of the relevance on the utterance", "lrp/relevance_mass"),
    ]


def _sweeps() -> list[Any]:
    columns = [
        wr.ParallelCoordinatesPlotColumn(metric=wr.Config(path), display_name=name)
        for name, path in HYPERPARAMETERS.items()
    ]
    objective = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(OBJECTIVE), display_name="best accuracy")
    return [
        wr.ParallelCoordinatesPlot(title="hyperparameters and accuracy", columns=[*columns, objective]),
        wr.ParameterImportancePlot(with_respect_to=OBJECTIVE),
    ]


TOPICS = (
    Topic("Training", "Loss and accuracy over the steps; after a test, who was taken for whom.", _training),
    Topic("Relevance maps", "Red is evidence for the class, blue against it: the same clips after every epoch.", _maps),
    Topic("To listen to", "The recording, the evidence for its class and that against it, equally loud.", _sounds),
    Topic(
        "Perturbation curves",
        "A map can be trusted where the probability falls fastest when the most relevant parts are removed first "
        "(`morf`): faster than at random, and faster than loudest first.",
        _curves,
    ),
    Topic("Conservation", "Rounding alone stays below 1e-4; more tells of a fault in the explanation.", _conservation),
    Topic("Sweeps", "Which hyperparameters accuracy depends on.", _sweeps),
)


def make_workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, a section for each of `TOPICS`; not saved yet."""
    sections = [ws.Section(name=topic.name, panels=topic.panels(), is_open=True) for topic in TOPICS]
    return ws.Workspace(entity=entity, project=project, name=TITLE, sections=sections)


def make_report(entity: str, project: str) -> wr.Report:
    """The report, a chapter for each of `TOPICS`; not saved yet."""
    blocks: list[Any] = []
    for topic in TOPICS:
        grid = wr.PanelGrid(runsets=[wr.Runset(entity, project)], panels=topic.panels())
        blocks += [wr.H2(topic.name), wr.P(topic.text), grid]
    return wr.Report(project=project, entity=entity, title=TITLE, blocks=blocks)
