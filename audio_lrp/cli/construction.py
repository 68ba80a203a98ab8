"""Mistakes that only a class's constructor finds, told with the option that made it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from audio_lrp.cli.layers import flatten
from audio_lrp.errors import UserError


@contextmanager
def told_as_user_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn what constructors of other packages raise into one sentence.

    Args:
        config: the configuration that the block makes instances of.

    Raises:
        UserError: a constructor refused a value.
    """
    try:
        yield
    except (TypeError, ValueError, MisconfigurationException) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, UserError) for cause in causes):
            raise
        cause = causes[-1]
        if "No supported gpu backend" in str(cause):
            reason = "there is no GPU that PyTorch can use here: run on the CPU with --config trainer/cpu"
        else:
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(f"{_place(cause.__traceback__, config)}{reason}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it: jsonargparse wraps errors of constructors."""
    while error is not None:
        yield error
        error = error.__cause__


def _place(traceback: TracebackType | None, config: Mapping[str, Any]) -> str:
    """The innermost class of the configuration whose constructor was at work, and its option."""
    options = {"Trainer": "--trainer: "}
    for option, value in flatten(config):
        class_name = str(value).rsplit(".", 1)[-1]
        whole_list = re.sub(r"\[[0-9]+\]", "", option)
        options[class_name] = f"--{whole_list} ({class_name}): "
    place = ""
    while traceback is not None:
        frame = traceback.tb_frame
        name = type(frame.f_locals.get("self")).__name__
        if frame.f_code.co_name == "__init__":
            place = options.get(name, place)
        traceback = traceback.tb_next
    return place
