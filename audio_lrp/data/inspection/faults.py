"""What is wrong with a corpus: its files, its sound, its completeness."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.corpora.formats import without_format
from audio_lrp.data.packing.decode import UnusableRecordingError, read_mono
from audio_lrp.data.representation import NUM_SAMPLES, SAMPLE_RATE
from audio_lrp.utils.parallel import map_in_processes

LONGEST: Final = NUM_SAMPLES / SAMPLE_RATE
"""Seconds that the networks see."""

SILENCE: Final = 4 / 32768
"""Half of the distance between the highest and the lowest sample below which nothing but rounding noise is left."""

MUCH_QUIETER: Final = 25.0
"""Decibels below the speaker's median: recordings differ too much in level for an absolute limit."""

CLOSE: Final = 0.999
"""Share of full scale from which on a sample is at it."""

CLIPPED_RUN: Final = 3
"""So many successive samples at full scale are no coincidence."""

OFFSET: Final = 0.25
"""Mean over standard deviation, where the offset has a sixteenth of the sound's own power."""

EXCLUDED: Final = ("misnamed", "corrupt", "duplicate", "silent", "known fault")
"""Kinds of faults that make a recording useless, or a test on it misleading."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: what is wrong, in a word or two.
        place: the recording below the corpus's folder, or the speaker and digit, or the speaker.
        detail: how wrong.
    """

    kind: str
    place: str
    detail: str


@dataclass(frozen=True, slots=True)
class Sound:
    """What is measured of one recording.

    Attributes:
        seconds: its length.
        rate: its sampling rate in Hz.
        level: root mean square around the mean, in dB relative to full scale.
        half_range: half of the distance between its highest and its lowest sample.
        offset: absolute mean over standard deviation.
        clipped: samples at full scale in runs of at least `CLIPPED_RUN`.
        digest: hash of the samples.
    """

    seconds: float
    rate: int
    level: float
    half_range: float
    offset: float
    clipped: int
    digest: bytes


def listen(path: Path) -> Sound | str:
    """Measure a recording; the reason why it cannot be used, where it cannot."""
    try:
        recording = read_mono(path)
    except UnusableRecordingError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    samples, rate = recording.samples, recording.rate
    if 2 * len(samples) * SAMPLE_RATE < rate:  # nothing is left of half a sample
        return f"holds no samples at {SAMPLE_RATE} Hz: its {len(samples)} at {rate} Hz are too short"
    deviation = float(samples.std(dtype=np.float64))
    return Sound(
        seconds=len(samples) / rate,
        rate=rate,
        level=20 * float(np.log10(max(deviation, 1e-9))),
        half_range=float(np.ptp(samples)) / 2,
        offset=abs(float(samples.mean(dtype=np.float64))) / max(deviation, 1e-9),
        clipped=clipped_samples(samples, recording.full_scale),
        digest=hashlib.blake2b(samples.tobytes(), digest_size=16).digest(),
    )


def clipped_samples(samples: NDArray[np.float32], full_scale: float = 1.0) -> int:
    """Number of samples [N] at full scale in runs of at least `CLIPPED_RUN`.

    Example:
        >>> clipped_samples(np.array([0.5, 1.0, 1.0, 1.0, 0.9, -1.0, -1.0, 0.1], dtype=np.float32))
        3
    """
    edges = np.flatnonzero(np.diff(np.abs(samples) >= CLOSE * full_scale, prepend=False, append=False))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= CLIPPED_RUN].sum())


def listen_to_all(recordings: Sequence[Recording]) -> list[Sound | str]:
    """Measure recordings on all cores."""
    sounds = map_in_processes(partial(map, listen), [recording.path for recording in recordings])
    return list(tqdm(sounds, "listening", total=len(recordings), unit="clip", dynamic_ncols=True))


def find_faults(corpus: Corpus, sounds: Sequence[Sound | str]) -> list[Fault]:
    """All faults of a corpus that its recordings show.

    Args:
        corpus: the corpus.
        sounds: what :func:`listen_to_all` measured of ``corpus.recordings``.
    """
    heard: list[tuple[Recording, str, Sound]] = []
    faults: list[Fault] = []
    for recording, sound in zip(corpus.recordings, sounds, strict=True):
        place = recording.path.relative_to(corpus.root).as_posix()
        if isinstance(sound, str):
            faults.append(Fault("corrupt", place, sound))
        else:
            heard.append((recording, place, sound))
    faults += [*_duplicates(heard), *_unusual_rates(heard)]
    for _, place, sound in heard:
        faults += _faults_of_sound(place, sound)
    return [*faults, *_much_quieter(heard), *missing_recordings(corpus.recordings)]


def _faults_of_sound(place: str, sound: Sound) -> Iterator[Fault]:
    if sound.half_range <= SILENCE:
        yield Fault("silent", place, f"its samples span {sound.half_range * 65536:.0f} steps of 16 bit")
    elif sound.offset > OFFSET:
        yield Fault("DC offset", place, f"the mean is {sound.offset:.2f} of the standard deviation")
    if sound.clipped:
        yield Fault("clipped", place, f"{sound.clipped} samples in runs at full scale")
    if sound.seconds > LONGEST:
        yield Fault("too long", place, f"{sound.seconds:.2f} s")


def _duplicates(heard: Sequence[tuple[Recording, str, Sound]]) -> Iterator[Fault]:
    first: dict[bytes, str] = {}
    for _, place, sound in heard:
        original = first.setdefault(sound.digest, place)
        if original != place and sound.half_range > SILENCE:
            yield Fault("duplicate", place, f"the same samples as {original}")


def _unusual_rates(heard: Sequence[tuple[Recording, str, Sound]]) -> Iterator[Fault]:
    rates = Counter(sound.rate for _, _, sound in heard)
    for _, place, sound in heard:
        usual = rates.most_common(1)[0][0]
        if sound.rate != usual:
            yield Fault("other rate", place, f"{sound.rate} Hz, most have {usual} Hz")


def _much_quieter(heard: Sequence[tuple[Recording, str, Sound]]) -> Iterator[Fault]:
    levels: dict[str, list[float]] = defaultdict(list)
    for recording, _, sound in heard:
        levels[recording.speaker].append(sound.level)
    usual = {speaker: median(values) for speaker, values in levels.items()}
    for recording, place, sound in heard:
        below = usual[recording.speaker] - sound.level
        if below > MUCH_QUIETER and sound.half_range > SILENCE:
            yield Fault("much quieter", place, f"{below:.0f} dB below speaker {recording.speaker}'s median")


def missing_recordings(recordings: Sequence[Recording]) -> Iterator[Fault]:
    """Speakers' digits that lack repetitions which most others have, or all of them."""
    cells = repetitions_by_cell(recordings)
    speakers = sorted({speaker for speaker, _ in cells})
    frequency = Counter(repetition for repetitions in cells.values() for repetition in repetitions)
    expected = {repetition for repetition, count in frequency.items() if count > len(speakers) * 10 / 2}
    for speaker in speakers:
        for digit in range(10):
            present = cells.get((speaker, digit), set())
            missing = sorted(expected - present)
            if missing or not present:
                some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                detail = f"{len(missing)} of {len(expected)} repetitions ({some})" if present else "no recordings"
                yield Fault("missing", f"speaker {speaker}, digit {digit}", detail)


def repetitions_by_cell(recordings: Sequence[Recording]) -> dict[tuple[str, int], set[int]]:
    """The repetitions of each digit by each speaker."""
    cells: dict[tuple[str, int], set[int]] = defaultdict(set)
    for recording in recordings:
        cells[recording.speaker, recording.digit].add(recording.repetition)
    return cells


def known_faults(corpus: Corpus, exclusions: Mapping[str, str]) -> Iterator[Fault]:
    """The recordings of a corpus that a list of exclusions names."""
    for recording in corpus.recordings:
        place = recording.path.relative_to(corpus.root).as_posix()
        for end, reason in exclusions.items():
            if f"/{without_format(place)}".endswith(f"/{without_format(end)}"):
                yield Fault("known fault", place, reason)


def worth_excluding(faults: Sequence[Fault]) -> dict[str, str]:
    """Reasons by place for the recordings that are better left out, as in a list of exclusions."""
    return {fault.place: f"{fault.kind}: {fault.detail}" for fault in faults if fault.kind in EXCLUDED}
