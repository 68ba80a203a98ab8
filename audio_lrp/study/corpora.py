"""The corpus of a study: by name, or by the folder that holds it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_lrp.constants import SYNTHETIC
from audio_lrp.data import Corpus, SyntheticDigits
from audio_lrp.data.corpora.exclusions import SHIPPED, read_exclusions
from audio_lrp.data.corpora.layout import corpus_class
from audio_lrp.errors import UsageError
from audio_lrp.study.budget import SyntheticSize
from audio_lrp.utils.nearest import did_you_mean, nearest_path


@dataclass(frozen=True, eq=False)
class StudyCorpus:
    """A corpus and how to name it elsewhere.

    Attributes:
        name: what the study is called after.
        corpus: the corpus, its files in place.
        arguments: what its class is made with.
        excluded: the places that its list of recordings to leave out names, sorted.
    """

    name: str
    corpus: Corpus
    arguments: dict[str, Any]
    excluded: Sequence[str] = ()

    def settings(self) -> dict[str, Any]:
        """The corpus in a configuration."""
        kind = type(self.corpus)
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": self.arguments}

    def identity(self) -> dict[str, Any]:
        """What tells the corpus from another one, wherever its folder lies: machines may mount it elsewhere."""
        recordings = self.corpus.recordings
        names = "\n".join(item.path.relative_to(self.corpus.root).as_posix() for item in recordings)
        # What the list says, not where it lies; no entry without one, as in the studies of earlier versions.
        excluded = {"excluded": [*self.excluded]} if self.excluded else {}
        return {
            "name": self.corpus.name,
            "recordings": len(recordings),
            "speakers": len({item.speaker for item in recordings}),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
            **excluded,
        }


def find_corpus(name: str, synthetic: SyntheticSize, exclude: str | None = None) -> StudyCorpus:
    """The corpus that is meant by ``--corpus``; generates the synthetic one where it is missing.

    Args:
        name: ``"synthetic"``, or a folder in the layout of AudioMNIST or of the Free Spoken Digit Dataset.
        synthetic: size of the synthetic corpus.
        exclude: a list of recordings to leave out, as :mod:`audio_lrp.data.corpora.exclusions` describes.

    Raises:
        UsageError: there is no such folder, its layout is neither, or recordings are to be left out of the synthetic
            corpus.
        UserError: the corpus's own complaints about its files, or the list cannot be read.
    """
    if name == SYNTHETIC:
        if exclude is not None:
            raise UsageError(
                f"--exclude: nothing can be left out of {SYNTHETIC!r}: leave the option out, or name another --corpus"
            )
        arguments: dict[str, Any] = {"speakers": synthetic.speakers, "repetitions": synthetic.repetitions}
        corpus: Corpus = SyntheticDigits(**arguments)
        corpus.prepare()
        return StudyCorpus(name, corpus, arguments)
    root = Path(name).expanduser().absolute()
    if not root.is_dir():
        hint = did_you_mean(name, [SYNTHETIC]) or nearest_path(root) or f"give {SYNTHETIC!r} or the folder of a corpus"
        raise UsageError(f"--corpus: there is no folder {root}: {hint}")
    kind = corpus_class(root)
    if kind is None:
        raise UsageError(
            f"--corpus: {root} has neither AudioMNIST's layout (data/NN/{{digit}}_{{NN}}_{{repetition}}.wav) nor that "
            "of the Free Spoken Digit Dataset (recordings/{digit}_{speaker}_{repetition}.wav)"
        )
    arguments = {"root": str(root)}
    excluded = []
    if exclude is not None:
        excluded = sorted(read_exclusions(exclude))
        arguments["exclude"] = exclude if exclude in SHIPPED else str(Path(exclude).expanduser().absolute())
    return StudyCorpus(root.resolve().name, kind(**arguments), arguments, excluded)
