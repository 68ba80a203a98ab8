"""The name and the folder of one run."""

import os
import shutil
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from audio_lrp.errors import UserError

_FOLDER_VARIABLE = "AUDIO_LRP_RUN_FOLDER"
"""Environment variable through which a run's first process tells those that it starts (DDP) the run's folder."""

_made: list[Path] = []
"""Folders that this process has made for its runs, each after the one that holds it."""

_own: set[Path] = set()
"""Those among them that are a run's own."""


class Run:
    """One run of the command line: everything it writes lies in one folder, ``<root>/<experiment>/<time>/``.

    Args:
        root: folder that holds the folders of all runs.
        experiment: folder that groups the runs of one experiment; the command line takes the name of the first
            configuration file where it is not given.
        test_after_fit: whether ``fit`` ends with a test of the best checkpoint.
        artifacts: whether ``fit`` ends with logging checkpoints and relevance arrays to W&B as artifacts; left open, it
            does except in a sweep.
        continued: folder of the run that is resumed; a new one by default.
    """

    def __init__(
        self,
        root: str = "runs",
        experiment: str | None = None,
        test_after_fit: bool = False,
        artifacts: bool | None = None,
        continued: Path | None = None,
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.experiment = experiment or "unnamed"
        self.test_after_fit = test_after_fit
        self.artifacts = artifacts
        self.continued = continued

    @cached_property
    def folder(self) -> Path:
        """The run's own folder: a new one is created at the first access, by the run's first process alone.

        Raises:
            UserError: the folder cannot be created.
        """
        if not _is_first_process():
            # Processes started by torchrun or SLURM do not inherit the variable; they write nothing before
            # RunRecord tells them the folder.
            return Path(os.environ.get(_FOLDER_VARIABLE, self.root))
        folder = self.continued or self._create()
        os.environ[_FOLDER_VARIABLE] = str(folder)
        return folder

    def _create(self) -> Path:
        time = datetime.now().strftime("%Y%m%d-%H%M%S")
        experiment = self.root / self.experiment
        try:
            _make_missing(experiment)
            for attempt in count(1):
                folder = experiment / (time if attempt == 1 else f"{time}-{attempt}")
                try:
                    folder.mkdir()  # fails where another run of the same second was faster
                except FileExistsError:
                    continue
                _made.append(folder)
                _own.add(folder)
                return folder
        except OSError as error:
            raise UserError(
                f"the run's folder below {experiment} cannot be created ({error.strerror}): "
                "choose another place with --run.root"
            ) from error
        raise AssertionError("unreachable")


def _make_missing(folder: Path) -> None:
    """Make a folder and those above it; remember the ones that did not exist."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            path.mkdir()
        except FileExistsError:  # another run was faster
            continue
        _made.append(path)


def discard_empty_folders() -> None:
    """Remove what this process made for runs that ended before they wrote anything; nothing that others made.

    What W&B began to write before the run's configuration was there is nothing that could be resumed from.
    """
    while _made:
        folder = _made.pop()
        if folder in _own and [path.name for path in folder.glob("*")] == ["wandb"]:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the folder holds something, or is gone
            folder.rmdir()


def last_run_folder() -> Path:
    """The folder of the run that this process began last, or else the working folder."""
    return Path(os.environ.get(_FOLDER_VARIABLE, "."))


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0
