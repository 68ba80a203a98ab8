"""Checks of a checkpoint before anything runs."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from audio_lrp.errors import UserError


def check_weights(path: Path, checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Check that a checkpoint holds the weights of this very model.

    The hyperparameters stored in it are not looked at: what the run is made of, the configuration says.

    Raises:
        UserError: it does not.
    """
    stored, wanted = checkpoint["state_dict"], model.state_dict()
    for name in [*wanted, *stored]:
        here, there = wanted.get(name), stored.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise UserError(
                f"the weights in {path} are another model's ({name} is {_shape(there)} there and {_shape(here)} here): "
                "take the configuration that lies beside the checkpoint's folder"
            )


def batches_into_epoch(checkpoint: dict[str, Any]) -> int:
    """How many batches of an unfinished epoch a checkpoint's training has behind it; 0 at the end of an epoch.

    Lightning goes on with the number of the next batch, but not with the batch: the data loader begins its order
    anew.
    """
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    return 0 if progress.get("is_last_batch", True) else int(progress["current"]["ready"])


def _shape(weight: torch.Tensor | None) -> str:
    return "missing" if weight is None else f"of shape {tuple(weight.shape)}"
