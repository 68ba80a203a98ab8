"""One parser over all commands, for the scripts that teach shells to complete them."""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

from audio_lrp.commands.table import COMMANDS, LIGHTNING
from audio_lrp.training.config_files import shipped_configs
from audio_lrp.training.lightning_cli import AudioLRPCLI


def whole_parser() -> argparse.ArgumentParser:
    """A parser that has every command's, with what shells can propose for their options."""
    whole = argparse.ArgumentParser(prog="audio-lrp")
    commands = whole.add_subparsers()
    for name, command_parser in _command_parsers():
        commands.add_parser(name, parents=[_completed(command_parser)], add_help=False, help=COMMANDS[name].help)
    return whole


def _command_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command's parser."""
    lightning = _lightning_parsers()
    for name, command in COMMANDS.items():
        if command.module == LIGHTNING:
            yield name, lightning[name]
        else:
            yield name, importlib.import_module(command.module).parser()


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
