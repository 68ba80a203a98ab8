"""The page about a study: its tables and figures, and what one network of each kind listens to."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from audio_lrp.errors import UserError, parse_yaml
from audio_lrp.html.blocks import (
    Block,
    Charts,
    Clips,
    Code,
    ConfusionMatrix,
    Fact,
    Page,
    Paragraph,
    Pictures,
    Section,
    Table,
    data_uri,
)
from audio_lrp.html.charts import Axis, Chart, Line, line_chart
from audio_lrp.report.explained import Explained, explain_test_clips
from audio_lrp.report.explanation_sections import RED_AND_BLUE, drawn_clip, ledger_chart
from audio_lrp.study.charts import figures
from audio_lrp.study.plan import FAILURE, FILENAME, read_json
from audio_lrp.study.rows import Row, Value, by_setting
from audio_lrp.study.tables import Tables, collect, mean_and_deviation

_NUM_CLIPS = 2
"""Clips of each network and task."""
_DOTS_PER_INCH = 150
"""Of the study's figures: sharp on a phone."""


def is_study(folder: Path) -> bool:
    """Whether the folder is one of a study."""
    return (folder / FILENAME).is_file()


def study_page(folder: Path, plugins: Collection[str] = ()) -> Page:
    """Everything that a study's finished cells tell, and explanations computed anew where that is possible.

    Args:
        folder: of the study, finished or not.
        plugins: packages whose classes the study may name (see `explain_test_clips`).

    Raises:
        UserError: a file of the study is damaged.
    """
    description, tables = read_json(folder / FILENAME), collect(folder)
    failed = sorted((folder / "cells").glob(f"*/{FAILURE}"))
    explained = dict(_explained(folder, tables, plugins)) if tables else {}
    sections = [_summary_section(tables), *_measured_sections(tables), *_explained_sections(explained)]
    return Page(
        title=folder.name,
        subtitle=f"a study of {description['corpus']['name']}, explained with {description['composite']}",
        facts=_facts(folder, description, tables),
        problems=[f"The cell {path.parent.name} failed: see {path}." for path in failed],
        sections=[section for section in sections if section.blocks] + [_setup_section(description, tables)],
    )


def _facts(folder: Path, description: Mapping[str, Any], tables: Tables) -> list[Fact]:
    corpus = description["corpus"]
    cells = len(list((folder / "cells").glob("*/")))
    return [
        Fact("finished", f"{len(tables.get('accuracy', []))} of {cells}", "trainings begun"),
        Fact("recordings", f"{corpus['recordings']:,}", f"{corpus['speakers']} speakers"),
        Fact("folds", str(max(description["folds"].values(), default=0)), "of speakers that training never hears"),
    ]


def _summary_section(tables: Tables) -> Section:
    rows = [
        [
            str(row["quantity"]),
            str(row["network"]),
            str(row["task"]),
            mean_and_deviation(row["mean"], row["std"]),
            str(row["folds"]),
            mean_and_deviation(row["reported_mean"], row["reported_std"]),
        ]
        for row in tables.get("summary", [])
    ]
    if not rows:
        return Section("summary", "Results", [Paragraph("No cell of the study is finished yet.", warning=True)])
    columns = ["quantity", "network", "task", "this study", "folds", "reported"]
    text = (
        "Accuracy in percent, mean ± standard deviation over the folds. Reported is what arXiv 1807.03418v2 is said to "
        "report, on AudioMNIST; it was not verified."
    )
    return Section("summary", "Results", [Paragraph(text), Table("Accuracy in percent", columns, rows)])


def _measured_sections(tables: Tables) -> list[Section]:
    drawn = dict(_drawn(tables)) if tables else {}
    confusions: list[Block] = [
        _confusion_matrix(f"{network}, {task}", rows)
        for (network, task), rows in by_setting(tables.get("confusion", []))
    ]
    curves = [
        chart
        for (network, task), rows in by_setting(tables.get("perturbation", []))
        for chart in _removal_charts(f"{network}, {task}", rows)
    ]
    removal: list[Block] = [Charts(curves)] if curves else []
    bands = {name: picture for name, picture in drawn.items() if name.startswith("bands")}
    return [
        Section("accuracy", "Accuracy", [*_picture(drawn, "accuracy"), *_table(tables, "accuracy"), *confusions]),
        Section("removal", "Removal of the input", [*removal, *_table(tables, "comparison")]),
        Section("scores", "Scores of the explanations", [*_picture(drawn, "scores"), *_table(tables, "scores")]),
        Section(
            "scaling",
            "Scaled frequencies",
            [*_picture(drawn, "frequency_scaling"), *_table(tables, "frequency_scaling")],
        ),
        Section("bands", "Relevance by frequency", [Pictures(bands)] if bands else []),
    ]


def _drawn(tables: Tables) -> Iterator[tuple[str, str]]:
    for name, figure in figures(tables):
        file = BytesIO()
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        yield name, data_uri(file.getvalue(), ".png")


def _picture(drawn: Mapping[str, str], name: str) -> list[Block]:
    return [Pictures({name.replace("_", " "): drawn[name]})] if name in drawn else []


def _table(tables: Tables, name: str) -> list[Block]:
    """A table of the study, to be opened."""
    rows = tables.get(name, [])
    cells = [[_cell(value) for value in row.values()] for row in rows]
    return [Table(f"{name.replace('_', ' ')}: the numbers", list(rows[0]), cells, folded=True)] if rows else []


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _confusion_matrix(title: str, rows: Sequence[Row]) -> ConfusionMatrix:
    """Summed over the folds, whose test speakers are others each time."""
    names = sorted({str(row[column]) for row in rows for column in ("label", "prediction")})
    counts = [
        [
            sum(int(row["clips"] or 0) for row in rows if (row["label"], row["prediction"]) == (true, predicted))
            for predicted in names
        ]
        for true in names
    ]
    return ConfusionMatrix(names, counts, title)


def _removal_charts(title: str, rows: Sequence[Row]) -> Iterator[Chart]:
    """Means over the folds."""
    orders = list(dict.fromkeys(str(row["order"]) for row in rows))
    removed = Axis("removed share of the input", percent=True, root=True, limits=(0, 1))
    for quantity in ("accuracy", "probability"):
        lines = []
        for order in orders:
            values: dict[float, list[float]] = {}
            for row in rows:
                if row["order"] == order:
                    values.setdefault(float(row["fraction"] or 0), []).append(float(row[quantity] or 0))
            fractions = sorted(values)
            lines.append(Line(order, fractions, [fmean(values[fraction]) for fraction in fractions]))
        yield line_chart(f"{title}: {quantity}", lines, removed, Axis(quantity, percent=True, limits=(0, 1)))


def _explained(folder: Path, tables: Tables, plugins: Collection[str]) -> Iterator[tuple[str, Explained | str]]:
    """Test clips of one finished cell of each network and task; or why there are none."""
    for (network, task), rows in by_setting(tables["accuracy"]):
        cell = folder / "cells" / f"{network}-{task}-fold{min(int(row['fold'] or 0) for row in rows)}"
        try:
            config = parse_yaml(max(cell.glob("training/*/config.yaml")).read_text(encoding="utf-8"))
            found: Explained | str = explain_test_clips(config, cell / "checkpoints" / "best.ckpt", _NUM_CLIPS, plugins)
        except (UserError, OSError, ValueError, yaml.YAMLError) as error:
            found = str(error)
        yield f"{network}, {task}", found


def _explained_sections(explained: Mapping[str, Explained | str]) -> list[Section]:
    clips: list[Block] = []
    ledgers = []
    for title, found in explained.items():
        if isinstance(found, str):
            clips.append(Paragraph(f"{title}: nothing could be explained anew: {found}.", warning=True))
            continue
        clips += [Paragraph(f"{title}:"), Clips([drawn_clip(clip) for clip in found.clips], num_open=1)]
        ledgers.append(ledger_chart(found.ledger, title))
    return [
        Section("explanations", "What they listen to", [Paragraph(RED_AND_BLUE), *clips] if clips else []),
        Section("ledger", "Conservation ledger", [Charts(ledgers)] if ledgers else []),
    ]


def _setup_section(description: Mapping[str, Any], tables: Tables) -> Section:
    versions = {("audio-lrp", str(description["audio_lrp"]))}
    versions |= {("torch", str(row["torch"])) for row in tables.get("accuracy", []) if "torch" in row}
    blocks: list[Block] = [Table("Versions", ["package", "version"], sorted(versions))]
    return Section("setup", "Configuration", [*blocks, Code("The whole study", json.dumps(description, indent=2))])
