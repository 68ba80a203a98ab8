"""What a run has logged to W&B, from the ``.wandb`` files in its folder: no account, no server."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audio_lrp.report.run_log import STEP, LoggedClip, LoggedExplanation, RunLog

_STEP_KEY = "trainer/global_step"
_PACKAGES = ("audio-lrp", "torch", "torchaudio", "lightning", "torchmetrics", "zennit", "numpy", "wandb")
_PICTURES = {"maps": "map", "time_frequency": "time_frequency"}
"""Keys of pictures after the prefix, and what the pictures are called in files."""


def read_wandb(path: Path) -> RunLog:
    """Read one ``.wandb`` file and the media beside it; what cannot be read stands in the log's ``problems``."""
    history, problems = _history(path)
    files = path.parent / "files"
    rows: list[Mapping[str, float]] = []
    explanations: list[LoggedExplanation] = []
    confusions: Sequence[Mapping[str, str]] = ()
    for item in history:
        step = int(item[_STEP_KEY])
        scalars = {name: float(value) for name, value in item.items() if _is_scalar(name, value, item)}
        prefix = next((prefix for prefix in ("lrp/test/", "lrp/") if any(name.startswith(prefix) for name in item)), "")
        if prefix:
            scores = {name.removeprefix(prefix): value for name, value in scalars.items() if name.startswith(prefix)}
            curves = _table(files, item, f"{prefix}perturbation_table", problems)
            explanations.append(
                LoggedExplanation(step, prefix == "lrp/test/", scores, curves, _clips(files, item, prefix))
            )
        else:
            rows.append({STEP: step, **scalars})
        confusions = _table(files, item, "test/confusion_matrix_table", problems) or confusions
    return RunLog(rows, explanations, confusions, _versions(files / "requirements.txt"), problems)


def _history(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The logged rows that tell their step, as W&B's own reader gives them, and its complaints.

    Nested values stand under dotted names.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    records = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    problems = []
    if complaint := " ".join(finished.stderr.replace("wandb leet inspect:", "").split())[:200]:
        problems.append(f"{path.name} could be read only in part or not at all: {complaint}.")
    items = [record["history"]["item"] for record in records if "item" in record.get("history", {})]
    return [item for item in items if _STEP_KEY in item], problems


def _is_scalar(name: str, value: object, item: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or name.startswith("_") or name == _STEP_KEY:
        return False
    return f"{name.rpartition('.')[0]}._type" not in item  # the width or the count of media


def _clips(files: Path, item: Mapping[str, Any], prefix: str) -> list[LoggedClip]:
    captions: list[str] = []
    pictures: dict[str, list[Path | None]] = {}
    for key, kind in _PICTURES.items():
        names = item.get(f"{prefix}{key}.filenames", [])
        captions = captions or item.get(f"{prefix}{key}.captions", [""] * len(names))
        pictures[kind] = [_inside(files, name) for name in names]
    sounds: dict[str, dict[str, Path]] = {}
    for sound in item.get(f"{prefix}audio.audio", []):
        name, _, caption = str(sound.get("caption", "")).partition(" | ")
        path = _inside(files, sound["path"])
        if path is not None:
            sounds.setdefault(caption, {})[name] = path
    return [
        LoggedClip(
            caption,
            {kind: path for kind, paths in pictures.items() if number < len(paths) and (path := paths[number])},
            sounds.get(caption, {}),
        )
        for number, caption in enumerate(captions)
    ]


def _table(files: Path, item: Mapping[str, Any], key: str, problems: list[str]) -> list[dict[str, str]]:
    """The rows of a logged table."""
    if f"{key}.path" not in item:
        return []
    path = _inside(files, item[f"{key}.path"])
    try:
        content = json.loads(path.read_text()) if path else {}
        return [dict(zip(content["columns"], map(str, row), strict=True)) for row in content["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        problems.append(f"The table {item[f'{key}.path']} of W&B's run is missing or damaged.")
        return []


def _inside(files: Path, name: str) -> Path | None:
    """The media file, if there is one; a name that leads out of the run's files is passed over."""
    path = (files / name).resolve()
    return path if path.is_relative_to(files.resolve()) and path.is_file() else None


def _versions(requirements: Path) -> dict[str, str]:
    if not requirements.is_file():
        return {}
    found = dict(line.strip().split("==", 1) for line in requirements.read_text().splitlines() if "==" in line)
    return {name: found[name] for name in _PACKAGES if name in found}
