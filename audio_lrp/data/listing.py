"""Listing the folders of a corpus, and what to say when there is nothing in them."""

import os
from pathlib import Path

from audio_lrp.errors import UserError
from audio_lrp.nearest import nearest_path


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder without hidden ones such as ``.DS_Store``; none where there is no such folder.

    Raises:
        UserError: the folder is there but must not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}); mend its permissions") from error


def wav_names(folder: Path) -> list[str]:
    """The names of a folder's WAV files, links included, but no pipes, which would be waited for.

    Raises:
        UserError: the folder must not be read.
    """
    return [
        entry.name
        for entry in visible_entries(folder)
        if entry.name.lower().endswith(".wav") and (entry.is_file() or entry.is_symlink() or entry.is_dir())
    ]


def no_recordings(corpus_name: str, root: Path, layout: str, source: str) -> UserError:
    """The error for a corpus's folder that is missing or empty.

    Args:
        corpus_name: the corpus's name.
        root: the folder the user gave.
        layout: where recordings are expected below ``root``.
        source: address the corpus can be had from.
    """
    problem = "holds no recordings" if root.is_dir() else "is not a folder" if root.exists() else "does not exist"
    return UserError(
        f"{root} {problem}: {corpus_name} is expected there as {layout}; "
        f"{nearest_path(root) or 'set --data.root to its folder'} (the corpus is at {source})"
    )
