"""The training of one cell: a shipped recipe, run as ``audio-lrp fit`` runs it."""

from pathlib import Path
from typing import Any, Final

import yaml

from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.data import SyntheticDigits
from audio_lrp.errors import UserError
from audio_lrp.jobs.worker import output_to
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.recipe import read_recipe
from audio_lrp.tracking.checkpoint_io import write_checkpoint
from audio_lrp.training.lightning_cli import main as run_lightning
from audio_lrp.utils.files import replacing

LOG: Final = "cell.log"
BEST: Final = "checkpoints/best.ckpt"
LAST: Final = "checkpoints/last.ckpt"

_LEFT_OUT: Final = ("LRPCallback", "ConfusionMatrixCallback")
"""Callbacks that explain or draw during the training; a study does so with what comes out, and more of it."""
_RESUMPTION: Final = ("optimizer_states", "lr_schedulers", "callbacks", "loops", "current_model_state")
"""Parts of a checkpoint that only a training to be resumed needs; they are four fifths of it."""
_LOGGED_EVERY: Final = 10


class TrainingFailedError(Exception):
    """A training ended too early."""


def fit_settings(study: Study, cell: Cell) -> dict[str, Any]:
    """The recipe with the study's corpus, budget and folders."""
    folder, budget = study.cell_folder(cell), study.budget
    settings = read_recipe(cell.recipe)
    settings["run"] = {"root": str(folder), "experiment": "training"}
    settings["data"]["class_path"] = "CorpusDataModule"
    settings["data"]["init_args"] |= {
        "corpus": study.corpus.settings(),
        "fold": cell.fold,
        "num_folds": study.num_folds(cell.task),
        "batch_size": budget.batch_size,
        "training_corpora": _further_corpora(study),
    }
    trainer = settings["trainer"]
    trainer |= {
        "max_steps": budget.steps[cell.recipe],
        "val_check_interval": budget.validate_every,
        "log_every_n_steps": _LOGGED_EVERY,
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"name": "", "version": "", "flush_logs_every_n_steps": _LOGGED_EVERY},
        },
        "callbacks": [item for item in trainer["callbacks"] if _class_name(item) not in _LEFT_OUT],
    }
    for callback in trainer["callbacks"]:
        if _class_name(callback) == "ModelCheckpoint":
            # The same folder and names for a training that is resumed: Lightning forgets the best otherwise.
            callback["init_args"] |= {"dirpath": str(folder / "checkpoints"), "enable_version_counter": False}
            if "monitor" in callback["init_args"]:
                # Averaged weights, those that were validated, are saved in whole checkpoints alone; see keep_weights.
                callback["init_args"] |= {"filename": Path(BEST).stem, "save_weights_only": False}
    return settings


def _further_corpora(study: Study) -> list[dict[str, Any]]:
    voices = study.budget.synthetic_voices
    if voices == 0 or isinstance(study.corpus.corpus, SyntheticDigits):
        return []
    return [{"class_path": "SyntheticDigits", "init_args": {"speakers": voices, "repetitions": 1}}]


def _class_name(item: dict[str, Any]) -> str:
    return str(item["class_path"]).rpartition(".")[2]


def train(study: Study, cell: Cell) -> None:
    """Train a cell in this process, from its last checkpoint if there is one; then its best checkpoint is there.

    Raises:
        TrainingFailedError: the training has not all steps of the budget behind it.
        Exception: whatever ended the training.
    """
    folder = study.cell_folder(cell)
    configuration = folder / "fit.yaml"
    with replacing(configuration) as temporary:
        temporary.write_text(f"# audio-lrp fit --config fit.yaml\n{yaml.safe_dump(fit_settings(study, cell))}")
    arguments = ["fit", f"--config={configuration}"]
    if (folder / LAST).is_file():
        try:
            read_checkpoint(folder / LAST)
            arguments.append(f"--ckpt_path={folder / LAST}")
        except UserError:  # the machine failed while it was written: from the start then
            (folder / LAST).unlink()
    with output_to(folder / LOG):
        print(f"audio-lrp {' '.join(arguments)}", flush=True)
        run_lightning(arguments)
    for path in (folder / BEST, folder / LAST):
        if not path.is_file():
            raise TrainingFailedError(f"it left no {path}")
    steps, wanted = read_checkpoint(folder / LAST)["global_step"], study.budget.steps[cell.recipe]
    if steps != wanted:  # whatever ended it
        raise TrainingFailedError(f"it ended after {steps} of {wanted} steps")
    keep_weights(folder / BEST)


def keep_weights(path: Path) -> None:
    """Take out of a checkpoint what only a training to be resumed needs."""
    kept = {name: value for name, value in read_checkpoint(path).items() if name not in _RESUMPTION}
    write_checkpoint(kept, path, "choose another place with --output")


def best_validation_accuracy(folder: Path) -> float:
    """The validation accuracy of a cell's best checkpoint, as its last one remembers it."""
    callbacks = read_checkpoint(folder / LAST)["callbacks"]
    scores = [state["best_model_score"] for state in callbacks.values() if state.get("monitor") == "val/accuracy"]
    return float(scores[0])
