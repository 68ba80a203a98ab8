"""The AudioMNIST corpus, or another in its layout."""

import re
from pathlib import Path
from typing import ClassVar, Final

from audio_lrp.data.audiomnist_download import download_audiomnist
from audio_lrp.data.audiomnist_metadata import METADATA, read_genders
from audio_lrp.data.corpus import Corpus, Recording
from audio_lrp.data.exclusions import exclude, read_exclusions
from audio_lrp.data.folds import Fold, Gender, rotate_groups
from audio_lrp.data.listing import no_recordings, visible_entries, wav_names
from audio_lrp.errors import UserError
from audio_lrp.names import TaskName

LAYOUT: Final = "data/NN/{digit}_{NN}_{repetition}.wav"
FILE_NAME: Final = re.compile(r"([0-9])_([0-9]{2,})_([0-9]+)\.wav", re.IGNORECASE)

SPEAKERS: Final = frozenset(f"{number:02d}" for number in range(1, 61))

# Speakers by test group: fold i tests on the i-th group of its task and validates on the one before.
PUBLISHED_GROUPS: Final[dict[TaskName, tuple[str, ...]]] = {
    "digit": (
        "26 52 60 18 32 42 05 13 22 33 45 51",
        "28 56 07 19 35 01 06 16 23 34 46 53",
        "36 57 09 24 37 02 08 17 29 39 48 54",
        "43 58 14 25 38 03 10 20 30 40 49 55",
        "12 47 59 15 27 41 04 11 21 31 44 50",
    ),
    "gender": (
        "58 59 60 07 23 38",
        "36 47 56 02 44 50",
        "26 12 57 25 37 45",
        "43 28 52 48 53 41",
    ),
}


class AudioMNIST(Corpus):
    """AudioMNIST: 30,000 recordings of the digits 0 to 9 by 60 speakers (48 male, 12 female), 50 repetitions each.

    Any corpus in the same layout can be read: ``data/NN/{digit}_{NN}_{repetition}.wav`` with NN the speaker's number,
    and genders in the JSON file ``data/audioMNIST_meta.txt``. Speakers that the metadata leave out have no gender.

    Source: Becker et al., "Interpreting and Explaining Deep Neural Networks for Classification of Audio Signals",
    arXiv 1807.03418; https://github.com/soerenab/AudioMNIST (MIT licence).

    Args:
        root: the repository's folder, or the folder ``data`` inside it.
        download: download AudioMNIST to ``root`` where there is no corpus yet (1 GB; twice as much unpacked).
        exclude: recordings to leave out: a file as :mod:`audio_lrp.data.exclusions` describes, or ``"audiomnist"`` for
            the shipped list of AudioMNIST's known faults.
    """

    name: ClassVar[str] = "AudioMNIST"

    def __init__(self, root: str | Path, download: bool = False, exclude: str | Path | None = None) -> None:
        super().__init__(root)
        self.download = download
        self.exclude = exclude

    def prepare(self) -> None:
        """Download the corpus where it is missing and this was asked for.

        Raises:
            UserError: it cannot be downloaded.
        """
        if self.download:
            download_audiomnist(self.root)

    def scan(self) -> list[Recording]:
        """Find all recordings.

        Raises:
            UserError: no recordings, a file's name does not fit the layout, or the metadata or the list of exclusions
                cannot be read.
        """
        nested = self.root / "data"
        folder = nested if nested.is_dir() else self.root
        genders = read_genders(folder / METADATA)
        speakers = [folder / entry.name for entry in visible_entries(folder) if Path(entry).is_dir()]
        recordings = [parse_name(place, name, genders) for place in speakers for name in wav_names(place)]
        if not recordings:
            source = "https://github.com/soerenab/AudioMNIST; audio-lrp data download audiomnist gets it"
            raise no_recordings(self.name, self.root, LAYOUT, source)
        return recordings if self.exclude is None else exclude(recordings, read_exclusions(self.exclude))

    def published_folds(self, task: TaskName) -> tuple[Fold, ...] | None:
        """The paper's speaker-disjoint folds: 5 of 12 speakers for the digit task, 4 of 6 for the gender task.

        ``None`` for a corpus that only shares the layout: one that lacks a speaker of these folds, or has others
        than AudioMNIST's 01 to 60.
        """
        groups = [group.split() for group in PUBLISHED_GROUPS[task]]
        speakers = {recording.speaker for recording in self.recordings}
        published = {speaker for group in groups for speaker in group}
        return rotate_groups(groups) if published <= speakers <= SPEAKERS else None


def parse_name(folder: Path, name: str, genders: dict[str, Gender]) -> Recording:
    """Read a recording's labels off its name.

    Raises:
        UserError: the name does not fit the layout, or names another speaker than its folder.
    """
    match = FILE_NAME.fullmatch(name)
    if match is None or match[2] != folder.name:
        found = "its name does not tell its labels" if match is None else f"a file of speaker {match[2]}"
        raise UserError(
            f"{folder / name}: {found}; files in {folder} must be called {{digit}}_{folder.name}_{{repetition}}.wav: "
            "rename or remove it"
        )
    digit, speaker, repetition = match.groups()
    return Recording(folder / name, int(digit), speaker, genders.get(speaker), int(repetition))
