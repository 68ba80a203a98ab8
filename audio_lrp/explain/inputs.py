"""Recordings to be explained: which files there are, and the one-second windows of each."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audio_lrp.data.corpora.listing import Listing, left_out_summary
from audio_lrp.data.placement import Placement, centered_offsets
from audio_lrp.data.representation import NUM_SAMPLES
from audio_lrp.errors import UserError
from audio_lrp.utils.nearest import nearest_path

_WANTED = "name recordings (WAV, FLAC, OGG, MP3, AIFF, ...), or folders that hold some"
_LONGEST_NAME = 80
_SAME_SOUND = NUM_SAMPLES // 10
"""Windows moved closer together than this show the same sound: only the first of them is worth an explanation."""


@dataclass(frozen=True)
class AudioFile:
    """A file to be explained.

    Attributes:
        path: the file.
        name: what it is called on the page: relative to the folder it was found in, unless another is called the same.
        folder: name of the folder for its explanation, safe on every file system and unique.
    """

    path: Path
    name: str
    folder: str


@dataclass(frozen=True, eq=False)
class Window:
    """One second of a recording.

    Attributes:
        signal: samples [8000], zero where the recording has none.
        begin: first sample of the recording in the window.
        length: number of the recording's samples in the window.
        offset: where in the window they begin.
    """

    signal: NDArray[np.float32]
    begin: int
    length: int
    offset: int


def find_audio_files(paths: Sequence[Path]) -> tuple[list[AudioFile], dict[Path, str]]:
    """The files that ``paths`` stand for: files themselves, and recordings anywhere below folders.

    Files found a second time are passed over.

    Returns:
        The files, and what looks like a recording and is left out, with the reason.

    Raises:
        UserError: a path does not exist or is a pipe or device, or a folder holds no recordings.
    """
    found: dict[Path, tuple[str, str]] = {}
    left_out: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            below = Listing.below(path)
            left_out |= below.left_out
            if not below.paths:
                but = f" but {left_out_summary(below.left_out)}" if below.left_out else ""
                raise UserError(f"the folder {path} holds no recordings{but}: {_WANTED}")
            chosen = [(file, file.relative_to(path)) for file in sorted(below.paths)]
        elif path.is_file():
            chosen = [(path, Path(path.name))]
        elif path.exists():  # a pipe, of which reading may wait forever, or a device
            raise UserError(f"{path} is neither a file nor a folder: {_WANTED}")
        else:
            raise UserError(f"there is no file or folder {path}: {nearest_path(path) or _WANTED}")
        for file, name in chosen:
            found.setdefault(file.resolve(), (str(name), str(file)))
    counts = Counter(name for name, _ in found.values())
    folders = _unique_names([Path(name).with_suffix("").as_posix() for name, _ in found.values()])
    files = [
        AudioFile(path, name if counts[name] == 1 else place, folder)
        for (path, (name, place)), folder in zip(found.items(), folders, strict=True)
    ]
    return files, left_out


def _unique_names(names: Sequence[str]) -> list[str]:
    """Names of folders: only letters, digits, dots, dashes; different also where case does not count."""
    taken: set[str] = set()
    unique = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name.replace("/", "-"))[:_LONGEST_NAME].strip("._-") or "recording"
        candidate, number = plain, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{plain}-{number}"
        taken.add(candidate.casefold())
        unique.append(candidate)
    return unique


def windows(samples: NDArray[np.float32], placement: Placement = "random") -> list[Window]:
    """One-second windows of a recording: every half second, the last one at its end; a shorter one lies in the middle.

    Args:
        samples: the recording at 8 kHz [N], N > 0.
        placement: how the network's training clips were placed. With ``"centered"``, each window is moved so that the
            centroid of the amplitude that it holds lies in its middle; of windows that then begin less than 100 ms
            apart, the first is kept.

    Example:
        >>> [(window.begin, window.length, window.offset) for window in windows(np.ones(6000, dtype=np.float32))]
        [(0, 6000, 1000)]
        >>> [window.begin for window in windows(np.ones(17000, dtype=np.float32))]
        [0, 4000, 8000, 9000]
    """
    last = len(samples) - NUM_SAMPLES
    begins = [*range(0, last, NUM_SAMPLES // 2), last] if last > 0 else [-(-last // 2)]
    if placement == "centered":
        signals = torch.from_numpy(np.stack([window(samples, begin).signal for begin in begins]))
        moved = sorted((torch.tensor(begins) - centered_offsets(signals)).tolist())
        begins = moved[:1]
        for begin in moved[1:]:
            if begin - begins[-1] >= _SAME_SOUND:
                begins.append(begin)
    return [window(samples, begin) for begin in begins]


def window(samples: NDArray[np.float32], start: int) -> Window:
    """The second of a recording from ``start`` on, which may lie before its first sample.

    Args:
        samples: the recording at 8 kHz [N].
        start: first sample of the second.
    """
    begin, end = max(start, 0), min(start + NUM_SAMPLES, len(samples))
    offset = begin - start
    signal = np.pad(samples[begin:end], (offset, NUM_SAMPLES - offset - (end - begin)))
    return Window(signal, begin, end - begin, offset)
