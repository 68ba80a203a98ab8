"""jsonargparse's page-long messages, said in one sentence that names the option and the fix."""

import re
from collections.abc import Iterable

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import Logger
from torch import nn

import audio_lrp.callbacks
import audio_lrp.data
import audio_lrp.models
from audio_lrp.errors import UsageError
from audio_lrp.plugins import plugin_classes
from audio_lrp.training.config_files import shipped_configs
from audio_lrp.utils.nearest import did_you_mean

_PLUGIN_BASES = (
    Callback,
    Logger,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    audio_lrp.data.Corpus,
    audio_lrp.data.CorpusDataModule,
)
_LONGEST_MESSAGE = 300


def usage_error(message: str, options: Iterable[str]) -> UsageError:
    """The error that says a parser's message in one sentence.

    Args:
        message: as jsonargparse gives it; nested options and unions of types make it nest as well.
        options: the parser's option strings, among which a misspelt one is looked up.
    """
    # Of an entry that is added to a list, jsonargparse says as well why the list's own class would not fit.
    message = re.sub(
        r"(Problem with given class_path (?s:.*))\n *- Problem with .* 'lightning.Callback':\n.*", r"\1", message
    )
    error = (
        _unknown_option(message, options) or _missing_option(message) or _unknown_class(message) or _wrong_type(message)
    )
    if error is not None:
        return error
    text = " ".join(message.split())
    return UsageError(text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}...")


def _unknown_option(message: str, options: Iterable[str]) -> UsageError | None:
    if match := re.search(r"unrecognized arguments: ([^-]\S*)", message):
        word = match[1]
        is_config = word.endswith(".yaml") or word in shipped_configs()
        option = "--ckpt_path" if word.endswith(".ckpt") else "--config" if is_config else None
        hint = f"did you mean {option} {word}?" if option else "options begin with --"
        return UsageError(f"unexpected argument {word!r}: {hint}")
    match = re.search(
        r"(?:unrecognized arguments: --?|(?:Group '(?P<group>[^']+)' )?does not accept option '|Option ')([^\s'=]+)",
        message,
    )
    if match is None:
        return None
    before, after = message[: match.start()], message[match.end() :]
    keys = [*_keys(before), *filter(None, [match["group"]])]
    option = ".".join([*keys, match[2]])
    class_path = _class_path(after.partition("\n")[0]) or _class_path(before)
    if class_path is None:
        hint = did_you_mean(f"--{option}", [known for known in options if known.startswith("--")])
    elif "." not in class_path:  # a short name as it was written: what is misspelt stands beside it
        hint = did_you_mean(match[2].partition(".")[0], ("class_path", "init_args"))
    else:
        settings = _settings(class_path)
        hint = did_you_mean(match[2], settings, prefix="".join(f"{key}." for key in ["--" + keys[0], *keys[1:]]))
        if not hint:
            hint = f"{class_path.rsplit('.', 1)[-1]} takes {', '.join(settings)}"
            if class_path.endswith((".CorpusDataModule", ".Classifier")):
                hint = (  # without their many settings, which the help tells
                    "a configuration or class comes before the options that it brings, "
                    f"as in --config audionet_digit --{option} ..."
                )
    return UsageError(f"unknown option --{option}{f': {hint}' if hint else ''}", option)


def _missing_option(message: str) -> UsageError | None:
    match = re.search(r"the following arguments are required: ((?:\w+\.)*\w+(?:, (?:\w+\.)*\w+)*)", message)
    if match is None:
        return None
    before = message[: match.start()]
    names = [".".join([*_keys(before), name]) for name in match[1].split(", ")]
    class_path = _class_path(before)
    if class_path is None:
        command = names[0].split(".")[0]
        names = [name.split(".", 1)[-1] for name in names]  # without the command
        start = "" if command == "fit" else "a checkpoint, --ckpt_path FILE, or "
        hint = f"start from {start}a configuration, e.g. --config quickstart"
    else:
        hint = f"{class_path.rsplit('.', 1)[-1]} needs it"
    return UsageError(f"missing {' and '.join(f'--{name}' for name in names)}: {hint}", names[0])


def _unknown_class(message: str) -> UsageError | None:
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        before = message[: match.start()]
        if re.search(r"<class '(?:float|int)'>", before[before.rfind("Subtypes:") :]):  # a number would do as well
            return None
        names = _networks() if _keys(before)[-1:] == ["network"] else _class_names()
        nearest = did_you_mean(match[1], names)
        hint = f"{nearest} Or give" if nearest else "give"
        return _about(before, f"no class is called {match[1]!r}: {hint} the class's path, package.module.Class")
    if match := re.search(r"class_path '([^']+)':\s+(No module named [^\n]+|[^\n]+has no attribute [^\n]+)", message):
        return _about(message[: match.start()], f"the class {match[1]} cannot be imported ({match[2]})")
    if match := re.search(r"callable class: ((?!Parser key)[^\n]+?)\. Got value: (\S+)\n", message):
        return _about(message[: match.start()], f"{match[2]} is not a class that fits here ({match[1]})")
    if match := re.search(r"does not correspond to a subclass of (\w+)", message):
        return _about(message[: match.start()], f"the class is not a {match[1]}, as it must be")
    if match := re.search(r"Expected an instantiatable class(?s:.*?)Given value: NestedArg\(key='([^']+)'", message):
        option = ".".join(_keys(message[: match.start()]))
        return UsageError(
            f"--{option}.{match[1]} is set before any class is chosen: choose one with --{option}", option
        )
    return None


def _wrong_type(message: str) -> UsageError | None:
    value = re.search(r"(?:Got|Given) value: (.+?)(?:\. Got value|\n|$)", message)
    if value is None:
        return None
    before = message[: value.start()]
    inner = before[before.rfind("Parser key") :]
    expected = [name for found in re.findall(r"Expected an? (<[^>]+>|\S+\[.*\])", inner) for name in _type_names(found)]
    if not expected:
        return None
    hint = did_you_mean(value[1], [name.strip("'") for name in expected if name.startswith("'")], before=": ")
    return _about(before, f"expected {' or '.join(dict.fromkeys(expected))}, got {value[1]}{hint}")


def _about(before: str, text: str) -> UsageError:
    option = ".".join(_keys(before))
    return UsageError(f"--{option}: {text}" if option else text, option or None)


def _keys(message: str) -> list[str]:
    return re.findall(r'Parser key "([^"]+)"', message)


def _class_path(message: str) -> str | None:
    paths = re.findall(r"class_path[ =]'([^']+)'", message)
    return paths[-1] if paths else None


def _settings(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    owner = getattr(__import__(module, fromlist=[name]), name)
    return list(ArgumentParser(exit_on_error=False).add_class_arguments(owner, fail_untyped=False))


def _networks() -> list[str]:
    shipped = {name: getattr(audio_lrp.models, name) for name in audio_lrp.models.__all__}
    return [
        name
        for name, class_ in (shipped | plugin_classes()).items()
        if issubclass(class_, nn.Module) and not issubclass(class_, LightningModule)
    ]


def _class_names() -> list[str]:
    names = {*audio_lrp.callbacks.__all__, *audio_lrp.data.__all__, *audio_lrp.models.__all__, *plugin_classes()}
    bases: list[type] = list(_PLUGIN_BASES)
    while bases:
        subclasses: list[type] = bases.pop().__subclasses__()
        names |= {subclass.__name__ for subclass in subclasses if not subclass.__name__.startswith("_")}
        bases += subclasses
    return sorted(names)


def _type_names(expected: str) -> list[str]:
    if expected.startswith("typing.Literal["):
        return expected.removeprefix("typing.Literal[").removesuffix("]").split(", ")
    name = expected.removeprefix("<class '").removesuffix("'>").rsplit(".", 1)[-1]
    return [{"NoneType": "null", "bool": "true or false", "int": "an integer", "float": "a number"}.get(name, name)]
