"""Where AudioMNIST's recordings lie, and how they are called."""

import re
from pathlib import Path
from typing import Final

from audio_lrp.data.corpora.listing import ELSEWHERE, Listing, is_hidden

LAYOUT: Final = "data/NN/{digit}_{NN}_{repetition}.wav"
NAME: Final = re.compile(r"([0-9])_([0-9]{2,})_([0-9]+)")


def data_folder(root: Path) -> Path:
    """The folder of the speakers' folders: ``data`` in the repository's folder, or the folder itself."""
    nested = root / "data"
    return nested if nested.is_dir() else root


def list_recordings(root: Path) -> Listing:
    """All recordings in the speakers' folders, whatever they are called, each in one format.

    Raises:
        UserError: a folder must not be read.
    """
    outside, found = Listing(), Listing()
    for speaker in outside.search(data_folder(root)):
        for folder in [speaker] if is_hidden(speaker) else found.search(speaker):
            found.leave_out(folder)
    found.left_out |= outside.left_out | dict.fromkeys(outside.paths, ELSEWHERE)
    found.keep_one_format()
    return found
