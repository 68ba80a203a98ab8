"""The corpus of a study: by name, or by the folder that holds it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_lrp.data import Corpus, SyntheticDigits
from audio_lrp.data.layout import corpus_class
from audio_lrp.errors import UsageError
from audio_lrp.names import SYNTHETIC
from audio_lrp.nearest import did_you_mean, nearest_path
from audio_lrp.study.budget import SyntheticSize


@dataclass(frozen=True, eq=False)
class StudyCorpus:
    """A corpus and how to name it elsewhere.

    Attributes:
        name: what the study is called after.
        corpus: the corpus, its files in place.
        arguments: what its class is made with.
    """

    name: str
    corpus: Corpus
    arguments: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """The corpus in a configuration."""
        kind = type(self.corpus)
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": self.arguments}

    def identity(self) -> dict[str, Any]:
        """What tells the corpus from another one, wherever its folder lies: machines may mount it elsewhere."""
        recordings = self.corpus.recordings
        names = "\n".join(item.path.relative_to(self.corpus.root).as_posix() for item in recordings)
        return {
            "name": self.corpus.name,
            "recordings": len(recordings),
            "speakers": len({item.speaker for item in recordings}),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }


def find_corpus(name: str, synthetic: SyntheticSize) -> StudyCorpus:
    """The corpus that is meant by ``--corpus``; generates the synthetic one where it is missing.

    Args:
        name: ``"synthetic"``, or a folder in the layout of AudioMNIST or of the Free Spoken Digit Dataset.
        synthetic: size of the synthetic corpus.

    Raises:
        UsageError: there is no such folder, or its layout is neither.
        UserError: the corpus's own complaints about its files.
    """
    if name == SYNTHETIC:
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
    corpus = kind(root)
    return StudyCorpus(root.resolve().name, corpus, {"root": str(root)})
