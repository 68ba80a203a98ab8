"""The argument parser of the commands that need no configuration files."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from audio_lrp.errors import UsageError
from audio_lrp.utils.nearest import did_you_mean


class CommandParser(argparse.ArgumentParser):
    """argparse's parser without abbreviations, which answers a mistake with one sentence.

    The parsers of a command's actions are made from the same class, so they answer in the same way.

    Args:
        **settings: as argparse has them; ``prog`` is the whole command, e.g. ``"audio-lrp explain"``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self.register("type", int, _integer)
        self.register("type", float, _number)
        self.register("type", Path, _path)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options of the command line.

        Raises:
            UsageError: an option is unknown, missing or of the wrong type.
            SystemExit: with code 0 after ``--help``.
        """
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]}")
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but a misspelt option is told before the one that is missing for that reason."""
        if args is not None and self._subparsers is None:
            self._refuse_unknown(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`~audio_lrp.errors.UsageError` instead of printing the usage and leaving."""
        raise UsageError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        for word in words:
            option = word.partition("=")[0]
            if word == "--":
                return
            if word.startswith("--") and option not in self._option_string_actions:
                self.error(f"unknown option {option}{did_you_mean(option, self._option_string_actions, before=': ')}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest choice."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices, before=": ") or f": choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from error


def _path(text: str) -> Path:
    """The shell leaves the tilde of ``--option=~/folder`` as it is, and an unset variable nothing."""
    if not text:  # to Python the working directory
        raise argparse.ArgumentTypeError("expected a file or folder, got ''")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"there is no such user's folder: {text!r}") from error
