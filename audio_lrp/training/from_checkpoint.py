"""The configuration that a checkpoint brings with it, for commands that are given nothing but a checkpoint."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml

from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.errors import UserError
from audio_lrp.plugins import is_class_path, plugin_packages
from audio_lrp.training.layers import flatten, read_layers

COMMANDS: Final = ("validate", "test", "predict")
"""Commands that need no configuration beside a checkpoint."""

_TRUSTED: Final = frozenset({"audio_lrp", "lightning", "torch", "torchmetrics", "torchvision", "zennit"})


@contextmanager
def with_stored_configuration(args: Sequence[str]) -> Iterator[list[str]]:
    """The arguments, preceded by the checkpoint's configuration where they name no model of their own.

    The configuration comes first, so whatever else the user says wins over it: files such as ``trainer/cpu``, and
    options, also such as name another class of data.

    Args:
        args: the command line's arguments from the command on.

    Raises:
        UserError: a file of the arguments or the checkpoint cannot be read, or the checkpoint holds no configuration,
            or one that names classes of packages that are neither audio-lrp's foundations nor installed plugins: to
            import a module is to run it.
    """
    path = _option(args, "--ckpt_path")
    if not args or args[0] not in COMMANDS or path is None or _name_a_model(args):
        yield list(args)
        return
    checkpoint = Path(path)
    text = _stored_configuration(checkpoint, _TRUSTED | plugin_packages())
    with TemporaryDirectory() as folder:
        file = Path(folder) / checkpoint.name  # by this name messages tell where an option has its value from
        file.write_text(text)
        yield [args[0], "--config", str(file), *args[1:]]


def _stored_configuration(checkpoint: Path, trusted: Collection[str]) -> str:
    description = read_checkpoint(checkpoint).get("audio_lrp", {})
    text = description.get("config") if isinstance(description, dict) else None
    if not isinstance(text, str):
        raise UserError(
            f"{checkpoint} does not hold its run's configuration: give it with --config, "
            "it lies beside the checkpoint's folder as config.yaml"
        )
    for option, value in flatten(yaml.safe_load(text)):
        if is_class_path(value) and value.partition(".")[0] not in trusted:
            raise UserError(
                f"{checkpoint} names the class {value} for {option}, which is neither of audio-lrp nor of an "
                "installed plugin: if you trust it, give the run's config.yaml with --config"
            )
    return text


def _name_a_model(args: Sequence[str]) -> bool:
    return any("model" in layer.settings for layer in read_layers(args[1:]))


def _option(args: Sequence[str], name: str) -> str | None:
    """The value of an option, the last one where it is given more than once."""
    value = None
    for position, word in enumerate(args):
        if word.startswith(f"{name}="):
            value = word.partition("=")[2]
        elif word == name and position + 1 < len(args):
            value = args[position + 1]
    return value
