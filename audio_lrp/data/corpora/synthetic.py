"""Digits spoken by espeak-ng: a corpus that is generated, not downloaded."""

import hashlib
import json
import shutil
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from audio_lrp.data.caches import ENVIRONMENT_VARIABLE, caches_folder
from audio_lrp.data.corpora import espeak
from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.audiomnist_metadata import METADATA
from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.corpora.listing import visible_entries
from audio_lrp.data.folds import Gender
from audio_lrp.errors import UserError
from audio_lrp.utils.files import exclusively

GENERATOR_VERSION: Final = 1
"""To be raised whenever the same arguments would give other recordings."""

WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INTONATIONS: Final = (".", ",", "!")  # falling, rising as in a list, emphatic

# espeak-ng's English accents, by its names for them.
ACCENTS: Final = {
    "en-us": "General American",
    "en-us-nyc": "New York",
    "en": "British",
    "en-gb-x-rp": "Received Pronunciation",
    "en-gb-scotland": "Scottish",
    "en-gb-x-gbclan": "Lancastrian",
    "en-gb-x-gbcwmd": "West Midlands",
    "en-029": "Caribbean",
}

# Of espeak-ng's hundred voice variants the ones that sound like people (no robots, whispers, echoes) and not like one
# another, that stay below a second at all rates used here, and whose pitch tells their gender.
VARIANTS: Final[dict[Gender, str]] = {
    "female": "Andrea Annie anika aunty belinda f1 f2 f3 f5 grandma linda steph steph2 steph3",
    "male": "Alex Denis Diogo Hugo Michael adam boris david edward m6 max michel mike2 victor",
}

MAX_SPEAKERS: Final = 2 * min(len(names.split()) for names in VARIANTS.values()) * len(ACCENTS)
MAX_REPETITIONS: Final = 1000

AUDIBLE: Final = 0.01  # of the peak: what counts as speech when silence is trimmed
MAX_MARGIN: Final = round(0.03 * espeak.SAMPLE_RATE)

STAMP: Final = "synthetic.json"


@dataclass(frozen=True, slots=True)
class Speaker:
    """A synthetic speaker.

    Attributes:
        name: the speaker's number in the corpus, from ``"01"``.
        gender: ``"female"`` or ``"male"``.
        accent: one of :data:`ACCENTS`.
        variant: one of :data:`VARIANTS`.
        rate: mean speed, in words per minute.
        pitch: mean pitch on espeak-ng's scale; 50 is the variant's own.
        pitch_range: mean liveliness on espeak-ng's scale; 50 is the variant's own.
    """

    name: str
    gender: Gender
    accent: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int


class SyntheticDigits(Corpus):
    """Digits spoken by espeak-ng, in AudioMNIST's layout: the corpus that needs no download.

    Half of the speakers are female. Each has a voice and an accent that no other speaker has together, and an own
    speed, pitch and liveliness, around which the repetitions vary, as do intonation, level and noise. The arguments
    determine every sample, and more speakers or repetitions leave the ones that were there as they are.

    Args:
        root: where the recordings are generated, an empty or new folder; ``None`` for a folder of its own for these
            arguments in the one that the environment variable ``AUDIO_LRP_CACHE`` names, or the user's cache folder.
        speakers: number of speakers, 2 to 224.
        repetitions: utterances of each digit by each speaker, 1 to 1,000.
        seed: seeds speakers and variations; 0 or more.

    Raises:
        UserError: an argument is out of range, or ``root`` is ``None`` and espeak-ng is not installed.
    """

    name: ClassVar[str] = "SyntheticDigits"

    def __init__(
        self, root: str | Path | None = None, speakers: int = 12, repetitions: int = 10, seed: int = 0
    ) -> None:
        require_range("speakers", speakers, 2, MAX_SPEAKERS)
        require_range("repetitions", repetitions, 1, MAX_REPETITIONS)
        require_range("seed", seed, 0)
        self.speakers = speakers
        self.repetitions = repetitions
        self.seed = seed
        super().__init__(caches_folder(Path(), None) / f"synthetic-{self._key()}" if root is None else root)

    def prepare(self) -> None:
        """Generate the recordings where they are missing; of processes that start at once, one does.

        Raises:
            UserError: espeak-ng is not installed, or :attr:`root` cannot be written or holds something else.
        """
        try:
            if not self._is_generated():
                with exclusively(self.root):
                    if not self._is_generated():
                        self._generate()
        except OSError as error:
            raise UserError(
                f"synthetic digits cannot be written to {self.root} ({error.strerror or error}); free space there, or "
                f"choose another folder with --data.root or the variable {ENVIRONMENT_VARIABLE}"
            ) from error

    def scan(self) -> list[Recording]:
        """Find the recordings generated by :meth:`prepare`.

        Raises:
            UserError: there are none.
        """
        if not (self.root / "data" / STAMP).is_file():
            raise UserError(f"no synthetic digits have been generated in {self.root}: call prepare() first")
        return AudioMNIST(self.root).scan()

    def shares_speakers(self, other: Corpus) -> bool:
        """Synthetic speakers are drawn from the same voices, whatever the arguments."""
        return isinstance(other, SyntheticDigits) or super().shares_speakers(other)

    def _stamp(self) -> dict[str, str | int]:
        """All that determines the recordings."""
        return {
            "generator": GENERATOR_VERSION,
            "espeak-ng": espeak.version(),
            "speakers": self.speakers,
            "repetitions": self.repetitions,
            "seed": self.seed,
        }

    def _key(self) -> str:
        return hashlib.sha256(json.dumps(self._stamp()).encode()).hexdigest()[:12]

    def _is_generated(self) -> bool:
        """Whether these very recordings are there.

        Raises:
            UserError: something else is, or espeak-ng is not installed.
        """
        path = self.root / "data" / STAMP
        wanted = json.dumps(self._stamp())
        if path.is_file():
            found = path.read_text(encoding="utf-8", errors="replace")
            if found != wanted:
                raise UserError(
                    f"{self.root} holds synthetic digits made with {found}, not {wanted}: choose another folder with "
                    "--data.root, or remove this one"
                )
            return True
        if visible_entries(self.root):
            raise UserError(
                f"{self.root} holds something else than synthetic digits: choose an empty or new folder with "
                "--data.root"
            )
        return False

    def _generate(self) -> None:
        """Generate all recordings in a hidden folder that becomes ``data`` when they are complete."""
        partial = self.root / ".partial"
        if partial.exists():  # left by a process that was killed: nobody else generates now
            shutil.rmtree(partial)
        partial.mkdir()
        speakers = draw_speakers(self.speakers, self.seed)
        try:
            with tqdm(desc="speaking digits", total=self.speakers * self.repetitions * 10, unit="clip") as progress:
                for speaker in speakers:
                    folder = partial / speaker.name
                    folder.mkdir()
                    for digit, repetition, samples in speak_digits(speaker, self.repetitions, self.seed):
                        write_wav(folder / f"{digit}_{speaker.name}_{repetition}.wav", samples)
                        progress.update()
            (partial / METADATA).write_text(json.dumps(describe(speakers), indent=4), encoding="utf-8")
            (partial / STAMP).write_text(json.dumps(self._stamp()), encoding="utf-8")
            partial.rename(self.root / "data")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def require_range(name: str, value: int, low: int, high: int | None = None) -> None:
    """Refuse an argument that is out of range.

    Raises:
        UserError: it is.
    """
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UserError(f"SyntheticDigits cannot have {name} = {value}: it must be {limits}")


def draw_speakers(count: int, seed: int) -> tuple[Speaker, ...]:
    """Draw speakers, alternately female and male; the first ones are the same whatever the count.

    A gender's variants are used up before one is used again, with another accent.
    """
    rng = np.random.default_rng([seed, 0])
    accents = rng.permutation(list(ACCENTS))
    variants = {gender: rng.permutation(names.split()) for gender, names in VARIANTS.items()}
    speakers = []
    for number in range(count):
        gender: Gender = "male" if number % 2 else "female"
        turn, place = divmod(number // 2, len(variants[gender]))
        speakers.append(
            Speaker(
                name=f"{number + 1:02d}",
                gender=gender,
                accent=str(accents[(place + turn) % len(accents)]),
                variant=str(variants[gender][place]),
                rate=int(rng.integers(125, 161)),
                pitch=int(rng.integers(44, 57)),
                pitch_range=int(rng.integers(30, 71)),
            )
        )
    return tuple(speakers)


def speak_digits(speaker: Speaker, repetitions: int, seed: int) -> Iterator[tuple[int, int, NDArray[np.int16]]]:
    """All recordings of a speaker, as digit, repetition and samples [n] at :data:`espeak.SAMPLE_RATE`."""
    rng = np.random.default_rng([seed, int(speaker.name)])
    with espeak.Voice(speaker.accent, speaker.variant) as voice:
        for repetition in range(repetitions):
            for digit, word in enumerate(WORDS):
                speech = voice.speak(
                    word + INTONATIONS[rng.integers(len(INTONATIONS))],
                    rate=round(speaker.rate * rng.uniform(0.94, 1.06)),
                    pitch=speaker.pitch + int(rng.integers(-3, 4)),
                    pitch_range=speaker.pitch_range + int(rng.integers(-8, 9)),
                )
                yield digit, repetition, record(speech, rng)


def record(speech: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """Trim an utterance to random margins, and give it a random level and a light floor of white noise.

    The peak is 3 to 25 dB below full scale, the noise 40 to 60 dB below the peak.

    Args:
        speech: the utterance [n].
        rng: where the random numbers come from.
    """
    padded = np.pad(speech.astype(np.float32), MAX_MARGIN)
    magnitude = np.abs(padded)
    peak = magnitude.max()
    (audible,) = np.nonzero(magnitude > AUDIBLE * peak)
    before, after = rng.integers(0, MAX_MARGIN, size=2)
    clip = padded[audible[0] - before : audible[-1] + after + 1] / peak
    clip += rng.standard_normal(len(clip), dtype=np.float32) * decibels(rng.uniform(-60, -40))
    recording: NDArray[np.int16] = np.rint(clip * (32768 * decibels(rng.uniform(-25, -3)))).astype(np.int16)
    return recording


def decibels(level: float) -> float:
    """The factor that a level in decibels stands for."""
    return float(10 ** (level / 20))


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write samples [n] at :data:`espeak.SAMPLE_RATE` as 16-bit PCM."""
    with path.open("wb") as file, wave.open(file) as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(espeak.SAMPLE_RATE)
        recording.writeframes(samples.astype("<i2").tobytes())


def describe(speakers: tuple[Speaker, ...]) -> dict[str, dict[str, str | int]]:
    """The speakers in the keys of AudioMNIST's metadata, and what espeak-ng was told."""
    return {
        speaker.name: {
            "accent": ACCENTS[speaker.accent],
            "age": "unknown",
            "gender": speaker.gender,
            "native speaker": "yes",
            "origin": f"espeak-ng {espeak.version()}",
            "recordingdate": "unknown",
            "recordingroom": "none",
            "voice": f"{speaker.accent}+{speaker.variant}",
            "rate": speaker.rate,
            "pitch": speaker.pitch,
            "pitch range": speaker.pitch_range,
        }
        for speaker in speakers
    }
