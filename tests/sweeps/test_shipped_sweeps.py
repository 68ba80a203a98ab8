"""W&B's agents, and ours, run what the shipped sweep files say."""

import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import exit_code
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from audio_lrp.sweeps.hyperband import HyperbandPruner
from audio_lrp.sweeps.options import printed_config
from audio_lrp.sweeps.parameters import Parameter
from audio_lrp.sweeps.sweep_file import Sweep, make_sweep, read_sweep
from audio_lrp.training.config_files import shipped_configs

FOLDER = Path(__file__).resolve().parents[2] / "sweeps"
PATHS = sorted(FOLDER.glob("*.yaml"))
NETWORKS = ("alexnet", "audionet")
SAMPLES = 1
"""Points tried of a sweep that has no end of them, beside the ends of all ranges."""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own, and what the files take from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOMNIST_ROOT", "my corpus")
    monkeypatch.setenv("CHECKPOINT", "last.ckpt")


def write_checkpoint() -> None:
    """Write a checkpoint that holds its run's configuration and little else."""
    config = printed_config(["fit", "--config", "audionet_digit", "--data.root=my corpus"])
    torch.save({"state_dict": {}, "audio_lrp": {"config": config}}, "last.ckpt")


def test_what_is_shipped() -> None:
    kinds = {f"{network}{kind}.yaml" for network in NETWORKS for kind in ("", "_ablation", "_faithfulness", "_folds")}
    assert {path.name for path in PATHS} == {*kinds, "composites.yaml"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_point_is_a_valid_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_sweep(path)
    sweep = make_sweep(content)
    if sweep.words[0] != "fit":
        write_checkpoint()
    for point in points_of(sweep):
        command = agents_command(content["command"], point)
        assert command == ["/usr/bin/env", "audio-lrp", *sweep.arguments(point)]  # ours is W&B's
        if sweep.words[0] == "fit":
            assert exit_code(*command[2:], "--print_config") == 0
            text = capsys.readouterr().out
        else:  # the configuration comes from the checkpoint
            text = printed_config(command[2:])
        config = yaml.safe_load(text)
        assert config["data"]["init_args"]["root"] == "my corpus"
        for name, value in settings(point):
            found = nested(config, name)
            is_class = name.endswith("class_path")  # of which the file has the last words alone
            assert found == value or (is_class and found.endswith(f".{value}"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_wandb_takes_the_file(path: Path) -> None:
    content = read_sweep(path)
    _validate_config_and_fill_distribution(content)  # what the client itself checks
    schema = pytest.importorskip("sweeps.config.schema", reason="W&B's engine is not installed")
    assert [error.message for error in schema.validator.iter_errors(content)] == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_early_termination_comes_in_time(path: Path) -> None:
    content = read_sweep(path)
    sweep = make_sweep(content)
    if isinstance(sweep.pruner, HyperbandPruner) and sweep.metric.startswith("val/"):
        base = content["command"][content["command"].index("--config") + 1]
        trainer = yaml.safe_load(shipped_configs()[base].read_text())["trainer"]
        assert trainer["check_val_every_n_epoch"] is None  # so that the interval counts steps throughout the training
        assert sweep.pruner.rungs[1] <= trainer["max_steps"] // trainer["val_check_interval"]
    for name in sweep.parameters:
        assert not name.endswith("class_path"), f"{name} switches a class, which keeps the former's settings"


@pytest.mark.parametrize("network", NETWORKS)
def test_faithfulness_is_constrained(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(read_sweep(FOLDER / f"{network}_faithfulness.yaml"))
    config = yaml.safe_load(printed_config(sweep.arguments(next(points_of(sweep)))))
    # A list's item is changed without its number, so it must be the last one.
    last = config["trainer"]["callbacks"][-1]
    assert last["class_path"] == "audio_lrp.callbacks.LRPCallback"
    assert (last["init_args"]["required_accuracy"], last["init_args"]["every_n_epochs"]) == (0.9, 1)
    assert sweep.metric == "lrp/srg_constrained"


@pytest.mark.parametrize("network", NETWORKS)
def test_an_ablation_leaves_out_everything_once(network: str) -> None:
    sweep = make_sweep(read_sweep(FOLDER / f"{network}_ablation.yaml"))
    shipped = {name for name in shipped_configs() if name.startswith("ablation/")}
    if network == "alexnet":
        shipped.remove("ablation/without_unit_variance")  # AudioNet's alone
    assert {point["config"] for point in sweep.grid or ()} == shipped


@pytest.mark.parametrize("network", NETWORKS)
def test_folds_are_all_of_them(network: str) -> None:
    sweep = make_sweep(read_sweep(FOLDER / f"{network}_folds.yaml"))
    assert sweep.grid == [{"data.init_args.fold": fold} for fold in range(5)]
    assert sweep.metric == "test/accuracy"


def test_lists_booleans_and_null(capsys: pytest.CaptureFixture[str]) -> None:
    point = {
        "data.init_args.augmentations": [{"class_path": "AdditiveNoise"}],
        "trainer.deterministic": True,
        "trainer.precision": "null",  # None would arrive as the word None
        "model.init_args.optimizer.init_args.lr": 1e-05,
    }
    command = agents_command(["audio-lrp", "fit", "--config", "audionet_digit", "--data.root=x", "${args}"], point)
    assert exit_code(*command[1:], "--print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert nested(config, "data.init_args.augmentations")[0]["class_path"] == "audio_lrp.data.AdditiveNoise"
    assert nested(config, "trainer.deterministic") is True
    assert nested(config, "trainer.precision") is None
    assert nested(config, "model.init_args.optimizer.init_args.lr") == 1e-05


def points_of(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Every point of a grid; otherwise both ends of all ranges, every choice, and some points at random."""
    if sweep.method == "grid":
        yield from sweep.grid
        return
    ends = {name: ends_of(parameter) for name, parameter in sweep.parameters.items()}
    for number in range(max(map(len, ends.values()))):
        yield {name: values[number % len(values)] for name, values in ends.items()}
    generator = random.Random(0)
    for _ in range(SAMPLES):
        yield {name: sample(parameter, generator) for name, parameter in sweep.parameters.items()}


def ends_of(parameter: Parameter) -> list[Any]:
    if parameter.grid is not None:
        return list(parameter.grid)
    return [parameter.value(bound) for bound in (parameter.variable.low, parameter.variable.high)]


def sample(parameter: Parameter, generator: random.Random) -> Any:
    if parameter.grid is not None:
        return generator.choice(parameter.grid)
    return parameter.value(generator.uniform(parameter.variable.low, parameter.variable.high))


def settings(point: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values that a point sets, by dotted names; those in a configuration file that it names, too."""
    for name, value in point.items():
        if name == "config":
            yield from leaves(yaml.safe_load(shipped_configs()[value].read_text()))
        else:
            yield name, value


def leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration by their dotted names; lists of classes, which are completed, are left out."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, list) or not value:
            yield f"{prefix}{key}", value


def agents_command(command: list[Any], point: dict[str, Any]) -> list[str]:
    """The command that W&B's agent runs for one point, by W&B's own functions."""
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
    macros = {"${env}": ["/usr/bin/env"], "${args}": arguments["args"]}
    return list(chain.from_iterable(macros.get(word, [word]) for word in create_sweep_command(list(command))))


def nested(config: dict[str, Any], name: str) -> Any:
    """The value at a dotted name; of a single item in a list's place, the item's."""
    for key in name.split("."):
        config = config[0][key] if isinstance(config, list) else config[key]
    return config
