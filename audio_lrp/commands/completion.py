"""Completion of commands and options by the Tab key: ``audio-lrp completion bash``."""

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from audio_lrp.commands.table import COMMANDS, LIGHTNING
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

    whole = argparse.ArgumentParser(prog="audio-lrp")
    commands = whole.add_subparsers()
    for name, command_parser in _command_parsers():
        commands.add_parser(name, parents=[_completed(command_parser)], add_help=False, help=COMMANDS[name].help)
    print(shtab.complete(whole, shell))


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


def _command_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command's parser."""
    lightning = _lightning_parsers()
    for name, command in COMMANDS.items():
        if command.module is None:
            yield name, parser()
        elif command.module == LIGHTNING:
            yield name, lightning[name]
        else:
            yield name, importlib.import_module(command.module).parser()


def _lightning_parsers() -> dict[str, argparse.ArgumentParser]:
    from audio_lrp.training.lightning_cli import AudioLRPCLI  # only now: it needs PyTorch, and seconds

    class CompleteError(Exception):
        """Carries LightningCLI's parser out of its constructor, which would begin a run."""

    class ParserOnly(AudioLRPCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise CompleteError(parser)

    try:
        ParserOnly([])
    except CompleteError as complete:
        parsers: dict[str, argparse.ArgumentParser] = complete.args[0]._subcommands_action.choices
        return parsers
    raise AssertionError("the constructor parses")


def _completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with files proposed for paths, and the shipped configurations' names for configurations."""
    import shtab

    from audio_lrp.training.config_files import shipped_configs

    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if "--config" in action.option_strings:
            action.choices = list(shipped_configs())
    return parser
