"""The argument parser of the commands that need no configuration files."""

import argparse
from difflib import get_close_matches
from typing import Any, NoReturn

from audio_lrp.errors import UsageError


class CommandParser(argparse.ArgumentParser):
    """argparse's parser without abbreviations, which answers a mistake with one sentence.

    Args:
        **settings: as argparse has them; ``prog`` is the whole command, e.g. ``"audio-lrp explain"``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options of the command line.

        Raises:
            UsageError: an option is unknown, missing or of the wrong type.
            SystemExit: with code 0 after ``--help``.
        """
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            nearest = get_close_matches(rest[0], self._option_string_actions, n=2)
            hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"see {self.prog} --help"
            raise UsageError(f"unknown option {rest[0]}: {hint}")
        return options

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`~audio_lrp.errors.UsageError` instead of printing the usage and leaving."""
        raise UsageError(f"{message}: see {self.prog} --help")
