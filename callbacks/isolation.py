"""Work in the middle of training that the training does not notice: neither its random numbers nor its failures."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from audio_lrp.errors import UserError

OnError = Literal["warn", "raise"]
"""Whether a failure is a warning or ends the run."""


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Let the random numbers of PyTorch, NumPy and Python go on afterwards as if nothing had been drawn inside.

    Holds after an exception too.

    Args:
        device: whose generator to restore beside the CPU's.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def check_on_error(on_error: OnError, callback: object) -> None:
    """Refuse what is no `OnError`.

    Args:
        on_error: a callback's setting.
        callback: the callback, which the message names.

    Raises:
        UserError: it is neither ``"warn"`` nor ``"raise"``.
    """
    if on_error not in get_args(OnError):
        raise UserError(f"on_error of {type(callback).__name__} is 'warn' or 'raise', not {on_error!r}")


@contextmanager
def surviving(loss: str, on_error: OnError) -> Iterator[None]:
    """Let a failure inside cost what was to be shown, not the run.

    Args:
        loss: what the failure costs, as the beginning of a sentence.
        on_error: ``"raise"`` lets it end the run after all.
    """
    try:
        yield
    except Exception as error:
        if on_error == "raise":
            raise
        rank_zero_warn(
            f"{loss} ({type(error).__name__}: {error}); the run goes on, set on_error to 'raise' to stop here"
        )
