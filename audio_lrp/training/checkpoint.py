"""The checkpoint that a command begins with, looked at before anything runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch import nn

from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.errors import UserError
from audio_lrp.tracking.record import CONFIG_FILENAME
from audio_lrp.training.summary import quoted


def check_weights(path: Path, checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Check that a checkpoint holds the weights of this very model, by loading them.

    The hyperparameters stored in it are not looked at: what the run is made of, the configuration says.

    Raises:
        UserError: it does not.
    """
    problem = _misfit(checkpoint["state_dict"], model)
    if problem is not None:
        raise UserError(
            f"the weights in {path} are another model's ({problem}): take the configuration that lies beside the "
            "checkpoint's folder"
        )


def continued_run(checkpoint: str, configs: Sequence[str]) -> tuple[Path, Path | None]:
    """The checkpoint of a training that is resumed, and the folder of the run that it resumes in.

    Args:
        checkpoint: a file, or ``"last"`` for the newest of the run whose configuration is given.
        configs: the configuration files.

    Returns:
        The checkpoint's path and the run's folder; None instead of the folder for a new run, which begins with the
        checkpoint of another.

    Raises:
        UserError: there is no run or no checkpoint to resume from.
    """
    folders = [Path(config).parent for config in configs if Path(config).name == CONFIG_FILENAME]
    if checkpoint != "last":
        path = Path(checkpoint)
        owner = path.absolute().parent.parent
        return path, owner if any(folder.absolute() == owner for folder in folders) else None
    if not folders:
        raise UserError("--ckpt_path last resumes a run: give the run's --config FOLDER/config.yaml as well")
    paths = sorted(folders[-1].glob("checkpoints/*.ckpt"))
    if not paths:
        raise UserError(f"there is no checkpoint in {folders[-1] / 'checkpoints'}: that run must begin anew")
    return max(paths, key=_progress), folders[-1].absolute()


def holds_weights_alone(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint lacks what a training resumes with, as those of ``save_weights_only`` do."""
    return "optimizer_states" not in checkpoint


def check_optimizer(path: Path, checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that the optimizer whose state a checkpoint holds has the settings of this one.

    Raises:
        UserError: each has some that the other lacks, so they are of different classes.
    """
    for stored, made in zip(checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups, strict=False):
        there, here = sorted(stored.keys() - made.keys() - {"initial_lr"}), sorted(made.keys() - stored.keys())
        if there and here:
            raise UserError(
                f"the optimizer of {path} had {', '.join(there)}, and {type(optimizer).__name__} has "
                f"{', '.join(here)}: resume with the optimizer that the training began with"
            )


def resuming(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks for a training that resumes.

    Those that try values out before a training end with what they began with, so that nothing would be resumed.

    Raises:
        UserError: there is a BatchSizeFinder, whose result is kept nowhere.
    """
    if any(isinstance(callback, BatchSizeFinder) for callback in callbacks):
        raise UserError(
            "a training cannot resume with BatchSizeFinder, which would begin anew: take it out of trainer.callbacks, "
            "and set data.batch_size to what it found"
        )
    return [callback for callback in callbacks if not isinstance(callback, LearningRateFinder)]


def _progress(path: Path) -> tuple[bool, int]:
    """Whether a training can resume from a checkpoint, and the steps behind it."""
    checkpoint = read_checkpoint(path)
    return not holds_weights_alone(checkpoint), checkpoint.get("global_step", 0)


def how_to_resume(folder: Path, trainer: Trainer) -> str:
    """The command that resumes an interrupted training, or that there is no checkpoint for it.

    Args:
        folder: the run's.
        trainer: the one that was interrupted.
    """
    config, checkpoint = folder / CONFIG_FILENAME, Path("last")
    try:
        continued_run("last", [str(config)])
    except UserError:
        folders = [Path(getattr(callback, "dirpath", None) or folder) for callback in trainer.checkpoint_callbacks]
        elsewhere = [path for place in folders for path in place.glob("*.ckpt")]
        if not elsewhere:
            return "no checkpoint was written yet from which the training could be resumed"
        checkpoint = max(elsewhere, key=lambda path: path.stat().st_mtime)
    return f"to resume the training: audio-lrp fit --config {quoted(config)} --ckpt_path {quoted(checkpoint)}"


def _misfit(stored: dict[str, Any], model: nn.Module) -> str | None:
    """What keeps a model from loading these weights."""
    wanted = model.state_dict()
    for name in [*wanted, *stored]:
        here, there = wanted.get(name), stored.get(name)
        if (name in wanted) != (name in stored) or _significant(here) != _significant(there):
            return f"{name} is {_shape(there)} there and {_shape(here)} here"
    try:
        model.load_state_dict(stored)
    except RuntimeError as error:
        return str(error).splitlines()[-1].strip(" \t.")
    return None


def _significant(value: Any) -> list[int]:
    """A shape without dimensions of 1: AudioNet loads kernels with and without a height of 1.

    Empty for what modules keep beside tensors (``get_extra_state``), which they alone can judge.
    """
    return [size for size in value.shape if size != 1] if isinstance(value, torch.Tensor) else []


def _shape(value: Any) -> str:
    if value is None:
        return "missing"
    return f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "no tensor"
