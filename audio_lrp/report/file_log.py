"""What a run without W&B has written into its folder: PNG, WAV and CSV files."""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from audio_lrp.report.run_log import STEP, LoggedClip, LoggedExplanation, RunLog

_STEM = re.compile(r"step-(\d+)-(.+\.(?:png|csv|wav))")
_CLIP = re.compile(r"(map|time_frequency|audio)-(\d+)(?:-(\w+))?\.\w+")


def read_files(folder: Path) -> RunLog:
    """Read what lies in a run's folder; what cannot be read stands in the log's ``problems``."""
    problems: list[str] = []
    rows = [row for path in sorted(folder.rglob("metrics.csv")) for row in _metrics(path, problems)]
    confusions = _rows(folder / "test" / "confusion_matrix.csv", problems)
    explanations = [
        explanation
        for is_test, place in ((False, folder / "lrp"), (True, folder / "lrp" / "test"))
        for explanation in _explanations(place, is_test, problems)
    ]
    return RunLog(rows, explanations, confusions, problems=problems)


def _metrics(path: Path, problems: list[str]) -> list[Mapping[str, float]]:
    """The rows of Lightning's ``CSVLogger``, whose cells are empty where nothing was logged."""
    rows: list[Mapping[str, float]] = []
    try:
        for row in _rows(path, problems):
            values = {name: float(value) for name, value in row.items() if value}
            if STEP in values:
                rows.append(values)
    except ValueError as error:
        problems.append(f"{path} is damaged: {error}.")
    return rows


def _explanations(folder: Path, is_test: bool, problems: list[str]) -> list[LoggedExplanation]:
    files: dict[int, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.glob("step-*")):
        if found := _STEM.fullmatch(path.name):
            files[int(found[1])][found[2]] = path
    return [
        LoggedExplanation(
            step,
            is_test,
            _scores(_rows(named.get("scores.csv"), problems)),
            _rows(named.get("perturbation.csv"), problems),
            _clips(named),
            _rows(named.get("conservation.csv"), problems),
        )
        for step, named in files.items()
    ]


def _scores(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """The scores by the names they have in W&B."""
    return {row["score"]: float(row["value"]) for row in rows}


def _clips(named: Mapping[str, Path]) -> list[LoggedClip]:
    pictures: dict[int, dict[str, Path]] = defaultdict(dict)
    sounds: dict[int, dict[str, Path]] = defaultdict(dict)
    for name, path in named.items():
        if found := _CLIP.fullmatch(name):
            kind, number, sound = found[1], int(found[2]), found[3]
            if sound is None:
                pictures[number][kind] = path
            else:
                sounds[number][sound] = path
    return [LoggedClip("", pictures[number], sounds[number]) for number in sorted({*pictures, *sounds})]


def _rows(path: Path | None, problems: list[str]) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no such file."""
    if path is None or not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError("rows are missing or cut off")
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{path} is damaged: {error}.")
        return []
    return rows
