"""Checks of a checkpoint before anything runs."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audio_lrp.errors import UserError


def check_checkpoint(path: Path, model: nn.Module) -> None:
    """Check that a checkpoint file exists, can be read safely, and holds the weights of this very model.

    The hyperparameters stored in it are not looked at: what the run is made of, the configuration says.

    Raises:
        UserError: it does not.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: give --ckpt_path the path of a .ckpt file")
    stored = _load(path).get("state_dict")
    if not isinstance(stored, dict):
        raise UserError(f"{path} is not a Lightning checkpoint: it holds no state_dict")
    wanted = model.state_dict()
    for name in [*wanted, *stored]:
        here, there = wanted.get(name), stored.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise UserError(
                f"the weights in {path} are another model's ({name} is {_shape(there)} there and {_shape(here)} here): "
                "take the configuration that lies beside the checkpoint's folder"
            )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be loaded as a checkpoint of weights alone ({reason[:150]})") from error
    return content if isinstance(content, dict) else {}


def _shape(weight: torch.Tensor | None) -> str:
    return "missing" if weight is None else f"of shape {tuple(weight.shape)}"
