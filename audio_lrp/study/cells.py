"""The cells of a study as work for the job queue: each is trained and measured once, by one of the workers."""

import json
import platform
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from audio_lrp import __version__
from audio_lrp.errors import UserError
from audio_lrp.jobs import JOB, open_study
from audio_lrp.study.measurements import measure
from audio_lrp.study.plan import FAILURE, RESULT, Cell, Study
from audio_lrp.study.training import LAST, LOG, best_validation_accuracy, train
from audio_lrp.utils.files import replacing


@dataclass(frozen=True)
class CellWork:
    """What a study has to do, as `audio_lrp.jobs.Work` describes it.

    The results on disk, not the queue, tell which cells are finished: the queue's file may be removed.

    Attributes:
        study: the study.
        cells: the cells that are wanted.
        storage: URL of the queue's storage.
    """

    study: Study
    cells: Sequence[Cell]
    storage: str

    @property
    def name(self) -> str:
        """The study's folder, by the name that it has on every machine."""
        return self.study.folder.name

    @property
    def folder(self) -> Path:
        """Where the workers' logs lie."""
        return self.study.folder / "workers"

    @cached_property
    def jobs(self) -> Sequence[str]:
        """Names of the cells."""
        return [cell.name for cell in self.cells]

    def open(self) -> optuna.Study:
        """Optuna's study that keeps the attempts.

        Raises:
            UserError: the storage cannot be reached, or holds another study of this name.
        """
        content = {"corpus": self.study.corpus.identity(), "composite": self.study.composite}
        return open_study(self.storage, self.name, content, fix="choose another --storage", direction="maximize")

    def unfinished(self, attempts: Sequence[FrozenTrial]) -> Sequence[str]:
        """The cells without a result; that of another machine may not be seen here yet."""
        complete = {trial.user_attrs[JOB] for trial in attempts if trial.state == TrialState.COMPLETE}
        return [cell.name for cell in self.cells if cell.name not in complete and not self.study.is_finished(cell)]

    def parameters(self, job: str) -> Mapping[str, Any]:
        """None: a cell's name says all."""
        return {}

    def run(self, attempt: optuna.Trial, job: str) -> float:
        """Train and measure a cell, and return its test accuracy; what goes wrong is written down in its folder."""
        cell = self.cells[self.jobs.index(job)]
        folder = self.study.cell_folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            train(self.study, cell)
            accuracy = measure(self.study, cell)
            result = {
                "network": cell.network,
                "task": cell.task,
                "fold": cell.fold,
                **accuracy,
                "validation_accuracy": best_validation_accuracy(folder),
                "steps": self.study.budget.steps[cell.recipe],
                "composite": self.study.composite,
                "audio_lrp": __version__,
                "torch": str(torch.__version__),
                "machine": platform.node(),
            }
            _write_json(folder / RESULT, result)
        except Exception as error:
            with suppress(OSError, UserError):  # a full disk: the supervisor tells of it
                with (folder / LOG).open("a") as log:
                    traceback.print_exc(file=log)
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                _write_json(folder / FAILURE, {"reason": reason})
            raise
        for leftover in (FAILURE, LAST):  # not needed any more; the optimizer's state takes most of the space
            (folder / leftover).unlink(missing_ok=True)
        return float(accuracy["test_accuracy"])

    def progress(self, attempts: Sequence[FrozenTrial]) -> tuple[int, str]:
        """How many cells are finished, and how far the others are."""
        unfinished = self.unfinished(attempts)
        at_work = {trial.user_attrs[JOB] for trial in attempts if trial.state == TrialState.RUNNING}
        texts = [self._state(cell) for cell in self.cells if cell.name in at_work.intersection(unfinished)]
        return len(self.cells) - len(unfinished), "; ".join(texts)

    def _state(self, cell: Cell) -> str:
        metrics = sorted(self.study.cell_folder(cell).glob("training/*/metrics.csv"))
        try:
            header, *rows = metrics[-1].read_text().splitlines()
            step = int(rows[-1].split(",")[header.split(",").index("step")]) + 1
        except (IndexError, ValueError, OSError):
            return f"{cell.name}: starting"
        steps = self.study.budget.steps[cell.recipe]
        return f"{cell.name}: explaining" if step >= steps else f"{cell.name}: step {step} of {steps}"


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
