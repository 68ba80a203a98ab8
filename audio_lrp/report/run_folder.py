"""A run's folder: its configuration, its log, its best checkpoint; or what a checkpoint alone tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audio_lrp.checkpoints import DESCRIPTION, read_checkpoint
from audio_lrp.errors import UserError, parse_yaml
from audio_lrp.report.file_log import read_files
from audio_lrp.report.run_log import EPOCH, STEP, RunLog, joined
from audio_lrp.report.wandb_log import read_wandb
from audio_lrp.tracking.record import CONFIG_FILENAME


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint that a run's results stand for.

    Attributes:
        path: the file.
        monitor: the quantity by which it is the best; None where it is the last.
        score: its value.
    """

    path: Path
    monitor: str | None
    score: float | None


@dataclass(frozen=True)
class RunFolder:
    """What lies in a run's folder, or in one of its checkpoints.

    Attributes:
        path: the folder; the file where there is a checkpoint alone.
        text: its configuration as YAML.
        config: the same, nested.
        log: what was logged.
        best: the best checkpoint; None where there is none that can be read.
    """

    path: Path
    text: str
    config: Mapping[str, Any]
    log: RunLog
    best: BestCheckpoint | None

    @property
    def is_checkpoint(self) -> bool:
        """Whether there is a checkpoint alone, which holds nothing that was logged."""
        return self.best is not None and self.best.path == self.path

    def setting(self, name: str) -> Any:
        """The value at a dotted name (see `setting`)."""
        return setting(self.config, name)


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name of a configuration, ``init_args`` left out; None where there is none.

    Example:
        >>> setting({"model": {"class_path": "Classifier", "init_args": {"mixup": 0.2}}}, "model.mixup")
        0.2
    """
    value: Any = config
    for part in name.split("."):
        if isinstance(value, Mapping) and part not in value:
            value = value.get("init_args")
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_run(folder: Path) -> bool:
    """Whether the folder is one of a run."""
    return (folder / CONFIG_FILENAME).is_file()


def read_run(folder: Path) -> RunFolder:
    """Read a run's folder; what cannot be read, beside the configuration, stands in the log's ``problems``.

    Raises:
        UserError: the configuration is damaged.
    """
    path = folder / CONFIG_FILENAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the run's configuration {path} cannot be read ({' '.join(str(error).split())})") from error
    config = _parsed(path, text)
    logs = [read_wandb(file) for file in sorted(folder.glob("wandb/*run-*/*.wandb"))]
    best, of_checkpoint = _best_checkpoint(folder / "checkpoints")
    return RunFolder(folder, text, config, joined([*logs, read_files(folder), of_checkpoint]), best)


def read_checkpoint_alone(path: Path) -> RunFolder:
    """Read what a checkpoint tells of its run: configuration, step and versions, but nothing that was logged.

    Raises:
        UserError: it cannot be read, or holds no configuration.
    """
    content = read_checkpoint(path)
    description = content.get(DESCRIPTION)
    text = description.get("config") if isinstance(description, Mapping) else None
    if not isinstance(text, str):
        raise UserError(f"{path} does not hold its run's configuration: name the folder of its run")
    return RunFolder(path, text, _parsed(path, text), _log_of(content, []), BestCheckpoint(path, None, None))


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        config = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"the run's configuration {path} cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(config, Mapping):
        raise UserError(f"{path} is not the configuration of a run: it holds no options")
    return config


def _log_of(checkpoint: Mapping[str, Any], problems: list[str]) -> RunLog:
    """Step, epoch and versions of a checkpoint."""
    row = {STEP: float(checkpoint.get("global_step", 0)) - 1, EPOCH: float(checkpoint.get("epoch", 0))}
    versions = {"lightning": str(checkpoint.get("pytorch-lightning_version", "unknown"))}
    return RunLog(rows=[row], versions=versions, problems=problems)


def _best_checkpoint(folder: Path) -> tuple[BestCheckpoint | None, RunLog]:
    """The checkpoint that `ModelCheckpoint` thinks best, else the newest; and the step and epoch it was saved at.

    Checkpoints are found by their names, since the folder may have been moved since.
    """
    problems: list[str] = []
    for path in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            content = read_checkpoint(path)
        except UserError as error:
            problems.append(f"{error}.")
            continue
        log = _log_of(content, problems)
        for state in content.get("callbacks", {}).values():
            if not isinstance(state, Mapping) or state.get("monitor") is None or state.get("best_model_score") is None:
                continue
            best = folder / Path(str(state.get("best_model_path"))).name
            if best.is_file():
                return BestCheckpoint(best, str(state["monitor"]), float(state["best_model_score"])), log
        return BestCheckpoint(path, None, None), log
    return None, RunLog(problems=problems)
