"""Classes of other packages that announce themselves as plugins of audio-lrp.

A package does so by an entry point of the group ``audio_lrp.plugins``, which names a module with an ``__all__`` or
a single class::

    [project.entry-points."audio_lrp.plugins"]
    my_package = "my_package"

Its classes are then known by their bare names wherever a class path is taken.
"""

import sys
from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Final

GROUP: Final = "audio_lrp.plugins"


@cache
def plugin_classes() -> dict[str, type]:
    """The classes of all installed plugins by their bare names.

    A plugin that cannot be imported is named on standard error and left out: the program goes on without it.
    """
    classes: dict[str, type] = {}
    for entry_point in sorted(entry_points(group=GROUP)):
        try:
            found = _classes(entry_point)
        except Exception as error:  # whatever another's code may raise when it is imported
            reason = " ".join(str(error).split()) or type(error).__name__
            print(
                f"audio-lrp: warning: the plugin {_name(entry_point)} is left out, it cannot be imported ({reason}): "
                "fix or uninstall it",
                file=sys.stderr,
            )
            continue
        classes = {class_.__name__: class_ for class_ in found} | classes  # the first of a name has it
    return classes


def _classes(entry_point: EntryPoint) -> Collection[type]:
    announced = entry_point.load()
    members = [getattr(announced, name) for name in announced.__all__] if hasattr(announced, "__all__") else [announced]
    classes = [member for member in members if isinstance(member, type)]
    if not classes:
        raise TypeError(f"{entry_point.value} is neither a class nor a module whose __all__ names classes")
    return classes


def plugin_packages() -> set[str]:
    """Top-level packages that hold the classes of installed plugins."""
    return {class_.__module__.partition(".")[0] for class_ in plugin_classes().values()}


def is_class_path(value: object) -> bool:
    """Whether a configuration's parser could import something for a value.

    It could for dotted names that begin with an existing package's; the package is looked for without running it.

    Example:
        >>> is_class_path("torch.nn.Linear"), is_class_path("path/to.wav"), is_class_path(0.5)
        (True, False, False)
    """
    if not (isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))):
        return False
    return find_spec(value.partition(".")[0]) is not None


def _name(entry_point: EntryPoint) -> str:
    package = f" of {entry_point.dist.name}" if entry_point.dist is not None else ""
    return f"{entry_point.name}{package}"
