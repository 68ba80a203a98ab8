"""The Free Spoken Digit Dataset."""

import re
from pathlib import Path
from typing import ClassVar, Final

from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.corpora.exclusions import recordings_to_read
from audio_lrp.data.corpora.listing import Listing
from audio_lrp.data.corpora.misnamed import MisnamedFileError

SOURCE: Final = "https://github.com/Jakobovski/free-spoken-digit-dataset"
LAYOUT: Final = "recordings/{digit}_{speaker}_{repetition}.wav"
NAME: Final = re.compile(r"([0-9])_(.+)_([0-9]+)")


class FSDD(Corpus):
    """Free Spoken Digit Dataset: 3,000 recordings of the digits 0 to 9 by 6 speakers, 50 repetitions each, 8 kHz.

    The corpus does not label gender (all its speakers are male).

    Source: https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).

    Args:
        root: the repository's folder, or the folder ``recordings`` inside it.
        exclude: a list of recordings to leave out, as :mod:`audio_lrp.data.corpora.exclusions` describes.
    """

    name: ClassVar[str] = "FSDD"

    def __init__(self, root: str | Path, exclude: str | Path | None = None) -> None:
        super().__init__(root)
        self.exclude = exclude

    def scan(self) -> list[Recording]:
        """Find all recordings.

        Raises:
            UserError: no recordings, a file's name does not fit the layout, or the list of exclusions cannot be read.
        """
        return [self.read_name(path) for path in self.files()]

    def files(self) -> list[Path]:
        """The recordings' files, whatever they are called, without those to leave out.

        Raises:
            UserError: there are none, or the list of exclusions cannot be read or leaves none.
        """
        nested = self.root / "recordings"
        folder = nested if nested.is_dir() else self.root
        found = Listing()
        for below in found.search(folder):
            found.leave_out(below)
        found.keep_one_format()
        return recordings_to_read(self, found, self.exclude, LAYOUT, SOURCE)

    @staticmethod
    def read_name(path: Path) -> Recording:
        """Read a recording's labels off its name.

        Raises:
            MisnamedFileError: the name does not fit the layout.
        """
        match = NAME.fullmatch(path.stem)
        if match is None:
            pattern = f"{{digit}}_{{speaker}}_{{repetition}}{path.suffix}"
            raise MisnamedFileError(path, "its name does not tell its labels", pattern)
        digit, speaker, repetition = match.groups()
        return Recording(path, int(digit), speaker, None, int(repetition))
