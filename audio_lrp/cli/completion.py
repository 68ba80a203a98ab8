"""Completion of commands and options by the Tab key: ``audio-lrp completion bash``."""

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import shtab

from audio_lrp.arguments import CommandParser
from audio_lrp.cli.commands import COMMANDS, LIGHTNING
from audio_lrp.cli.config_files import shipped_configs
from audio_lrp.cli.lightning_cli import AudioLRPCLI

SHELLS: Final = ("bash", "zsh", "fish")


def main(args: Sequence[str] | None = None) -> None:
    """Print the script that teaches a shell all commands and options.

    Args:
        args: the command line's arguments; by default the process's.

    Raises:
        UsageError: the shell is none of `SHELLS`.
    """
    parser = _parser()
    shell = parser.parse_args(args).shell
    whole = argparse.ArgumentParser(prog="audio-lrp")
    commands = whole.add_subparsers()
    for name, command_parser in _command_parsers():
        commands.add_parser(name, parents=[_completed(command_parser)], add_help=False, help=COMMANDS[name].help)
    print(shtab.complete(whole, shell))


def _command_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command's parser."""
    lightning = _lightning_parsers()
    for name, command in COMMANDS.items():
        if command.module == LIGHTNING:
            yield name, lightning[name]
        else:
            yield name, importlib.import_module(command.module)._parser()


class _CompleteError(Exception):
    """Carries LightningCLI's parser out of its constructor, which would go on to a run."""


class _ParserOnly(AudioLRPCLI):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _CompleteError(parser)


def _lightning_parsers() -> dict[str, argparse.ArgumentParser]:
    try:
        _ParserOnly([])
    except _CompleteError as complete:
        parsers: dict[str, argparse.ArgumentParser] = complete.args[0]._subcommands_action.choices
        return parsers
    raise AssertionError("the constructor parses")


def _completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with files proposed for paths, and the shipped configurations' names for configurations."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if "--config" in action.option_strings:
            action.choices = list(shipped_configs())
    return parser


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="audio-lrp completion",
        description="Print a script that completes commands and options, to be saved where the shell looks for it: "
        "~/.local/share/bash-completion/completions/audio-lrp, a folder of zsh's $fpath as _audio-lrp, or "
        "~/.config/fish/completions/audio-lrp.fish.",
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser
