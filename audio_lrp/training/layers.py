"""What the user said, layer by layer: each configuration file and each option, in their order.

The parser merges these layers and forgets them. Two mistakes can only be seen before that: a class that is replaced
while the settings made for its predecessor stay behind, and a value for something that is not the user's to choose.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audio_lrp.errors import UsageError, parse_yaml, yaml_problem
from audio_lrp.training.config_files import find_config

LINKED = {
    "model.num_classes": "it follows from the data's task: set data.task",
    "model.representation": "it follows from the data: set data.representation",
    "trainer.default_root_dir": "everything a run writes lies in its own folder: set run.root",
    "trainer.logger.save_dir": "everything a run writes lies in its own folder: set run.root",
}
"""Options that follow from others, and what to do instead of setting them."""

_WRITTEN_BY_THE_PARSER = {"trainer.logger.save_dir": (None, ".")}
"""What linked options hold in configurations that the parser wrote: those of lists it does not leave out."""


@dataclass(frozen=True)
class Layer:
    """One configuration file or one option.

    Attributes:
        path: the file; None for the command line.
        settings: values by dotted name; ``init_args`` is left out of the names, and a class with settings has its
            path under its own name: ``{"model.network": "AudioNet", "model.network.dropout": 0.3}``. The items of
            lists are numbered, ``callbacks[0]``; one that is appended, as ``--callbacks+=``, has no number.
    """

    path: Path | None
    settings: dict[str, Any]

    @property
    def origin(self) -> str:
        """The file's name, or the command line."""
        return "the command line" if self.path is None else self.path.name


@dataclass(frozen=True)
class ClassSwitch:
    """A class that replaces the one of an earlier layer.

    Attributes:
        option: the dotted name of what the class is for.
        before: the class of the earlier layers.
        after: the class that replaces it.
        origin: where it is replaced, a configuration file's name or the command line.
        left: names of the settings made for ``before`` and for it alone.
    """

    option: str
    before: str
    after: str
    origin: str
    left: tuple[str, ...]


def read_layers(arguments: Sequence[str]) -> list[Layer]:
    """The layers of the arguments that follow a subcommand; misspelt options are left to the parser.

    Raises:
        UsageError: a configuration file is missing or is not a YAML mapping.
    """
    layers = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            continue
        option, equals, value = word.partition("=")
        if option.startswith("--print_config"):
            continue
        if re.fullmatch(r"-[a-z][\w.]+", option):
            raise UsageError(f"unknown option {option}: long options begin with two dashes, -{option}")
        value = value if equals else next(words, "")
        if option in ("-c", "--config"):
            if not value or value.startswith("-"):
                raise UsageError(f"{option} needs a configuration: a YAML file, or a shipped one such as quickstart")
            path = find_config(value)
            layers.append(Layer(path, dict(flatten(_load_file(path)))))
        else:
            name = option.lstrip("-").replace(".init_args.", ".").removesuffix(".class_path")
            name = f"{name[:-1]}[]" if name.endswith("+") else name
            layers.append(Layer(None, dict(flatten(_load_value(value), name))))
    return layers


def _load_file(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_yaml(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {yaml_problem(error)}") from error
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} holds no options: a configuration is a YAML mapping, e.g. 'trainer: {{max_epochs: 3}}'"
        )
    return content


def _load_value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:  # not YAML, as the parser says it in its turn where it matters
        return text


def flatten(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested configuration by dotted name, as in :class:`Layer`."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "class_path":
                yield name, value
            elif key in ("init_args", "dict_kwargs"):
                yield from flatten(value, name)
            else:
                yield from flatten(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from flatten(item, f"{name}[{number}]")
    elif name:
        yield name, node


def refuse_linked_options(layers: Sequence[Layer]) -> None:
    """Refuse values for options that follow from others, which the parser would ignore without a word.

    Raises:
        UsageError: a layer sets one.
    """
    for layer in layers:
        for name, value in layer.settings.items():
            linked = re.sub(r"\[\d*\]", "", name)
            if linked in LINKED and not (layer.path is not None and value in _WRITTEN_BY_THE_PARSER.get(linked, ())):
                raise UsageError(f"{linked} cannot be set ({layer.origin}): {LINKED[linked]}", linked)


def refuse_none(layers: Sequence[Layer]) -> None:
    """Refuse Python's ``None``, which YAML reads as a word like any other, a file's name for instance.

    Raises:
        UsageError: a layer holds it.
    """
    for layer in layers:
        for name, value in layer.settings.items():
            if value == "None":
                raise UsageError(f"--{name} is the word None ({layer.origin}): write null for no value", name)


def class_switches(layers: Sequence[Layer]) -> list[ClassSwitch]:
    """The classes that were replaced although an earlier layer had made settings for them.

    Classes in lists are none of them: a later layer replaces a list as a whole, or appends to it.
    """
    settings: dict[str, Any] = {}
    switches: list[ClassSwitch] = []
    for number, layer in enumerate(layers):
        for option, value in layer.settings.items():
            before = None if "[" in option else settings.get(option)
            if isinstance(before, str) and isinstance(value, str) and _is_other_class(before, value):
                made_anew = set().union(*(_settings_of(option, later.settings) for later in layers[number:]))
                left = _settings_of(option, settings) - made_anew
                if left:
                    switches.append(ClassSwitch(option, before, value, layer.origin, tuple(sorted(left))))
        settings |= layer.settings
    return switches


def _settings_of(option: str, settings: Mapping[str, Any]) -> set[str]:
    return {re.split(r"[.\[]", name[len(option) + 1 :])[0] for name in settings if name.startswith(f"{option}.")}


def _is_other_class(before: str, after: str) -> bool:
    if Path(after).suffix == ".yaml":  # a file that holds a class and its settings may be given in the class's place
        return False
    return before.rsplit(".", 1)[-1] != after.rsplit(".", 1)[-1]
