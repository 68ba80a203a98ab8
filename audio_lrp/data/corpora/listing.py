"""Listing the folders of a corpus, and what to say of what is not taken from there, or when there is nothing."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from lightning.pytorch.utilities import rank_zero_only

from audio_lrp.data.corpora.formats import CONVERT, SUFFIXES, UNREADABLE, begins_as_sound, suffix_of, without_format
from audio_lrp.errors import UserError
from audio_lrp.utils.nearest import nearest_path

logger = logging.getLogger(__name__)

FORMAT: Final = f"in a format that cannot be read ({CONVERT})"
NAMELESS: Final = "of sound with no audio format in the name (add .wav, .flac, ...)"
HIDDEN: Final = "with a hidden name or in a hidden folder"
NO_FILE: Final = "of another kind (pipe or device)"
TWIN: Final = "beside the same recording in another format"
ELSEWHERE: Final = "in a folder where the layout has no recordings"
CLOSED: Final = "or more in a folder that cannot be read"


@dataclass
class Listing:
    """Recordings found in folders.

    Attributes:
        paths: the recordings.
        left_out: what looks like one and is not taken, and why: hidden files, pipes (to read one would mean to wait
            for who writes to it), formats that cannot be read.
    """

    paths: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def below(cls, folder: Path) -> Self:
        """What lies anywhere below a folder; links to folders are followed, each folder is searched once."""
        found = cls()
        waiting, seen = [folder], set[Path]()
        while waiting:
            here = waiting.pop()
            if here.resolve() in seen:
                continue
            seen.add(here.resolve())
            try:
                waiting += found.search(here)
            except UserError:
                found.left_out[here] = CLOSED
        hidden = {path for path in found.paths if any(map(is_hidden, path.relative_to(folder).parents))}
        found.paths = [path for path in found.paths if path not in hidden]
        found.left_out |= dict.fromkeys(hidden, HIDDEN)
        return found

    def search(self, folder: Path) -> list[Path]:
        """Add the files of a folder, links included.

        Returns:
            The folders in it.

        Raises:
            UserError: the folder must not be read.
        """
        folders = []
        for entry in _entries(folder):
            path, suffix = folder / entry.name, suffix_of(entry.name)
            if suffix not in SUFFIXES and suffix not in UNREADABLE:
                if path.is_dir():  # unlike the entry's own, False for a link to itself
                    folders.append(path)
                elif path.is_file() and begins_as_sound(path):
                    self.left_out[path] = HIDDEN if is_hidden(path) else NAMELESS
            elif not entry.is_symlink() and entry.is_dir():
                folders.append(path)
            elif is_hidden(path):
                self.left_out[path] = HIDDEN
            elif not (entry.is_symlink() or entry.is_file()):
                self.left_out[path] = NO_FILE
            elif suffix in UNREADABLE:
                self.left_out[path] = FORMAT
            else:
                self.paths.append(path)
        return folders

    def leave_out(self, folder: Path) -> None:
        """Count the recordings anywhere below a folder among those that are not taken."""
        found = Listing.below(folder)
        self.left_out |= found.left_out
        self.left_out |= dict.fromkeys(found.paths, HIDDEN if is_hidden(folder) else ELSEWHERE)

    def keep_one_format(self) -> None:
        """Of recordings in several formats take the one that keeps most of the sound: else they would count double."""
        best: dict[str, Path] = {}
        for path in sorted(self.paths, key=lambda path: (SUFFIXES.index(suffix_of(path.name)), path.name)):
            if best.setdefault(without_format(str(path)), path) is not path:
                self.left_out[path] = TWIN
        self.paths = list(best.values())


def is_hidden(path: Path) -> bool:
    """Whether a file or folder has a name that listings do not show, such as macOS's ``._7_01_0.wav``."""
    return path.name.startswith(".")


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder without hidden ones such as ``.DS_Store``; none where there is no such folder.

    Raises:
        UserError: the folder is there but must not be read.
    """
    return [entry for entry in _entries(folder) if not is_hidden(Path(entry))]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}); fix its permissions") from error


def left_out_summary(left_out: Mapping[Path, str]) -> str:
    """How many files are left out for which reason, each with an example; nothing where none is.

    Example:
        >>> left_out_summary({Path("data/01/._0_01_0.wav"): HIDDEN})
        '1 file with a hidden name or in a hidden folder, such as 01/._0_01_0.wav'
    """
    examples = {reason: "/".join(path.parts[-2:]) for path, reason in reversed([*left_out.items()])}
    return "; ".join(
        f"{count:,} {'file' if count == 1 else 'files'} {reason}, such as {examples[reason]}"
        for reason, count in Counter(left_out.values()).items()
    )


@rank_zero_only
def warn_once(message: str) -> None:
    """Warn once where several processes train together and each looks for the recordings."""
    logger.warning(message)


def no_recordings(corpus_name: str, root: Path, layout: str, source: str, left_out: Mapping[Path, str]) -> UserError:
    """The error for a corpus's folder that is missing or empty.

    Args:
        corpus_name: the corpus's name.
        root: the folder the user gave.
        layout: where recordings are expected below ``root``.
        source: address the corpus can be had from.
        left_out: what was found and not taken.
    """
    problem = "holds no recordings" if root.is_dir() else "is not a folder" if root.exists() else "does not exist"
    but = f" but {left_out_summary(left_out)}" if left_out else ""
    return UserError(
        f"{root} {problem}{but}: {corpus_name} is expected there as {layout} (or .flac, .mp3, .ogg, .aiff, ...); "
        f"{nearest_path(root) or 'set --data.root to its folder'} (the corpus is at {source})"
    )
