"""The plan of a study: its cells, and the file ``study.json`` that describes it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from audio_lrp import __version__
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.data.splits import choose_folds, split_recordings
from audio_lrp.data.tasks import TASKS
from audio_lrp.errors import UsageError, UserError
from audio_lrp.study.budget import Budget
from audio_lrp.study.corpora import StudyCorpus
from audio_lrp.study.recipe import read_recipe
from audio_lrp.utils.files import replacing

FILENAME: Final = "study.json"
RESULT: Final = "result.json"
FAILURE: Final = "failure.json"


@dataclass(frozen=True)
class Cell:
    """One training of a study and what is measured on it.

    Attributes:
        network: e.g. ``"alexnet"``; with the task it names the recipe.
        task: ``"digit"`` or ``"gender"``.
        fold: counted from 0.
    """

    network: str
    task: str
    fold: int

    @property
    def name(self) -> str:
        """The cell's folder below ``cells``."""
        return f"{self.network}-{self.task}-fold{self.fold}"

    @property
    def recipe(self) -> str:
        """The shipped configuration that it is trained by."""
        return f"{self.network}_{self.task}"


@dataclass(frozen=True, eq=False)
class Study:
    """A study's folder and all that its cells need to know.

    Attributes:
        folder: absolute path of the study's folder.
        corpus: the corpus.
        budget: what each cell may spend.
        composite: name of the LRP composite.
    """

    folder: Path
    corpus: StudyCorpus
    budget: Budget
    composite: str = DEFAULT_COMPOSITE

    def cell_folder(self, cell: Cell) -> Path:
        """Where everything of a cell lies."""
        return self.folder / "cells" / cell.name

    def num_folds(self, task: str) -> int | None:
        """The data module's ``num_folds``: ``None`` for the published folds."""
        published = self.corpus.corpus.published_folds(TASKS[task].name)
        return None if published is not None else self.budget.generated_folds

    def folds(self, task: str) -> range:
        """All folds of a task."""
        return range(len(choose_folds(self.corpus.corpus, TASKS[task], self.num_folds(task))))

    def description(self) -> dict[str, Any]:
        """The content of ``study.json``."""
        tasks = self.tasks()
        return {
            "format": 1,
            "audio_lrp": __version__,
            "corpus": self.corpus.identity(),
            "budget": asdict(self.budget),
            "recipes": {name: read_recipe(name) for name in self.budget.steps},
            "composite": self.composite,
            "folds": {task: len(self.folds(task)) for task in tasks},
        }

    def tasks(self) -> list[str]:
        """The tasks that the corpus has labels for."""
        recordings = self.corpus.corpus.recordings
        return [name for name, task in TASKS.items() if any(task.label(item) is not None for item in recordings)]

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell was trained and measured completely."""
        return (self.cell_folder(cell) / RESULT).is_file()


def networks_of(budget: Budget) -> list[str]:
    """The networks that a budget has steps for."""
    return list(dict.fromkeys(recipe.rpartition("_")[0] for recipe in budget.steps))


def choose_cells(
    study: Study, networks: Sequence[str] | None, tasks: Sequence[str] | None, folds: Sequence[int] | None
) -> list[Cell]:
    """The cells asked for, fold by fold, so that an unfinished study covers every network and task early.

    Args:
        study: the study.
        networks: which networks; ``None``: all that the budget has steps for.
        tasks: which tasks; ``None``: all. What the corpus has no labels for is left out with a sentence.
        folds: which folds; ``None``: all. Those that one of the tasks lacks are left out there.

    Raises:
        UserError: a fold that no task has, nothing is left, or a fold cannot be made of the corpus.
    """
    labelled = study.tasks()
    wanted = list(TASKS) if tasks is None else list(dict.fromkeys(tasks))
    for task in wanted:
        if task not in labelled:
            _say(f"{study.corpus.corpus.name} has no labels for the task {task}, which is left out")
    counts = {task: len(study.folds(task)) for task in wanted if task in labelled}
    if not counts:
        raise UserError(f"nothing is left to do: {study.corpus.name} has labels for {', '.join(labelled)} alone")
    most = max(counts.values())
    absent = [fold for fold in folds or () if not 0 <= fold < most]
    if absent:
        each = ", ".join(f"{task} has 0 to {count - 1}" for task, count in counts.items())
        raise UsageError(f"--folds: there is no fold {absent[0]}: {each}")
    cells = [
        Cell(network, task, fold)
        for fold in sorted(set(range(most) if folds is None else folds))
        for network in dict.fromkeys(networks or networks_of(study.budget))
        for task, count in counts.items()
        if fold < count
    ]
    for cell in cells:
        if cell.recipe not in study.budget.steps:
            raise UsageError(
                f"the budget has no steps for {cell.recipe}: add them to its file, or choose other --networks, --tasks"
            )
    for task, fold in dict.fromkeys((cell.task, cell.fold) for cell in cells):
        split_recordings(study.corpus.corpus, TASKS[task], fold, study.num_folds(task))
    return cells


def open_study(study: Study) -> None:
    """Make the study's folder, or make sure that it holds this very study.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    path = study.folder / FILENAME
    wanted = json.loads(json.dumps(study.description()))
    # One look: another command may start the study at this moment, or have left a hidden file when it was killed.
    names = {item.name for item in study.folder.iterdir()} if study.folder.exists() else set()
    if FILENAME not in names:
        if any(not name.startswith(".") for name in names):
            raise UserError(f"{study.folder} holds something else than a study: choose another place with --output")
        with replacing(path, "choose another place with --output") as temporary:
            temporary.write_text(json.dumps(wanted, indent=2) + "\n")
    found = read_json(path)
    different = [name for name in ("format", "corpus", "budget", "composite") if found.get(name) != wanted[name]]
    if different:
        raise UserError(
            f"{study.folder} holds a study with another {different[0]}: choose another place with --output, "
            "or the options that it was started with"
        )
    if found.get("recipes") != wanted["recipes"]:
        raise UserError(
            f"{study.folder} holds a study with other recipes, of another version of audio-lrp "
            f"(started with {found.get('audio_lrp')}): choose another place with --output, or install that version"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a study.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and run the command again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object): remove it, and run the command again")
    return content


def _say(text: str) -> None:
    print(f"audio-lrp: {text}", file=sys.stderr)
