"""Tables of a study: rows in CSV files of a cell, and in CSV and JSON files of the whole study."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from audio_lrp.callbacks.publishing import write_rows
from audio_lrp.errors import UserError
from audio_lrp.faithfulness import Estimate
from audio_lrp.utils.files import replacing

Value = str | int | float | None
Row = dict[str, Value]

_TEXT: Final = frozenset(
    ("file", "label", "prediction", "order", "manipulation", "speakers", "class", "score", "layer")
)
"""Columns of words; the others hold numbers."""


def by_setting(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """Rows by network and task, in alphabetical order."""

    def setting(row: Row) -> tuple[str, str]:
        return str(row["network"]), str(row["task"])

    for key, members in groupby(sorted(rows, key=setting), key=setting):
        yield key, list(members)


def estimate_row(estimate: Estimate) -> Row:
    """Mean, low and high of an estimate; None for ends of an interval that there is none of."""
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}


def write_table(stem: Path, rows: Sequence[Row]) -> None:
    """Write rows as ``<stem>.csv`` and ``<stem>.json``, each whole or not at all."""
    write_rows(stem.with_name(f"{stem.name}.csv"), rows)
    with replacing(stem.with_name(f"{stem.name}.json")) as temporary:
        temporary.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read back what `audio_lrp.callbacks.publishing.write_rows` wrote; no file, no rows.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove the folder {path.parent.name}, and run the command again"
        ) from error


def _value(name: str, text: str) -> Value:
    if name in _TEXT:
        return text
    if text == "":
        return None
    number = float(text)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and "." not in text else number
