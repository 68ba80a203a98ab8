"""Configuration files by path, and the shipped ones by name from any folder."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

import audio_lrp.configs
from audio_lrp.errors import UsageError
from audio_lrp.utils.nearest import nearest_path


def shipped_configs() -> dict[str, Path]:
    """The shipped configuration files by name, e.g. ``quickstart`` or ``trainer/gpu``."""
    folder = Path(audio_lrp.configs.__path__[0])
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """The file meant by ``--config NAME``: a path where one exists, else a shipped file.

    Raises:
        UsageError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    nearest = ", ".join(get_close_matches(name, shipped, n=3) or sorted(name for name in shipped if "/" not in name))
    on_disk = nearest_path(path, before="; ")
    raise UsageError(f"no file and no shipped configuration is called {name!r}; there is {nearest}{on_disk}")


class ConfigFile(ActionConfigFile):
    """The option ``--config``: jsonargparse's own, with the shipped files' names."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge the file into ``cfg``."""
        super().__call__(parser, cfg, str(find_config(values)), option_string)  # type: ignore[no-untyped-call]
