"""Errors that other packages raise on purpose, to say what the user has to change, apart from bugs."""

import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Final, NamedTuple

from audio_lrp.errors import UserError
from audio_lrp.plugins import plugin_packages

_SPEAKERS: Final = {"lightning", "lightning_utilities", "wandb", "mlflow", "comet_ml"}
"""Packages that check what a training consists of, and with what PyTorch was called where it complains."""

_COMPLAINTS: Final = ("wandb.errors", "lightning.fabric.utilities.exceptions")
"""Modules whose errors are complaints wherever they are raised; by name, as importing them takes seconds."""

_PARTS: Final = ("lightning.pytorch.callbacks.", "lightning.pytorch.loggers.")

_OF_A_WORKER: Final = "Original Traceback"
"""What PyTorch puts before the traceback of another process, which says where a bug is."""


class _Place(NamedTuple):
    """A line that was at work when an error was raised."""

    package: str
    file: str
    line: int
    part: str
    """Name of the callback or logger whose method it is, if it is one's."""

    @property
    def is_users(self) -> bool:
        """Whether the line is neither ours, nor Python's, nor of an installed package that is no plugin."""
        if self.package in plugin_packages():
            return True
        installed = {"site-packages", "dist-packages"} & set(Path(self.file).parts)
        return not installed and self.package not in {*sys.stdlib_module_names, "audio_lrp"}

    @property
    def raises(self) -> bool:
        """Whether the line is a ``raise``, which says what is wrong on purpose."""
        return re.search(r"\braise\b", linecache.getline(self.file, self.line)) is not None


def complaint(error: BaseException) -> UserError | None:
    """What another package says to the user; ``None`` for what may be a bug, of which a traceback tells more.

    An error is a complaint where a ``raise`` of Lightning's or of a logger's made it, or one of PyTorch's that these
    called; not where the user's own code called them, whose place only the traceback tells.
    """
    places = list(_places(error.__traceback__))
    if not places or any(place.is_users for place in places[:-1]) or _OF_A_WORKER in str(error):
        return None
    speaker = next((place.package for place in reversed(places) if place.package != "torch"), None)
    on_purpose = speaker in _SPEAKERS and places[-1].raises
    if not type(error).__module__.startswith(_COMPLAINTS) and not on_purpose:
        return None
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error) or type(error).__name__
    about = next((place.part for place in reversed(places) if place.part), "")
    return UserError(f"{about}: {text}" if about and about not in text else text)


def is_users_bug(error: BaseException) -> bool:
    """Whether a line of the user's own code failed, other than by a ``raise``."""
    return any(place.is_users and not place.raises for place in [*_places(error.__traceback__)][-1:])


def _places(traceback: TracebackType | None) -> Iterator[_Place]:
    for frame, line in walk_tb(traceback):
        module, owner = str(frame.f_globals.get("__name__")), type(frame.f_locals.get("self")).__name__
        part = owner if module.startswith(_PARTS) and not owner.startswith("_") else ""
        yield _Place(module.partition(".")[0], frame.f_code.co_filename, line, part)
