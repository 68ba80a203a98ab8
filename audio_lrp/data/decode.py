"""Decoding one recording to mono samples at 8 kHz."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audio_lrp.data.representation import SAMPLE_RATE

LOWEST_RATE: Final = 1000
_BLOCK: Final = 2**16


class UnusableRecordingError(Exception):
    """Says, in a few words, why a file cannot be used."""


def decode(path: Path) -> NDArray[np.float32]:
    """Read a recording of any rate and number of channels as mono samples at 8 kHz.

    Channels are averaged; other rates are converted by soxr in its "high quality", whose error lies
    120 dB below the signal: less than 16 bits can hold, in a third of the time that the next better one takes.

    Returns:
        Samples [N], full scale 1.

    Raises:
        UnusableRecordingError: the file is not audio, is cut off, or holds no samples or some that are not numbers.
    """
    samples, rate = read_mono(path)
    if rate == SAMPLE_RATE:
        return samples
    samples = np.asarray(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)
    if not len(samples):
        raise UnusableRecordingError("holds no samples")
    if not np.isfinite(samples).all():  # float samples near the largest number overflow in the filter
        raise UnusableRecordingError("holds samples far too loud to be sound")
    return samples


def read_mono(path: Path) -> tuple[NDArray[np.float32], int]:
    """Read a recording at its own rate, its channels averaged.

    Returns:
        Samples [N], full scale 1, and their rate in Hz.

    Raises:
        UnusableRecordingError: the file is not audio, is cut off, or holds no samples or some that are not numbers.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, header = file.samplerate, file.extra_info
            blocks = [*_blocks(file)]
            promised = file.frames - sum(map(len, blocks))
    except soundfile.LibsndfileError as error:
        empty = path.stat().st_size == 0
        reason = "an empty file" if empty else f"not readable as audio: {error.error_string.rstrip('.')}"
        raise UnusableRecordingError(reason) from error
    if rate < LOWEST_RATE:  # a damaged header: converting 1 Hz to 8 kHz would need gigabytes
        raise UnusableRecordingError(f"its header gives a sampling rate of {rate} Hz")
    missing = missing_bytes(header)
    if promised > 0:
        raise UnusableRecordingError(f"cut off: {promised} samples that its header promises are missing")
    if missing:
        raise UnusableRecordingError(f"cut off: {missing} bytes that its header promises are missing")
    # To join a single block or average a single channel would take as long as reading them.
    channels = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    mono = channels.shape[1] == 1
    samples: NDArray[np.float32] = channels[:, 0] if mono else channels.mean(axis=1, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise UnusableRecordingError("holds samples that are infinite or not a number")
    if not len(samples):
        raise UnusableRecordingError("holds no samples")
    return samples, rate


def _blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """All samples, block by block [N, channels]: a damaged header may promise more than the memory holds."""
    # NumPy turns int16 into the same float samples as libsndfile, but in a tenth of the time.
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    while True:
        block = file.read(_BLOCK, dtype=dtype, always_2d=True)
        yield np.multiply(block, np.float32(2**-15), dtype=np.float32) if dtype == "int16" else block
        if len(block) < _BLOCK:
            return


def missing_bytes(header: str) -> int:
    """How many bytes of samples a WAV file lacks, by libsndfile's account of its header.

    libsndfile reads what there is of a file cut off by a failed copy, and mentions it in this account alone. Programs
    that write to a pipe cannot know the size and put a number close to 2^31 or 2^32 there: nothing is missing then.

    Example:
        >>> missing_bytes("data : 43842 (should be 21899)")
        21943
        >>> missing_bytes("data : 4294967295 (should be 43842)")
        0
    """
    match = re.search(r"^data : (\d+) \(should be (\d+)\)", header, re.MULTILINE)
    if match is None:
        return 0
    promised, found = int(match[1]), int(match[2])
    return max(0, promised - found) if promised < 0x7FFF0000 else 0


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
