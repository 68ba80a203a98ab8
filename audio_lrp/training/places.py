"""Where a mistake stands: the configuration file, and the line in it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from audio_lrp.errors import UsageError, UserError
from audio_lrp.training.layers import Layer


def with_place(error: UsageError, layers: Sequence[Layer]) -> UsageError:
    """The error, preceded by file and line where its option has its value from a configuration file.

    Args:
        error: the parser's.
        layers: what the user said; the last layer that sets the option is meant.
    """
    for layer in reversed(layers):
        names = [name for name in layer.settings if _without_numbers(name) == error.option]
        if names:
            # Of several items of a list, the one whose value the message quotes.
            name = next((name for name in names if str(layer.settings[name]) in str(error)), names[-1])
            return UsageError(f"{_place(layer, name)}{error}", error.option)
    return error


def with_place_of_value(error: UserError, option: str, layers: Sequence[Layer]) -> UserError:
    """The error of a class's constructor, preceded by the place of the very setting that its message quotes.

    Args:
        error: the constructor's.
        option: dotted name of the class's option.
        layers: what the user said.
    """
    for layer in reversed(layers):
        for name, value in layer.settings.items():
            setting = _without_numbers(name)
            if setting.startswith(f"{option}.") and isinstance(value, str) and repr(value) in str(error):
                return UserError(f"{_place(layer, name)}--{setting}: {error}")
    return UserError(f"--{option}: {error}")


def _without_numbers(name: str) -> str:
    return re.sub(r"\[\d*\]", "", name)


def _place(layer: Layer, name: str) -> str:
    """File and line, to stand before a message; empty for the command line."""
    if layer.path is None:
        return ""
    if layer.path.suffix == ".ckpt":  # the configuration that a checkpoint holds
        return f"{layer.path.name}: "
    return f"{place_in_file(layer.path, name)}: "


def place_in_file(path: Path, name: str) -> str:
    """A YAML file's name and the line in which a setting stands, without the line where it stands in none."""
    line = dict(_lines(yaml.compose(path.read_text()))).get(name)
    return path.name if line is None else f"{path.name}, line {line}"


def _lines(node: yaml.Node | None, name: str = "") -> Iterator[tuple[str, int]]:
    """The lines of all settings by name, as :class:`~audio_lrp.training.layers.Layer` names them."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value == "class_path":
                yield name, line
            elif key.value in ("init_args", "dict_kwargs"):
                yield from _lines(value, name)
            else:
                full_name = f"{name}.{key.value}" if name else key.value
                yield full_name, line
                yield from _lines(value, full_name)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield f"{name}[{number}]", item.start_mark.line + 1
            yield from _lines(item, f"{name}[{number}]")
