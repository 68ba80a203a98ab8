"""Completion of commands and options by the Tab key: ``audio-lrp completion bash``."""

from collections.abc import Sequence
from typing import Final

from audio_lrp.utils.arguments import CommandParser

SHELLS: Final = ("bash", "zsh", "fish")


def main(args: Sequence[str] | None = None) -> None:
    """Print the script that teaches a shell all commands and options.

    Args:
        args: the command line's arguments; by default the process's.

    Raises:
        UsageError: the shell is none of `SHELLS`.
    """
    shell = parser().parse_args(args).shell
    import shtab

    from audio_lrp.commands.whole_parser import whole_parser  # only now: it needs PyTorch, and seconds

    print(shtab.complete(whole_parser(), shell))


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp completion",
        description="Print a script that completes commands and options, to be saved where the shell looks for it: "
        "~/.local/share/bash-completion/completions/audio-lrp, a folder of zsh's $fpath as _audio-lrp, or "
        "~/.config/fish/completions/audio-lrp.fish.",
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser
