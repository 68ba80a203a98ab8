"""Decoding recordings to mono samples at 8 kHz."""

import math
import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audio_lrp.data.corpora.formats import CONVERT, UNREADABLE, suffix_of
from audio_lrp.data.packing.unfinished import finished
from audio_lrp.data.representation import SAMPLE_RATE

LARGEST: Final = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768}
"""Largest values of formats that do not come close to full scale, 1."""
LOWEST_RATE: Final = 1000
HIGHEST_RATE: Final = 1_000_000
LOUDEST: Final = 1e10
"""Peak beyond which the power of a spectrum would overflow in single precision; full scale is 1."""
MOST_SAMPLES: Final = 2**25
"""Samples, twelve minutes at 48 kHz, beyond which a recording is refused: memory for it would have no bound."""

_BLOCK: Final = 2**16
_JOINED: Final = 2**18  # samples that are converted together, unless a single recording is longer
_SILENCE: Final = 256  # samples at the lower of the two rates
_SIZES_OF_SAMPLES: Final = ("data", "Data Size")  # of WAV and AU files
_SIZES: Final = ("riff", *_SIZES_OF_SAMPLES, "RIFF", "RIFX", "Riff size", "FORM")  # first those of W64, last of AIFF
_NO_LENGTH: Final = 2**62  # samples; libsndfile gives the largest number where a FLAC file's header has no length
_SIMPLE: Final = 1000  # steps of a sample at 8 kHz; up to here the error does not grow along the signal (measured)


class UnusableRecordingError(Exception):
    """Says, in a few words, why a file cannot be used."""


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A file read from its beginning to its end.

    After each block soundfile would seek the place where the file is already, which FLAC files without a length refuse.
    """

    def seekable(self) -> bool:
        return False


class Mono(NamedTuple):
    """A recording at its own rate, its channels averaged.

    Attributes:
        samples: [N], at least one, full scale 1.
        rate: in Hz.
        peak: the largest absolute value of the samples.
        full_scale: the largest value that the file's format can hold.
    """

    samples: NDArray[np.float32]
    rate: int
    peak: np.float32
    full_scale: float


def decode(path: Path) -> NDArray[np.float32]:
    """Read a recording of any rate and number of channels as mono samples at 8 kHz.

    Channels are averaged; other rates are converted by soxr in its "high quality", whose error lies
    120 dB below the signal: less than 16 bits can hold, in a third of the time that the next better one takes.

    Returns:
        Samples [N], full scale 1.

    Raises:
        UnusableRecordingError: the file is not audio, is cut off, or holds no samples or some that no sound has.
    """
    (decoded,) = decode_all([path])
    if isinstance(decoded, UnusableRecordingError):
        raise decoded
    return decoded


def decode_all(paths: Iterable[Path]) -> Iterator[NDArray[np.float32] | UnusableRecordingError]:
    """Read recordings like :func:`decode`, in less time where several of the same rate follow one another.

    Args:
        paths: the recordings; some seconds of them are in memory at a time.

    Yields:
        Samples [N] of each, or the reason why it cannot be used.
    """
    waiting: list[Mono] = []
    for path in paths:
        try:
            recording = read_mono(path)
        except UnusableRecordingError as error:
            yield from _convert(waiting)
            waiting = []
            yield error
            continue
        length = sum(len(other.samples) for other in waiting) + len(recording.samples)
        if waiting and (recording.rate != waiting[0].rate or length > _JOINED):
            yield from _convert(waiting)
            waiting = []
        waiting.append(recording)
    yield from _convert(waiting)


def _convert(recordings: list[Mono]) -> Iterator[NDArray[np.float32] | UnusableRecordingError]:
    """Convert recordings of one rate to samples [n] at 8 kHz.

    Nearly half the time that soxr takes for a short recording it spends on making its filter: recordings are joined.
    Where the two rates have no simple ratio, soxr rounds its step, and what comes late in a long signal would be off.
    """
    if not recordings:
        return
    rate = recordings[0].rate
    if rate == SAMPLE_RATE:
        yield from (recording.samples for recording in recordings)
    elif SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE) <= _SIMPLE:
        yield from _resample(recordings, rate)
    else:
        for recording in recordings:
            yield from _resample([recording], rate)


def _resample(recordings: list[Mono], rate: int) -> Iterator[NDArray[np.float32] | UnusableRecordingError]:
    """Resample recordings to samples [n] at 8 kHz as one signal, with more silence before each than the filter is long.

    Each is scaled to the same peak, so that a loud one's rounding errors do not reach a quiet one. Without silence
    before it, soxr makes a recording's first samples wrong by up to a hundredth of its peak.
    """
    period = rate // math.gcd(rate, SAMPLE_RATE)  # every so many samples, one falls upon a sample at 8 kHz
    silence = math.ceil(_SILENCE * max(1, rate / SAMPLE_RATE) / period) * period
    room = [silence + math.ceil(len(recording.samples) / period) * period for recording in recordings]
    starts = [end - taken + silence for end, taken in zip(accumulate(room), room, strict=True)]
    joined = np.zeros(sum(room), dtype=np.float32)
    for recording, start in zip(recordings, starts, strict=True):
        np.divide(recording.samples, recording.peak or 1, out=joined[start : start + len(recording.samples)])
    converted = soxr.resample(joined, rate, SAMPLE_RATE, quality="HQ")
    for recording, start in zip(recordings, starts, strict=True):
        first = start * SAMPLE_RATE // rate
        length = (2 * len(recording.samples) * SAMPLE_RATE + rate) // (2 * rate)  # rounded, as soxr does
        if length:
            yield converted[first : first + length] * recording.peak  # silence is exactly 0 again
        else:
            yield UnusableRecordingError("holds no samples")


def read_mono(path: Path) -> Mono:
    """Read a recording at its own rate, its channels averaged.

    Raises:
        UnusableRecordingError: the file is not audio, is cut off, or holds no samples or some that no sound has.
    """
    try:
        with _opened(path) as file:
            rate, header = file.samplerate, file.extra_info
            full_scale = LARGEST.get(file.subtype, 1.0)
            blocks = [*_blocks(file)]
            promised = file.frames - sum(map(len, blocks)) if file.frames < _NO_LENGTH else 0
    except soundfile.LibsndfileError as error:
        empty = path.stat().st_size == 0
        reason = "an empty file" if empty else f"not readable as audio: {error.error_string.rstrip('.')}"
        reason += f": {CONVERT}" if suffix_of(path.name) in UNREADABLE else ""
        raise UnusableRecordingError(reason) from error
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:  # a damaged header: to convert 1 Hz or 1 GHz would take gigabytes
        raise UnusableRecordingError(f"its header gives a sampling rate of {rate} Hz")
    missing = missing_bytes(header)
    if promised > 0:
        raise UnusableRecordingError(f"cut off: {promised} samples that its header promises are missing")
    if missing:
        raise UnusableRecordingError(f"cut off: {missing} bytes that its header promises are missing")
    # To join a single block would take as long as reading it.
    samples: NDArray[np.float32] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if not len(samples):
        raise UnusableRecordingError("holds no samples")
    peak = peak_of(samples)
    if not np.isfinite(peak):
        raise UnusableRecordingError("holds samples that are infinite or not a number")
    if peak > LOUDEST:
        raise UnusableRecordingError("holds samples far too loud to be sound")
    return Mono(samples, rate, peak, full_scale)


def _opened(path: Path) -> _Stream:
    """The file; where its header promises less than half of what it holds, maybe as if the header were finished.

    Raises:
        UnusableRecordingError: it has no header.
        soundfile.LibsndfileError: it is not audio, or cannot be read.
    """
    if suffix_of(path.name) == ".raw":
        raise UnusableRecordingError(f"samples without a header: {CONVERT}")
    try:
        file = _Stream(path)
    except soundfile.LibsndfileError:
        if (content := finished(path)) is None:
            raise
        return _Stream(content)
    if file.frames * file.channels * 4 < path.stat().st_size and (content := finished(path)) is not None:
        file.close()
        return _Stream(content)
    return file


def _blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """All samples, channels averaged, block by block [N]: a damaged header may promise more than the memory holds.

    Raises:
        UnusableRecordingError: there are more than `MOST_SAMPLES`.
    """
    # NumPy turns int16 into the same float samples as libsndfile, but in a tenth of the time.
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    for _ in range(0, MOST_SAMPLES, _BLOCK):
        block = file.read(_BLOCK, dtype=dtype, always_2d=True)
        if dtype == "int16":
            block = block.astype(np.float32)
            block *= np.float32(2**-15)
        # To average a single channel would take as long as reading it.
        yield block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float32)
        if len(block) < _BLOCK:
            return
    raise UnusableRecordingError(f"longer than {MOST_SAMPLES / file.samplerate / 60:.3g} minutes: cut it into parts")


def peak_of(samples: NDArray[np.float32]) -> np.float32:
    """The largest absolute value of samples [N], not a number where one of them is none.

    Example:
        >>> float(peak_of(np.array([0.25, -0.5], dtype=np.float32)))
        0.5
    """
    return max(samples.max(), -samples.min())


def missing_bytes(header: str) -> int:
    r"""How many bytes of samples a file lacks, by libsndfile's account of its header.

    libsndfile reads what there is of a file cut off by a failed copy, and mentions it in this account alone. It ends
    after 2,047 characters, maybe before the samples' size: that of the whole file has to do then, where a missing byte
    may be one that only evens it. Programs that write to a pipe cannot know the size and put a number close to 2^31 or
    2^32 there: nothing is missing then. NIST's, VOC and IRCAM files have no account of it.

    Example:
        >>> missing_bytes("data : 43842 (should be 21899)")
        21943
        >>> missing_bytes("data : 4294967295 (should be 43842)")
        0
        >>> missing_bytes("RIFF : 46000 (should be 24057)\nLIST : 2000")
        21943
    """
    sizes = re.findall(r"^ *(\w+(?: \w+)?) *: (\d+)(?: \(should be (\d+)\))?$", header, re.MULTILINE)
    found = {name: (int(promised), int(there or promised)) for name, promised, there in sizes}
    for name in _SIZES:
        if name in found:
            promised, there = found[name]
            missing = promised - there if promised < 0x7FFF0000 else 0
            return missing if missing > (name not in _SIZES_OF_SAMPLES) else 0
    return 0


def loudest_window(samples: NDArray[np.int16], size: int) -> int:
    """The first sample of the window with the largest sum of squares, the earliest of equals; 0 for short clips.

    Args:
        samples: the clip [N].
        size: samples in the window.

    Example:
        >>> loudest_window(np.array([1, 0, 5, 5, 0, 1], dtype=np.int16), size=2)
        2
    """
    if len(samples) <= size:
        return 0
    energy = np.cumsum(np.square(samples, dtype=np.int64))  # integers: exact, so that ties are ties
    energy[size:] -= energy[:-size].copy()
    return int(np.argmax(energy[size - 1 :]))
