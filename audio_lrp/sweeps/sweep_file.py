"""W&B's sweep files, read strictly: a setting that cannot be followed as W&B would is refused by name."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml
from optuna.pruners import BasePruner

from audio_lrp.errors import UserError, parse_yaml, yaml_problem
from audio_lrp.sweeps.hyperband import make_pruner
from audio_lrp.sweeps.parameters import Parameter, make_parameter, on_grid
from audio_lrp.utils.nearest import nearest_path

_METHODS = ("grid", "random", "bayes")
_COMMANDS = ("fit", "validate", "test")
_SERVER_ONLY = ("description", "entity", "name", "project", "program", "apiVersion", "kind")
"""Keys of a sweep that say where W&B's server keeps it, or are not needed beside the command."""
_KEYS: Final = ("method", "metric", "parameters", "command", "early_terminate", "run_cap", *_SERVER_ONLY)
_METRIC_KEYS: Final = ("name", "goal", "target", "impute", "impute_while_running")
_ENVIRONMENT: Final = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@dataclass(frozen=True)
class Sweep:
    """What a sweep varies, and what it looks for.

    Attributes:
        method: ``"grid"``, ``"random"`` or ``"bayes"``.
        metric: the name under which the metric is logged.
        maximize: whether the largest value is the best one.
        target: value of the metric that ends the sweep, or ``None``.
        parameters: by name, in the order of the options.
        words: the command's words after ``audio-lrp``, with the macros for the parameters.
        pruner: decides when to stop a trial early.
        run_cap: how many trials the file wants at most.
    """

    method: str
    metric: str
    maximize: bool
    target: float | None
    parameters: Mapping[str, Parameter]
    words: tuple[str, ...]
    pruner: BasePruner
    run_cap: int | None

    @property
    def grid(self) -> list[dict[str, Any]]:
        """Every point of a grid search, the last parameter varying fastest."""
        values = [parameter.grid or () for parameter in self.parameters.values()]
        return [dict(zip(self.parameters, point, strict=True)) for point in product(*values)]

    def arguments(self, point: Mapping[str, Any]) -> list[str]:
        """The command line's arguments for one point, as W&B's agent would write them.

        Args:
            point: a value for every parameter.
        """
        words: list[str] = []
        for word in self.words:
            if word == "${args}":
                words += [f"--{name}={value}" for name, value in point.items()]
            elif word == "${args_no_equals}":
                words += [text for name, value in point.items() for text in (f"--{name}", str(value))]
            else:
                words.append(_ENVIRONMENT.sub(lambda match: os.environ[match[1]], word))
        return words


def read_sweep(path: Path) -> dict[str, Any]:
    """The content of a sweep's file.

    Raises:
        UserError: there is no such file, or it holds no YAML mapping.
    """
    try:
        content = parse_yaml(path.read_text())
    except OSError as error:
        hint = nearest_path(path) or "give a W&B sweep file, such as those in the repository's folder sweeps"
        raise UserError(f"the sweep {path} cannot be read ({error.strerror}): {hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the sweep {path} is not valid YAML: {yaml_problem(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"the sweep {path} is no YAML mapping: it begins with a key such as 'method: random'")
    return content


def make_sweep(content: Mapping[str, Any]) -> Sweep:
    """The sweep that a file's content describes.

    Args:
        content: see `read_sweep`.

    Raises:
        UserError: something in it is missing, unknown, wrong, or only W&B's server can do it.
    """
    for key in content:
        if key not in _KEYS:
            raise UserError(f"the sweep's key {key!r} is not supported without W&B: take it out")
    method = content.get("method")
    if method not in _METHODS:
        raise UserError(f"the sweep's method is one of {', '.join(_METHODS)}, not {method!r}")
    metric = _mapping(content, "metric")
    for key in metric:
        if key not in _METRIC_KEYS:
            raise UserError(f"metric of the sweep takes no {key!r}: choose from {', '.join(_METRIC_KEYS)}")
    if "name" not in metric:
        raise UserError("the sweep names no metric: give it 'metric: {name: val/accuracy, goal: maximize}'")
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"the goal of the sweep's metric is minimize or maximize, not {goal!r}")
    target = metric.get("target")
    if target is not None and not isinstance(target, int | float):
        raise UserError(f"the target of the sweep's metric is a number, not {target!r}")
    run_cap = content.get("run_cap")
    if run_cap is not None and (not isinstance(run_cap, int) or run_cap < 1):
        raise UserError(f"the sweep's run_cap is a number of trials, not {run_cap!r}")
    # W&B's engine sorts the parameters by name, which decides in which order their options stand.
    parameters = {name: make_parameter(name, spec) for name, spec in sorted(_mapping(content, "parameters").items())}
    if method == "grid":
        parameters = {name: on_grid(name, parameter) for name, parameter in parameters.items()}
    return Sweep(
        method=method,
        metric=str(metric["name"]),
        maximize=goal == "maximize",
        target=target,
        parameters=parameters,
        words=_words(content),
        pruner=make_pruner(content.get("early_terminate")),
        run_cap=run_cap,
    )


def _words(content: Mapping[str, Any]) -> tuple[str, ...]:
    command = content.get("command")
    if not isinstance(command, list):
        raise UserError("the sweep has no command: it is a list such as ['${env}', audio-lrp, fit, '${args}']")
    words = [str(word) for word in command if word not in ("${env}", "/usr/bin/env")]
    program = str(content.get("program")) if words[:1] == ["${program}"] else "".join(words[:1])
    if program != "audio-lrp" or words[1:2] == [] or words[1] not in _COMMANDS:
        raise UserError(
            f"the sweep's command is {' '.join(map(str, command))!r}, but without W&B it must be audio-lrp with one "
            f"of {', '.join(_COMMANDS)}"
        )
    for word in words[1:]:
        _check_macros(word)
    return tuple(words[1:])


def _check_macros(word: str) -> None:
    for name in _ENVIRONMENT.findall(word):
        if name not in os.environ:
            raise UserError(f"the sweep's command needs the environment variable {name}: export {name}=...")
    for macro in re.findall(r"\$\{[^}]*\}", _ENVIRONMENT.sub("", word)):
        if word not in ("${args}", "${args_no_equals}"):
            raise UserError(f"the macro {macro} in the sweep's command is not supported without W&B: use ${{args}}")


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"the sweep has no {key}: give it a mapping under '{key}:'")
    return value
