"""A corpus of generated tones, for tests that need recordings and labels but no speech."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile

from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.folds import Gender

GENDERS: tuple[Gender, Gender] = ("male", "female")


class ToneCorpus(Corpus):
    """Digit d is a tone of 300 + 200 d Hz; even speakers are male, odd ones female and half an octave higher."""

    name: ClassVar[str] = "ToneCorpus"

    def __init__(self, root: str | Path, speakers: int = 6, repetitions: int = 2, labelled: bool = True) -> None:
        super().__init__(root)
        self.speakers = speakers
        self.repetitions = repetitions
        self.labelled = labelled

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for recording in self.scan():
            if not recording.path.exists():
                soundfile.write(recording.path, self.tone(recording), 8000)

    def scan(self) -> list[Recording]:
        return [
            Recording(
                path=self.root / f"{digit}_{speaker}_{repetition}.wav",
                digit=digit,
                speaker=f"s{speaker}",
                gender=GENDERS[speaker % 2] if self.labelled else None,
                repetition=repetition,
            )
            for speaker in range(self.speakers)
            for digit in range(10)
            for repetition in range(self.repetitions)
        ]

    def tone(self, recording: Recording) -> np.ndarray:
        seed = recording.digit * 1000 + int(recording.speaker[1:]) * 10 + recording.repetition
        rng = np.random.default_rng(seed)
        time = np.arange(rng.integers(3000, 6000)) / 8000
        pitch = (300 + 200 * recording.digit) * (1.4 if recording.gender == "female" else 1.0)
        return 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * rng.standard_normal(len(time))
