"""Where AudioMNIST's recordings lie, and how they are called."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from audio_lrp.data.listing import visible_entries, wav_names

LAYOUT: Final = "data/NN/{digit}_{NN}_{repetition}.wav"
FILE_NAME: Final = re.compile(r"([0-9])_([0-9]{2,})_([0-9]+)\.wav", re.IGNORECASE)


def data_folder(root: Path) -> Path:
    """The folder of the speakers' folders: ``data`` in the repository's folder, or the folder itself."""
    nested = root / "data"
    return nested if nested.is_dir() else root


def wav_files(root: Path) -> Iterator[Path]:
    """All WAV files in the speakers' folders, whatever they are called.

    Raises:
        UserError: a folder must not be read.
    """
    folder = data_folder(root)
    for entry in visible_entries(folder):
        if Path(entry).is_dir():  # unlike the entry's own, False for a link to itself
            speaker = folder / entry.name
            yield from (speaker / name for name in wav_names(speaker))
