"""The tables of a whole study, out of those of its finished cells."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import bootstrap
from audio_lrp.study.budget import COMPARED_FRACTIONS
from audio_lrp.study.explanations import COMPARED, OUTCOMES
from audio_lrp.study.plan import RESULT, read_json
from audio_lrp.study.reported import REPORTED, TEST_ACCURACY, UNCHANGED, removal
from audio_lrp.study.rows import Row, estimate_row, read_rows

Tables = dict[str, list[Row]]


def collect(folder: Path) -> Tables:
    """The tables of a study by name, see `audio_lrp.study`; those without a row are missing.

    Raises:
        UserError: a cell's files are damaged.
    """
    cells = [(path.parent, _cell(read_json(path))) for path in sorted((folder / "cells").glob(f"*/{RESULT}"))]
    tables: Tables = {
        "accuracy": [read_json(cell / RESULT) for cell, _ in cells],
        "confusion": [head | row for cell, head in cells for row in _confusion(read_rows(cell / "predictions.csv"))],
    }
    tables |= measured(cells)
    tables["summary"] = _summary(tables)
    return {name: rows for name, rows in tables.items() if rows}


def measured(cells: list[tuple[Path, Row]]) -> Tables:
    """What was measured on cells, out of their folders; before each row what tells the cell from others.

    Raises:
        UserError: a cell's files are damaged.
    """
    tables: Tables = {}
    for name in ("perturbation", "frequency_scaling", "bands", "scores", "randomization"):
        tables[name] = [head | row for cell, head in cells for row in read_rows(cell / f"{name}.csv")]
    tables["scores"] += [head | row for cell, head in cells for row in read_rows(cell / "sensitivity.csv")]
    tables["comparison"] = list(_comparison(cells)) if tables["perturbation"] else []
    return tables


def _cell(result: Row) -> Row:
    return {name: result[name] for name in ("network", "task", "fold")}


def _confusion(predictions: list[Row]) -> list[Row]:
    counts = Counter((row["label"], row["prediction"]) for row in predictions)
    return [
        {"label": label, "prediction": prediction, "clips": clips}
        for (label, prediction), clips in sorted(counts.items(), key=str)
    ]


def _comparison(cells: list[tuple[Path, Row]]) -> Iterator[Row]:
    """How much less is left after MoRF than after a competitor, clip by clip over all folds of a network and task."""

    def setting(cell: tuple[Path, Row]) -> tuple[str, str]:
        return str(cell[1]["network"]), str(cell[1]["task"])

    for (network, task), members in groupby(sorted(cells, key=setting), key=setting):
        outcomes = [_load(path / OUTCOMES) for path, _ in members]
        # Folds test on disjoint speakers, so a speaker's number stands for the speaker in all of them.
        speaker = torch.cat([torch.from_numpy(each["speaker"]) for each in outcomes])
        orders, fractions = outcomes[0]["orders"].tolist(), outcomes[0]["fractions"]
        for quantity in COMPARED:
            of_orders = {
                order: np.concatenate([each[quantity][index] for each in outcomes])
                for index, order in enumerate(orders)
            }
            for competitor in (order for order in orders if order not in ("morf", "lerf")):
                for fraction in COMPARED_FRACTIONS:
                    step = int(np.abs(fractions - fraction).argmin())
                    gain = (of_orders[competitor] - of_orders["morf"])[:, step]
                    head: Row = {"network": network, "task": task, "quantity": quantity, "competitor": competitor}
                    estimate = bootstrap(torch.from_numpy(gain), groups=speaker)
                    yield head | {"fraction": fraction} | estimate_row(estimate)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove the folder {path.parent.name}, and run the command again"
        ) from error


def _summary(tables: Tables) -> list[Row]:
    """Mean and standard deviation over folds in percent, beside what the paper reports."""
    quantities: list[tuple[str, list[Row], Callable[[Row], bool], str]] = [
        (TEST_ACCURACY, tables["accuracy"], lambda _: True, "test_accuracy")
    ]
    scaling, removed = tables["frequency_scaling"], tables["perturbation"]
    for name in dict.fromkeys(str(row["manipulation"]) for row in scaling if row["manipulation"] != UNCHANGED):
        quantities.append((name, scaling, _is({"manipulation": name, "speakers": "all"}), "accuracy"))
    for order in dict.fromkeys(str(row["order"]) for row in removed):
        quantities.append((removal(order), removed, _is({"order": order, "fraction": 0.01}), "accuracy"))
    rows: list[Row] = []
    for quantity, table, belongs, column in quantities:
        values: dict[tuple[str, str], list[float]] = {}
        for row in filter(belongs, table):
            values.setdefault((str(row["network"]), str(row["task"])), []).append(100 * float(row[column] or 0))
        for (network, task), of_folds in values.items():
            reported = REPORTED.get((quantity, network, task), (None, None))
            rows.append(
                {
                    "quantity": quantity,
                    "network": network,
                    "task": task,
                    "mean": fmean(of_folds),
                    "std": stdev(of_folds) if len(of_folds) > 1 else None,
                    "folds": len(of_folds),
                    "reported_mean": reported[0],
                    "reported_std": reported[1],
                }
            )
    return rows


def _is(wanted: Row) -> Callable[[Row], bool]:
    return lambda row: all(row[name] == value for name, value in wanted.items())


def summary_text(rows: list[Row]) -> str:
    """The summary for a terminal."""
    width = max(len(str(row["quantity"])) for row in rows)
    lines = [f"{'accuracy in %':<{width}}  network   task     this study      folds  reported (arXiv 1807.03418v2)"]
    for row in rows:
        own = mean_and_deviation(row["mean"], row["std"])
        reported = mean_and_deviation(row["reported_mean"], row["reported_std"])
        setting = f"{row['quantity']:<{width}}  {row['network']:<8}  {row['task']:<7}"
        lines.append(f"{setting}  {own:<14}  {row['folds']:>5}  {reported}")
    return "\n".join(line.rstrip() for line in lines)


def mean_and_deviation(mean: object, deviation: object) -> str:
    """The two as text; no deviation of a single value, and nothing where there is no mean."""
    if mean is None:
        return ""
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"
