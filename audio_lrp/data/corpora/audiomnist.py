"""The AudioMNIST corpus, or another in its layout."""

from pathlib import Path
from typing import ClassVar, Final

from audio_lrp.constants import TaskName
from audio_lrp.data.corpora.audiomnist_download import download_audiomnist
from audio_lrp.data.corpora.audiomnist_layout import LAYOUT, NAME, data_folder, list_recordings
from audio_lrp.data.corpora.audiomnist_metadata import METADATA, read_genders
from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.corpora.exclusions import recordings_to_read
from audio_lrp.data.corpora.misnamed import MisnamedFileError
from audio_lrp.data.folds import Fold, Gender, rotate_groups
from audio_lrp.errors import UserError

SOURCE: Final = "https://github.com/soerenab/AudioMNIST; audio-lrp data download audiomnist gets it"
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
    in WAV or any other format of libsndfile (a recording in several formats counts once), and genders in the JSON file
    ``data/audioMNIST_meta.txt``. Speakers that the metadata leave out have no gender.

    Source: Becker et al., "Interpreting and Explaining Deep Neural Networks for Classification of Audio Signals",
    arXiv 1807.03418; https://github.com/soerenab/AudioMNIST (MIT licence).

    Args:
        root: the repository's folder, or the folder ``data`` inside it.
        download: download AudioMNIST to ``root`` where there is no corpus yet (1 GB; twice as much unpacked).
        exclude: recordings to leave out: a file as :mod:`audio_lrp.data.corpora.exclusions` describes, or
            ``"audiomnist"`` for the shipped list of AudioMNIST's known faults.
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
        genders = read_genders(self.metadata)
        try:
            return [self.read_name(path, genders.get(path.parent.name)) for path in self.files()]
        except MisnamedFileError as error:
            if error.path.parent == self.root / "recordings":
                raise UserError(
                    f"{self.root} has the layout of the Free Spoken Digit Dataset, not {LAYOUT}: say "
                    "--data FSDDDataModule after the configuration"
                ) from error
            raise

    @property
    def metadata(self) -> Path:
        """The file of facts about the speakers, which need not exist."""
        return data_folder(self.root) / METADATA

    def files(self) -> list[Path]:
        """The recordings' files, whatever they are called, without those to leave out.

        Raises:
            UserError: there are none, or the list of exclusions cannot be read or leaves none.
        """
        found = list_recordings(self.root)
        return recordings_to_read(self, found, self.exclude, LAYOUT, SOURCE)

    @staticmethod
    def read_name(path: Path, gender: Gender | None = None) -> Recording:
        """Read a recording's labels off its name.

        Args:
            path: the file.
            gender: the speaker's, which the name does not tell.

        Raises:
            MisnamedFileError: the name does not fit the layout, or names another speaker than its folder.
        """
        folder = path.parent.name
        match = NAME.fullmatch(path.stem)
        if match is None or match[2] != folder:
            problem = "its name does not tell its labels" if match is None else f"a file of speaker {match[2]}"
            raise MisnamedFileError(path, problem, f"{{digit}}_{folder}_{{repetition}}{path.suffix}")
        digit, speaker, repetition = match.groups()
        return Recording(path, int(digit), speaker, gender, int(repetition))

    def published_folds(self, task: TaskName) -> tuple[Fold, ...] | None:
        """The paper's speaker-disjoint folds: 5 of 12 speakers for the digit task, 4 of 6 for the gender task.

        ``None`` for a corpus that only shares the layout: one that lacks a speaker of these folds, or has others
        than AudioMNIST's 01 to 60.
        """
        groups = [group.split() for group in PUBLISHED_GROUPS[task]]
        speakers = {recording.speaker for recording in self.recordings}
        published = {speaker for group in groups for speaker in group}
        return rotate_groups(groups) if published <= speakers <= SPEAKERS else None
