"""Checkpoints: read as data alone, and the trained networks in them with all that is needed to use these."""

import importlib
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_args
from zipfile import BadZipFile, is_zipfile

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor, nn

from audio_lrp.data.placement import Placement
from audio_lrp.data.representation import Representation, RepresentationName, make_representation
from audio_lrp.data.tasks import TASKS
from audio_lrp.errors import UserError
from audio_lrp.models import AlexNet, AudioNet
from audio_lrp.models.classifier import check_network
from audio_lrp.plugins import is_class_path, plugin_packages
from audio_lrp.utils.nearest import nearest_path

DESCRIPTION: Final = "audio_lrp"
"""Key of a checkpoint under which ``class_names``, ``spectrogram_scale`` and ``placement`` of the data may stand."""

TRUSTED: Final = frozenset({"audio_lrp", "torch", "torchvision"})
"""Packages whose classes a checkpoint may name."""

_Class = TypeVar("_Class")

_PREFIX = "network."
"""Where :class:`~audio_lrp.models.Classifier` has its network."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, mapped into memory; nothing in the file is executed.

    Raises:
        UserError: the file does not exist, cannot be read safely, or is something else.
    """
    if path.is_dir():
        inside = sorted([*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt")])
        hint = f"name a checkpoint in it, such as {inside[-1]}" if inside else "give the path of a .ckpt file"
        raise UserError(f"{path} is a folder: {hint}")
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: {nearest_path(path) or 'give the path of a .ckpt file'}")
    try:
        is_archive = is_zipfile(path)
    except BadZipFile:  # damaged in the records at its end, which say how many parts the archive has
        is_archive = False
    if not is_archive:
        raise UserError(f"{path} is no checkpoint: give a .ckpt file that audio-lrp fit has written")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a file that is no checkpoint makes the unpickler fail in any possible way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be loaded as a checkpoint of weights alone ({reason[:150]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} is not a Lightning checkpoint: it holds no state_dict")
    return content


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """A network out of a checkpoint.

    Attributes:
        network: the network with its trained weights, in eval mode on the CPU.
        representation: what turns signals [B, 8000] in int16 scale into the network's inputs.
        class_names: the classes' names in the order of their indices.
        placement: how clips shorter than a second were placed within it.
    """

    network: nn.Module
    representation: Representation
    class_names: tuple[str, ...]
    placement: Placement


def load_network(checkpoint: str | Path, plugins: Collection[str] = ()) -> SavedNetwork:
    """Rebuild the network of a checkpoint written by ``audio-lrp fit``.

    The file is read as data alone: nothing in it is executed. The class that it names as the network's must be a
    :class:`torch.nn.Module` of audio-lrp, of PyTorch, of an installed plugin or of one of the stated packages: to
    import a module is to run it. Where it names none, the shipped network whose weights have the same names and
    shapes is taken.

    Args:
        checkpoint: the ``.ckpt`` file.
        plugins: top-level packages, or modules, whose classes are trusted as well.

    Raises:
        UserError: the file is missing, is no such checkpoint, or names a network that is not trusted, cannot be made
            or does not fit its weights.
    """
    checkpoint = Path(checkpoint)
    content = read_checkpoint(checkpoint)
    settings = content.get("hyper_parameters")
    if not isinstance(settings, dict) or not {"num_classes", "representation"} <= settings.keys():
        raise UserError(
            f"{checkpoint} does not say what network it holds: give a checkpoint that audio-lrp fit has written"
        )
    weights = {
        name.removeprefix(_PREFIX): value for name, value in content["state_dict"].items() if name.startswith(_PREFIX)
    }
    description = content.get(DESCRIPTION, {})
    num_classes = int(settings["num_classes"])
    network = _make_network(checkpoint, settings.get("network"), num_classes, weights, plugins)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the weights in {checkpoint} do not fit {type(network).__name__}: {reason}") from error
    representation = _make_representation(checkpoint, settings["representation"], description)
    check_network(network, representation.shape, num_classes)
    placement = description.get("placement")
    if placement not in get_args(Placement):  # an older checkpoint, or a plugin's data with placements of their own
        placement = "random"
    return SavedNetwork(network.eval(), representation, _class_names(description, num_classes), placement)


def instantiated(base: type[_Class], settings: Any, plugins: Collection[str] = ()) -> _Class:
    """The object that a class path and its settings, out of a run's configuration, stand for.

    Args:
        base: what it must be an instance of.
        settings: ``class_path`` and ``init_args``.
        plugins: packages, beside installed plugins, whose classes are trusted: to import a module is to run it.

    Raises:
        UserError: a class is not trusted, or cannot be made.
    """
    trusted = TRUSTED | {"zennit"} | plugin_packages() | set(plugins)
    for value in _leaves(settings):
        if is_class_path(value) and value.partition(".")[0] not in trusted:
            package = value.partition(".")[0]
            raise UserError(f"the run names {value}: if you trust it, say so with --plugin {package}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--item", type=base, required=True)
    try:
        instance: _Class = parser.instantiate_classes(parser.parse_object({"item": deepcopy(settings)})).item
    except (ArgumentError, ImportError, TypeError, ValueError, OSError) as error:
        path = settings.get("class_path") if isinstance(settings, Mapping) else settings
        raise UserError(f"{path} of the run's configuration cannot be made ({' '.join(str(error).split())})") from error
    return instance


def _leaves(settings: Any) -> Iterator[Any]:
    """All values of nested settings."""
    if isinstance(settings, Mapping | list):
        for item in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _leaves(item)
    else:
        yield settings


def _make_network(
    checkpoint: Path, named: object, num_classes: int, weights: Mapping[str, Tensor], plugins: Collection[str]
) -> nn.Module:
    if isinstance(named, Mapping):
        network_class = _find_class(checkpoint, str(named.get("class_path")), plugins)
        arguments = named.get("init_args") or {}
        try:
            return network_class(num_classes, **arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{network_class.__name__} of {checkpoint} cannot be made ({error}): "
                "use the version of the network it was trained with"
            ) from error
    for shipped in (AudioNet, AlexNet):
        network = shipped(num_classes)
        wanted = {name: value.numel() for name, value in network.state_dict().items()}
        if wanted == {name: value.numel() for name, value in weights.items()}:
            return network
    raise UserError(f"{checkpoint} does not name its network, and its weights are no shipped network's")


def _find_class(checkpoint: Path, path: str, plugins: Collection[str]) -> type[nn.Module]:
    module, _, name = path.rpartition(".")
    package = module.partition(".")[0]
    if package not in TRUSTED | plugin_packages() | set(plugins):
        raise UserError(
            f"{checkpoint} names the network {path}, which is neither of audio-lrp nor of an installed plugin: "
            f"if you trust it, say so with --plugin {package or path} (in Python: plugins=[{package or path!r}])"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"the network {path} of {checkpoint} cannot be imported: "
            "install it, or start from the folder that holds its module with PYTHONPATH=."
        ) from error
    # Anything callable could stand here in a file of doubtful origin.
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{path}, which {checkpoint} names as its network, is not a subclass of torch.nn.Module")
    return found


def _make_representation(checkpoint: Path, name: object, description: Mapping[str, Any]) -> Representation:
    known: tuple[RepresentationName, ...] = get_args(RepresentationName)
    for each in known:
        if each == name:
            return make_representation(each, description.get("spectrogram_scale", "unit"))
    raise UserError(f"{checkpoint} was trained on the representation {name!r}, which is not known here")


def _class_names(description: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    """The names in the checkpoint; else those of the one task with so many classes; else numbers."""
    if "class_names" in description:
        return tuple(description["class_names"])
    tasks = [task.classes for task in TASKS.values() if len(task.classes) == num_classes]
    return tasks[0] if len(tasks) == 1 else tuple(str(number) for number in range(num_classes))
