"""The argument parser: no abbreviations, shipped classes first, mistakes in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NoReturn, get_args
from unittest.mock import patch

import jsonargparse
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, ReduceLROnPlateau
from torch import nn

import audio_lrp.callbacks
import audio_lrp.data
import audio_lrp.models
from audio_lrp.plugins import plugin_classes
from audio_lrp.training.messages import usage_error

# Lightning's Timer has an enum's member where its constructor takes a string.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


class Parser(LightningArgumentParser):
    """LightningCLI's parser, strict and brief.

    jsonargparse makes the parsers for the options of nested classes from the same class, so they are strict as well.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation is a misspelling as often as not: --trainer.max_epoch would be taken for max_epochs.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a :class:`~audio_lrp.errors.UsageError` instead of printing pages."""
        if not self.exit_on_error:  # the parser of a nested class: the outermost one tells
            super().error(message, ex)
        commands = self._subcommands_action.choices.values() if self._subcommands_action else ()
        raise usage_error(message, {name for parser in (self, *commands) for name in parser._option_string_actions})

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """A configuration as text that gives the same configuration again."""
        of_objects = jsonargparse._typehints.serialize_as_import_path

        def of_anything(value: object) -> object:
            # jsonargparse takes a text for an object where the type is Callable | str, and knows no devices.
            return str(value) if isinstance(value, str | torch.device) else of_objects(value)  # type: ignore[no-untyped-call]

        with patch.object(jsonargparse._typehints, "serialize_as_import_path", of_anything):
            text: str = super().dump(*args, **kwargs)
            return text


@contextmanager
def shipped_classes_first() -> Iterator[None]:
    """Let a bare class name mean the shipped class where another package has one of the same name.

    jsonargparse looks for a bare name among all imported subclasses of the expected type and refuses one that two
    classes share. AlexNet is such a name: torchmetrics imports torchvision, which has one.

    Where any ``nn.Module`` fits, as for networks, every layer and every network of torchvision would be found, so
    there a bare name means a shipped class, a plugin's or none.
    """
    plugins = {
        name: (class_, f"{class_.__module__}.{class_.__qualname__}") for name, class_ in plugin_classes().items()
    }
    shipped: dict[str, tuple[object, str]] = plugins | {
        name: (getattr(package, name), f"{package.__name__}.{name}")
        for package in (audio_lrp.callbacks, audio_lrp.data, audio_lrp.models)
        for name in package.__all__
    }
    # Of two of this name the one that says what it monitors, without which it cannot be used.
    shipped["ReduceLROnPlateau"] = (ReduceLROnPlateau, "lightning.pytorch.cli.ReduceLROnPlateau")
    find_class = jsonargparse._typehints.resolve_class_path_by_name

    def find_shipped_class(expected: Any, name: str) -> str:
        found, path = shipped.get(name, (None, name))
        types = get_args(expected) or expected  # of a union
        if isinstance(found, type) and isinstance(types, type | tuple) and issubclass(found, types):
            return path
        if expected is nn.Module:
            return name
        other_path: str = find_class(expected, name)
        return other_path

    with patch.object(jsonargparse._typehints, "resolve_class_path_by_name", find_shipped_class):
        yield
