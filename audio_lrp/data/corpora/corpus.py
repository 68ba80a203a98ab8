"""A corpus: recordings of spoken digits on disk, and what is known of each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from audio_lrp.constants import TaskName
from audio_lrp.data.corpora.listing import left_out_summary, warn_once
from audio_lrp.data.folds import Fold, Gender


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording and its labels.

    Attributes:
        path: the audio file.
        digit: the spoken digit, 0 to 9.
        speaker: the speaker's name in the corpus.
        gender: the speaker's gender, ``None`` where the corpus does not say.
        repetition: which utterance of this digit by this speaker, from 0.
    """

    path: Path
    digit: int
    speaker: str
    gender: Gender | None
    repetition: int


class Corpus(ABC):
    """Indexes the recordings of one corpus; subclass it to plug in your own.

    Args:
        root: the corpus's folder.
    """

    name: ClassVar[str]
    """The corpus's name in messages, titles and cache folders."""

    left_out: Mapping[Path, str] = MappingProxyType({})
    """Files that :meth:`scan` found and did not take, and why: set it there, and their number is said."""

    excluded: int = 0
    """How many recordings that :meth:`scan` found are left out because the user said so; set it there."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:  # noqa: B027 (optional to override)
        """Make the files exist (generate them, say), before :attr:`recordings` is read.

        Trainings that begin at once, such as a sweep's, call it at once: write while
        :func:`~audio_lrp.data.exclusively` keeps the others waiting, and leave alone what is there.
        """

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """All recordings, in an order that depends on the files' names alone."""
        # All begin with the root, which therefore does not matter, and takes long to be taken off.
        found = tuple(sorted(self.scan(), key=lambda recording: recording.path.as_posix()))
        if self.left_out:
            warn_once(f"{self.name} at {self.root} is read without {left_out_summary(self.left_out)}")
        return found

    @abstractmethod
    def scan(self) -> list[Recording]:
        """Find the recordings below :attr:`root`, in any order.

        Raises:
            UserError: the folder is missing, holds no recording, or a file's name does not tell its labels.
        """

    def published_folds(self, task: TaskName) -> tuple[Fold, ...] | None:
        """The folds published for this corpus and task, or ``None`` where there are none that fit the files found."""
        return None

    def shares_speakers(self, other: "Corpus") -> bool:
        """Whether somebody may speak in both corpora; the same folder's speakers do, for example."""
        return self.root.resolve() == other.root.resolve()
