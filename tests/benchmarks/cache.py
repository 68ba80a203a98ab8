"""Packing recordings at 48 kHz against the original recipe, its growth with their number, and opening the cache.

Run it as a program; it prints two tables::

    pip install h5py scipy
    python tests/benchmarks/cache.py

The recordings are those below ``--source``, 48 kHz, each again and again with a new least significant bit, in a
temporary folder. The original recipe reads a file, resamples it by FFT, places it in a second of silence, computes the
spectrogram, and writes two HDF5 files a clip, one for each network. It and the packing alternate, chunk by chunk, so
that both see the same machine; figures are medians over the chunks. Times are wall-clock times of all cores together,
as the user waits for them, and CPU times, which other programs on the machine change less. The original recipe works
on one core; ratios are medians over the chunks, too. The floor is what the two libraries take that do the work.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import scipy.io.wavfile
import scipy.signal
import soundfile
import soxr

from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.packing.cache import PackedClips
from audio_lrp.utils.parallel import usable_cores

CHUNK = 10_000  # so many that starting processes hardly counts
CORES = usable_cores()
CLIPS = 30_000


def make_recordings(source: Path, root: Path, count: int) -> None:
    """Write recordings in AudioMNIST's layout, no two alike."""
    clips = [soundfile.read(path, dtype="int16")[0] for path in sorted(source.rglob("*.wav"))]
    rng = np.random.default_rng(0)
    for number in range(count):
        speaker, digit, repetition = f"{number // 500 + 1:02d}", number // 50 % 10, number % 50
        folder = root / "data" / speaker
        folder.mkdir(parents=True, exist_ok=True)
        clip = clips[number % len(clips)]
        changed = clip + rng.integers(-1, 2, len(clip)).astype(np.int16)
        soundfile.write(folder / f"{digit}_{speaker}_{repetition}.wav", changed, 48_000)


def original_recipe(path: Path, folder: Path) -> None:
    """What the original code does with one recording, written down anew from its description."""
    rate, samples = scipy.io.wavfile.read(path)
    samples = scipy.signal.resample(samples.astype(np.float32), round(len(samples) * 8000 / rate))[:8000]
    signal = np.zeros(8000, dtype=np.float32)
    signal[: len(samples)] = samples
    spectrum = np.abs(scipy.signal.stft(signal, 8000, nperseg=455, noverlap=420)[2])[:227, 2:-1]
    decibels = 20 * np.log10(np.maximum(spectrum, 1e-4 * spectrum.max()) / spectrum.max())
    for name, values in (("audionet", signal), ("alexnet", decibels)):
        with h5py.File(folder / f"{path.stem}-{name}.hdf5", "w") as file:
            file["data"] = values.astype(np.float32)[None, None]
            file["label"] = np.array([[int(path.name[0])]])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds, those of processes that it started included."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(paths: list[Path], root: Path, scratch: Path) -> None:
    """Alternate the original recipe and the packing, on one core and on all, over chunks of the recordings."""
    folders = {name: scratch / name for name in ("original recipe", "packing, 1 core", f"packing, {CORES} cores")}
    original, one_core, all_cores = folders
    folders[original].mkdir()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        sample = chunk[:150]  # it is so slow that a part has to do
        seconds = timed(lambda sample=sample: [original_recipe(path, folders[original]) for path in sample])
        times[original].append((seconds[0] / len(sample), seconds[1] / len(sample)))
        for name, cores in ((one_core, 1), (all_cores, CORES)):
            with patch("audio_lrp.utils.parallel.usable_cores", return_value=cores):
                folder = folders[name] / str(start)  # where another cache is, recordings are compared with it first
                seconds = timed(lambda chunk=chunk, folder=folder: PackedClips.open("benchmark", root, chunk, folder))
            times[name].append((seconds[0] / len(chunk), seconds[1] / len(chunk)))
    kilobytes = {name: size(folder) / len(paths) / 1000 for name, folder in folders.items()}
    kilobytes[original] = size(folders[original]) / len(list(folders[original].iterdir())) * 2 / 1000
    print(
        f"{'per clip':<18}{'wall ms':>9}{'CPU ms':>9}{'kB':>8}{'30,000 clips':>18}{'wall ratio':>12}{'CPU ratio':>11}"
    )
    for name, values in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        pairs = [(slow[0] / fast[0], slow[1] / fast[1]) for slow, fast in zip(times[original], values, strict=True)]
        ratios = [statistics.median(column) for column in zip(*pairs, strict=True)]
        total = f"{wall * CLIPS:.0f} s, {kilobytes[name] * CLIPS / 1000:.0f} MB"
        print(
            f"{name:<18}{1000 * wall:>9.2f}{1000 * cpu:>9.2f}{kilobytes[name]:>8.1f}{total:>18}"
            f"{ratios[0]:>12.1f}{ratios[1]:>11.1f}"
        )


def floor(paths: list[Path]) -> None:
    """What libsndfile and soxr take by themselves for one recording, on one core."""
    paths = paths[:: max(1, len(paths) // 200)]
    samples = [soundfile.read(path, dtype="int16")[0].astype(np.float32) for path in paths]
    reading = timed(lambda: [soundfile.read(path, dtype="int16") for path in paths])[1] / len(paths)
    resampling = timed(lambda: [soxr.resample(clip, 48_000, 8_000, quality="HQ") for clip in samples])[1] / len(paths)
    print(f"floor: {1000 * reading:.2f} ms of CPU for reading by libsndfile, {1000 * resampling:.2f} for soxr")


def growth(paths: list[Path], root: Path, scratch: Path) -> None:
    """Build and open caches of growing size, and fit a line through the CPU times."""
    print(f"\n{'clips':>8}{'build CPU s':>13}{'open CPU ms':>13}{'peak memory MB':>16}")
    rows = []
    for share in (8, 4, 2, 1):
        chosen = paths[: len(paths) // share]
        folder = scratch / f"growth-{share}"
        _, build = timed(lambda chosen=chosen, folder=folder: PackedClips.open("benchmark", root, chosen, folder))
        openings = [
            timed(lambda chosen=chosen, folder=folder: PackedClips.open("benchmark", root, chosen, folder))[1]
            for _ in range(9)
        ]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append((len(chosen), build, statistics.median(openings)))
        print(f"{len(chosen):>8}{build:>13.2f}{1000 * rows[-1][2]:>13.1f}{memory:>16.0f}")
        shutil.rmtree(folder)
    counts, builds, opened = np.array(rows).T
    for name, seconds in (("build", builds), ("open", opened)):
        slope, start = np.polyfit(counts, seconds, 1)
        print(
            f"{name}: {1e6 * slope:.1f} us of CPU a clip + {1000 * start:.0f} ms; a million clips: "
            f"{slope * 1e6 + start:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data/audiomnist-sample"))
    parser.add_argument("--recordings", type=int, default=CLIPS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_recordings(options.source, scratch / "corpus", options.recordings)
        corpus = AudioMNIST(scratch / "corpus")
        paths = [recording.path for recording in corpus.recordings]
        random.Random(0).shuffle(paths)  # the original recipe's time depends on the factors of a clip's length
        compare(paths, corpus.root, scratch)
        floor(paths)
        growth(paths, corpus.root, scratch)


if __name__ == "__main__":
    main()
