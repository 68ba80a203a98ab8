"""The folder of what is made once of recordings and kept."""

import os
from pathlib import Path
from typing import Final

import platformdirs

ENVIRONMENT_VARIABLE: Final = "AUDIO_LRP_CACHE"


def caches_folder(root: Path, cache_dir: str | Path | None) -> Path:
    """The folder that holds the caches, see :meth:`PackedClips.open`."""
    if cache_dir == "beside":
        return root / ".audio-lrp-cache"
    folder = cache_dir or os.environ.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_dir("audio-lrp")
    return Path(folder).expanduser()
