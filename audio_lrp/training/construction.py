"""Mistakes that only a class's constructor finds, told with the option that made it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from audio_lrp.errors import UserError
from audio_lrp.training.complaints import is_users_bug
from audio_lrp.training.layers import Layer, flatten
from audio_lrp.training.places import with_place_of_value


@contextmanager
def as_user_errors(config: Mapping[str, Any], layers: Sequence[Layer]) -> Iterator[None]:
    """Turn what constructors of other packages raise into one sentence, and say which option made it.

    Args:
        config: the configuration that the block makes instances of.
        layers: what the user said.

    Raises:
        UserError: a constructor refused a value.
    """
    try:
        yield
    except (TypeError, ValueError, ImportError, MisconfigurationException, UserError) as error:
        causes = list(_causes(error))
        told = next((cause for cause in causes if isinstance(cause, UserError)), None)
        if told is not None:
            option, _ = _maker(told.__traceback__, config)
            if option is None or "--" in str(told):
                raise
            raise with_place_of_value(told, option, layers) from error
        cause = causes[-1]
        if is_users_bug(cause):
            raise
        if re.search("No supported gpu backend|(CUDA|MPS)Accelerator.* can not run", str(cause)):
            reason = "there is no such GPU that PyTorch can use here: run on the CPU with --config trainer/cpu"
        else:
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        option, class_name = _maker(cause.__traceback__, config)
        about = f" ({class_name})" if class_name not in (None, "Trainer") else ""
        raise UserError(f"--{option}{about}: {reason}" if option else reason) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it: jsonargparse wraps errors of constructors."""
    while error is not None:
        yield error
        error = _told_by_a_constructor(error) or error.__cause__


def _told_by_a_constructor(error: BaseException) -> BaseException | None:
    """Where several types were tried, a logger and a list of loggers say, the error that was not of the types."""
    for frame, _ in walk_tb(error.__traceback__):
        tried: Sequence[BaseException] = ()
        if frame.f_code.co_name == "raise_union_unexpected_value":
            tried = frame.f_locals.get("exceptions", ())
        for attempt in tried:
            *_, (innermost, _) = walk_tb(attempt.__traceback__)
            if attempt.__cause__ or not str(innermost.f_globals.get("__name__")).startswith("jsonargparse"):
                return attempt
    return None


def _maker(traceback: TracebackType | None, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Option and name of the innermost class of the configuration whose constructor was at work."""
    options = {"Trainer": "trainer"}
    for option, value in flatten(config):
        options[str(value).rsplit(".", 1)[-1]] = re.sub(r"\[[0-9]+\]", "", option)
    maker = None
    while traceback is not None:
        frame = traceback.tb_frame
        name = type(frame.f_locals.get("self")).__name__
        if frame.f_code.co_name == "__init__" and name in options:
            maker = name
        traceback = traceback.tb_next
    return (None, None) if maker is None else (options[maker], maker)
