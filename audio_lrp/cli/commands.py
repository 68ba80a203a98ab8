"""The commands beside Lightning's own, each a module of its own that is imported when it is called."""

import importlib
from collections.abc import Sequence
from typing import Final

COMMANDS: Final = {
    "explain": "audio_lrp.explain",
}
"""Name of each command and the module whose ``main(args)`` runs it."""


def run_command(name: str, args: Sequence[str]) -> None:
    """Run one of the commands.

    Args:
        name: a key of `COMMANDS`.
        args: its arguments, without its name.

    Raises:
        UserError: what the command has to say of its arguments and their files.
    """
    importlib.import_module(COMMANDS[name]).main(args)
