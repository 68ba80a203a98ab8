"""The packed cache: exact content, keyed by content, built once, rebuilt when damaged."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.io.wavfile
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.formats import _SUFFIXES as OF_FORMAT
from audio_lrp.data.corpora.formats import SUFFIXES
from audio_lrp.data.corpora.fsdd import FSDD
from audio_lrp.data.packing import cache
from audio_lrp.data.packing.cache import INDEX, NAMES, SAMPLES, LongClipPolicy, PackedClips
from audio_lrp.data.packing.decode import LOUDEST, UnusableRecordingError, decode, decode_all, loudest_window
from audio_lrp.data.packing.fingerprint import hash_files, stat_signature
from audio_lrp.data.representation import Spectrogram, Waveform
from audio_lrp.errors import UserError
from audio_lrp.utils.parallel import BATCH, BATCHES_IN_MEMORY

Samples = NDArray[np.floating[Any]]

# Rounding to 1 / 32767 of the clip's peak is off by half of it at most; the rest is room for float32.
QUANTISATION = 0.51 / 32767


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


def noise(count: int, seed: int = 0, peak: float = 0.5) -> Samples:
    samples: Samples = np.random.default_rng(seed).uniform(-1, 1, count)
    return samples * float(peak / np.abs(samples).max())


def write(path: Path, samples: Samples, rate: int = 8000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def some_recordings(root: Path, count: int = 5) -> list[Path]:
    return [write(root / f"{i}.wav", noise(1000 + 10 * i, seed=i)) for i in range(count)]


def open_clips(root: Path, paths: list[Path]) -> PackedClips:
    return PackedClips.open("Test", root, paths, root.parent / "caches")


def assert_holds(clip: NDArray[np.float32], path: Path) -> None:
    """The clip is the whole recording at 8 kHz, in int16 scale."""
    expected, rate = soundfile.read(path)
    assert rate == 8000
    np.testing.assert_allclose(clip, expected * 32768, rtol=0, atol=QUANTISATION * np.abs(expected).max() * 32768)


def caches(root: Path) -> list[str]:
    return sorted(path.name for path in (root.parent / "caches").iterdir() if path.is_dir())


def first_clip(clips: PackedClips) -> NDArray[np.float32]:
    return clips.gather(np.array([0]), "energy")[0][0, : clips.lengths[0]]


class TestDecoding:
    def test_8_khz_is_read_as_it_is(self, shared_data: Path) -> None:
        for recording in FSDD(shared_data / "fsdd").recordings[::500]:
            rate, expected = scipy.io.wavfile.read(recording.path)
            assert rate == 8000
            np.testing.assert_array_equal(decode(recording.path) * 32768, expected)

    @pytest.mark.parametrize("rate", [48000, 44100, 16000, 11025])
    def test_a_resampled_tone_is_the_tone_at_8_khz(self, tmp_path: Path, rate: int) -> None:
        def tone(at: int) -> Samples:
            t = np.arange(round(0.5 * at)) / at
            # The envelope keeps all energy inside the band, so that the ends can be compared too.
            samples: Samples = 0.5 * np.sin(2 * np.pi * 1234.5 * t) * np.sin(np.pi * t / 0.5) ** 4
            return samples

        samples = decode(write(tmp_path / "tone.wav", tone(rate), rate, "FLOAT"))
        np.testing.assert_allclose(samples, tone(8000), atol=2e-6)

    @pytest.mark.parametrize("rate", [48000, 44100, 16000, 11025, 22050, 192000, 4000, 1000, 11111, 22254, 15999])
    def test_recordings_converted_together_are_as_each_by_itself_in_silence(self, tmp_path: Path, rate: int) -> None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(1, 3 * rate // 2, 40)
        loudness = 10 ** rng.uniform(-4, 0, len(lengths))  # a loud neighbour must not disturb a quiet one
        recordings = [
            noise(int(n), peak=float(peak), seed=i) for i, (n, peak) in enumerate(zip(lengths, loudness, strict=True))
        ]
        recordings[3] *= 0
        paths = [write(tmp_path / f"{i}.wav", samples, rate, "FLOAT") for i, samples in enumerate(recordings)]
        before = np.zeros(rate)
        for samples, decoded in zip(recordings, decode_all(paths), strict=True):
            in_silence = soxr.resample(np.concatenate([before, samples, before]), rate, 8000, quality="HQ")
            expected = in_silence[8000 : 8000 + len(soxr.resample(samples, rate, 8000))]
            assert isinstance(decoded, np.ndarray)
            assert decoded.dtype == np.float32
            np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6 * np.abs(samples).max())

    def test_what_8_khz_cannot_hold_is_removed(self, tmp_path: Path) -> None:
        t = np.arange(24000) / 48000
        path = write(tmp_path / "high.wav", np.sin(2 * np.pi * 5000 * t) * np.sin(np.pi * t / 0.5) ** 4, 48000, "FLOAT")
        assert np.abs(decode(path)).max() < 1e-6

    def test_recordings_of_all_kinds_come_in_their_order(self, tmp_path: Path) -> None:
        rates = [48000, 8000, 16000, 48000, 16000]
        paths = [write(tmp_path / f"{i}.wav", noise(rate // 10 + i, seed=i), rate) for i, rate in enumerate(rates)]
        paths.insert(2, tmp_path / "broken.wav")
        paths[2].write_bytes(b"no sound")
        decoded = [*decode_all(paths)]
        assert isinstance(decoded.pop(2), UnusableRecordingError)
        del paths[2]
        for path, samples in zip(paths, decoded, strict=True):
            assert isinstance(samples, np.ndarray)
            np.testing.assert_allclose(samples, decode(path), rtol=0, atol=1e-6)

    def test_channels_are_averaged(self, tmp_path: Path) -> None:
        channels = np.stack([noise(100, seed=1), noise(100, seed=2)], axis=1)
        samples = decode(write(tmp_path / "stereo.wav", channels, subtype="FLOAT"))
        np.testing.assert_allclose(samples, channels.mean(axis=1), atol=1e-7)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_recordings_in_all_formats(self, tmp_path: Path, suffix: str) -> None:
        (name,) = (name for name, suffixes in OF_FORMAT.items() if suffix in suffixes.split())
        path = tmp_path / f"a{suffix.upper()}"
        subtype = "OPUS" if suffix == ".opus" else "ALAW" if name == "WVE" else None
        samples = 0.5 * np.sin(np.arange(4000) / 3)
        soundfile.write(path, samples, 8000, format=name, subtype=subtype)
        assert np.corrcoef(decode(path), samples)[0, 1] > 0.98

    def test_a_header_written_to_a_pipe_is_no_error(self, tmp_path: Path) -> None:
        path = write(tmp_path / "pipe.wav", noise(100))
        content = path.read_bytes()
        size = content.index(b"data") + 4
        path.write_bytes(content[:4] + b"\xff" * 4 + content[8:size] + b"\xff" * 4 + content[size + 4 :])
        assert len(decode(path)) == 100


class TestPacking:
    @pytest.mark.parametrize("peak", [1.0, 0.02, 1e-3, 3.0])
    def test_clips_come_back_in_int16_scale(self, root: Path, peak: float) -> None:
        samples = noise(5000, peak=peak)
        path = write(root / "a.wav", samples, subtype="FLOAT")
        clip = first_clip(open_clips(root, [path]))
        np.testing.assert_allclose(clip, samples * 32768, rtol=0, atol=QUANTISATION * peak * 32768)

    def test_quiet_recordings_keep_their_precision(self, shared_data: Path, tmp_path: Path) -> None:
        paths = [recording.path for recording in AudioMNIST(shared_data / "audiomnist-sample").recordings]
        clips = PackedClips.open("AudioMNIST", shared_data, paths, tmp_path)
        gathered, lengths = clips.gather(np.arange(len(paths)), "error")
        for path, clip, length in zip(paths, gathered, lengths, strict=True):
            expected = decode(path) * 32768
            peak = np.abs(expected).max()
            assert peak < 0.06 * 32768  # such recordings stored as plain int16 would be off by half a unit
            np.testing.assert_allclose(clip[:length], expected, rtol=0, atol=min(0.03, QUANTISATION * peak))
            assert not clip[length:].any()

    def test_a_corpus_in_another_format_gives_the_same_clips(self, root: Path) -> None:
        paths = some_recordings(root)
        for path in paths:
            soundfile.write(path.with_suffix(".flac"), *soundfile.read(path))
        of_wav, of_flac = (open_clips(root, [path.with_suffix(end) for path in paths]) for end in (".wav", ".flac"))
        assert of_wav.folder != of_flac.folder
        for expected, found in zip(of_wav.stored("energy"), of_flac.stored("energy"), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_a_batch_is_in_the_order_of_its_indices(self, root: Path) -> None:
        count = BATCH * BATCHES_IN_MEMORY + 3  # more than one round of the builder
        paths = some_recordings(root, count)
        clips = open_clips(root, paths)
        assert len(clips) == count
        np.testing.assert_array_equal(clips.lengths, [1000 + 10 * i for i in range(count)])
        indices = np.array([count - 1, 0, 7, 7])
        batch, lengths = clips.gather(indices, "energy")
        assert batch.shape == (4, 8000)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(lengths, clips.lengths[indices])
        for clip, length, i in zip(batch, lengths, indices, strict=True):
            assert_holds(clip[:length], paths[i])
            assert not clip[length:].any()

    def test_digital_silence_stays_silent(self, root: Path) -> None:
        clips = open_clips(root, [write(root / "a.wav", np.zeros(50)), write(root / "b.wav", noise(50))])
        np.testing.assert_array_equal(first_clip(clips), np.zeros(50))

    def test_pickling_sends_the_place_and_not_the_samples(self, root: Path) -> None:
        clips = open_clips(root, some_recordings(root, 200))
        content = pickle.dumps(clips)
        assert len(content) < 1000
        np.testing.assert_array_equal(first_clip(pickle.loads(content)), first_clip(clips))

    def test_real_recordings(self, shared_data: Path, tmp_path: Path) -> None:
        corpus = AudioMNIST(shared_data / "digits-en")
        paths = [recording.path for recording in corpus.recordings[::20]]
        clips = PackedClips.open(corpus.name, corpus.root, paths, tmp_path)
        _, lengths = clips.gather(np.arange(len(paths)), "energy")
        seconds = np.array([soundfile.info(path).duration for path in paths])
        np.testing.assert_allclose(clips.lengths, seconds * 8000, atol=0.5)
        np.testing.assert_array_equal(lengths, np.minimum(clips.lengths, 8000))


class TestLongClips:
    @pytest.mark.parametrize("seed", range(5))
    def test_energy_takes_the_loudest_second(self, root: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        count = int(rng.integers(8001, 20000))
        samples = noise(count, seed) * np.exp(-(((np.arange(count) - rng.integers(count)) / 2000) ** 2))
        clips = open_clips(root, [write(root / "a.wav", samples, subtype="FLOAT")])
        windows = np.lib.stride_tricks.sliding_window_view(samples**2, 8000).sum(axis=1)
        starts, lengths = clips.window("energy")
        assert lengths.tolist() == [8000]
        assert windows[starts[0]] >= windows.max() * (1 - 1e-6)
        batch, _ = clips.gather(np.array([0]), "energy")
        expected = samples[starts[0] : starts[0] + 8000] * 32768
        np.testing.assert_allclose(batch[0], expected, rtol=0, atol=QUANTISATION * 32768)

    @pytest.mark.parametrize("seed", range(20))
    def test_loudest_window_equals_brute_force(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 8))
        # Few different values make ties common: the first of them is due.
        samples = rng.choice(np.array([-32768, -1, 0, 1, 32767], dtype=np.int16), rng.integers(1, 20))
        energies = [sum(int(s) ** 2 for s in samples[i : i + size]) for i in range(max(1, len(samples) - size + 1))]
        assert loudest_window(samples, size) == energies.index(max(energies))

    @pytest.mark.parametrize(("policy", "start"), [("energy", 0), ("center", 2)])
    def test_ties_start_at_0_and_the_center_is_the_center(self, root: Path, policy: LongClipPolicy, start: int) -> None:
        long, short = np.full(8005, 0.5), np.full(8000, 0.5)
        clips = open_clips(root, [write(root / "a.wav", long), write(root / "b.wav", short)])
        starts, lengths = clips.window(policy)
        assert starts.tolist() == [start, 0]
        assert lengths.tolist() == [8000, 8000]

    def test_error_names_the_first_long_clips(self, root: Path) -> None:
        paths = [write(root / f"{i}.wav", noise(8000 + 400 * i)) for i in range(6)]
        clips = pickle.loads(pickle.dumps(open_clips(root, paths)))
        with pytest.raises(UserError) as error:
            clips.window("error")
        assert str(error.value) == (
            f"5 recordings are longer than one second, the first of them {paths[1]} (1.05 s), {paths[2]} (1.10 s), "
            f"{paths[3]} (1.15 s); set --data.long_clips to energy or center to use one second of each, "
            "or remove them"
        )
        with pytest.raises(UserError, match="5 recordings are longer than one second"):
            clips.gather(np.array([0]), "error")

    def test_error_accepts_short_clips(self, root: Path) -> None:
        starts, lengths = open_clips(root, some_recordings(root, 2)).window("error")
        assert starts.tolist() == [0, 0]
        assert lengths.tolist() == [1000, 1010]


class TestUnusableRecordings:
    @pytest.fixture
    def bad(self, root: Path) -> Path:
        return root / "bad.wav"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "an empty file"),
            (b"I am not a recording.\n", "not readable as audio: Format not recognised"),
            (np.zeros(0), "holds no samples"),
            (np.array([0.1, np.nan, 0.2]), "holds samples that are infinite or not a number"),
            (np.array([0.1, np.inf, 0.2]), "holds samples that are infinite or not a number"),
        ],
    )
    def test_are_named_with_the_reason(self, root: Path, bad: Path, content: bytes | Samples, problem: str) -> None:
        good = some_recordings(root, 2)
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            write(bad, content, subtype="FLOAT")
        with pytest.raises(UserError) as error:
            open_clips(root, [*good, bad])
        expected = f"1 of 3 recordings of Test cannot be used: {bad} ({problem}); replace or remove them"
        assert str(error.value) == expected
        assert caches(root) == []

    def test_cut_off_files_are_found(self, root: Path, bad: Path) -> None:
        write(bad, noise(500))
        bad.write_bytes(bad.read_bytes()[:-300])
        with pytest.raises(UserError, match=r"bad.wav \(cut off: 300 bytes that its header promises are missing\)"):
            open_clips(root, [bad])

    def test_cut_off_files_of_other_formats_are_found(self, root: Path, bad: Path) -> None:
        soundfile.write(bad, noise(20_000), 16_000, format="MP3")
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
        with pytest.raises(UserError, match=r"bad.wav \(cut off: \d+ samples that its header promises are missing\)"):
            open_clips(root, [bad])

    @pytest.mark.parametrize(
        ("file_format", "subtype"),
        [("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("WAV", "ULAW")],
    )
    def test_cut_off_files_are_found_whatever_their_format(self, bad: Path, file_format: str, subtype: str) -> None:
        soundfile.write(bad, noise(4001), 8000, format=file_format, subtype=subtype)
        assert len(decode(bad)) == 4001
        bad.write_bytes(bad.read_bytes()[:-300])
        with pytest.raises(UnusableRecordingError, match=r"cut off: (299|30[01]) bytes that its header"):
            decode(bad)

    def test_cut_off_files_with_much_to_say_of_themselves_are_found(self, bad: Path) -> None:
        content = write(bad, noise(500)).read_bytes()
        comments = b"".join(b"ICMT" + (60).to_bytes(4, "little") + b"x" * 60 for _ in range(40))
        chunk = b"LIST" + (4 + len(comments)).to_bytes(4, "little") + b"INFO" + comments
        size = len(content) - 8 + len(chunk)
        place = content.index(b"data")
        content = b"RIFF" + size.to_bytes(4, "little") + content[8:place] + chunk + content[place:]
        bad.write_bytes(content)
        assert len(decode(bad)) == 500
        bad.write_bytes(content[:-300])
        with pytest.raises(UnusableRecordingError, match="cut off: 300 bytes that its header promises are missing"):
            decode(bad)

    @pytest.mark.parametrize(
        ("file_format", "place", "size"),
        [
            *(("WAV", 40, struct.pack("<I", size)) for size in (0, 1, 2, 44, 4096, 2**31 - 1, 2**31, 2**32 - 1)),
            *(("RF64", 28, struct.pack("<Q", size)) for size in (0, 2**64 - 1)),
            *(("W64", 96, struct.pack("<Q", size)) for size in (0, 24, 2**63 - 1, 2**64 - 1)),
            *(("AU", 8, struct.pack(">I", size)) for size in (0, 2**31 - 1, 2**32 - 2, 2**32 - 1)),
            *(("AIFF", 42, struct.pack(">I", size)) for size in (0, 8, 2**31 - 1, 2**32 - 1)),
            *(("CAF", 4084, struct.pack(">q", size)) for size in (0, 4, -1)),
            ("FLAC", 21, b"\xf0\0\0\0\0"),
        ],
    )
    def test_headers_without_a_length_are_seen_through(
        self, bad: Path, file_format: str, place: int, size: bytes
    ) -> None:
        """As programs leave them that record to a pipe, or are killed."""
        soundfile.write(bad, noise(8000), 8000, format=file_format, subtype="PCM_16")
        expected = decode(bad)
        content = bytearray(bad.read_bytes())
        content[place : place + len(size)] = size
        bad.write_bytes(content)
        np.testing.assert_array_equal(decode(bad), expected)

    def test_chunks_after_no_samples_are_no_samples(self, bad: Path) -> None:
        chunk = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"
        bad.write_bytes(write(bad, np.zeros(0)).read_bytes() + chunk)
        with pytest.raises(UnusableRecordingError, match="holds no samples"):
            decode(bad)

    def test_samples_without_a_header_are_refused(self, root: Path) -> None:
        (root / "x.RAW").write_bytes(bytes(1000))
        with pytest.raises(UnusableRecordingError, match="samples without a header: convert to WAV or FLAC"):
            decode(root / "x.RAW")

    def test_a_recorder_left_on_is_refused(self, root: Path, bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audio_lrp.data.packing.decode.MOST_SAMPLES", 2**17)
        write(bad, noise(2**17 - 1))
        assert len(decode(bad)) == 2**17 - 1
        write(bad, noise(2**17))
        with pytest.raises(UserError, match=r"bad.wav \(longer than 0.273 minutes: cut it into parts\)"):
            open_clips(root, [bad])

    def test_too_short_or_too_loud_to_resample(self, root: Path, bad: Path) -> None:
        for samples, problem in (
            (np.full(1, 0.1), "holds no samples"),
            (np.full(500, -3e38), "holds samples far too loud to be sound"),
            (np.full(500, 1.1e10), "holds samples far too loud to be sound"),
        ):
            write(bad, samples, rate=192_000, subtype="FLOAT")
            with pytest.raises(UserError, match=rf"bad.wav \({problem}\)"):
                open_clips(root, [bad])

    def test_the_loudest_that_is_taken_can_be_seen(self, root: Path) -> None:
        path = write(root / "loud.wav", noise(8000, peak=0.99 * LOUDEST), subtype="FLOAT")
        (clip,), _ = open_clips(root, [path]).gather(np.array([0]), "energy")
        for representation in (Waveform(), Spectrogram()):
            assert representation(torch.from_numpy(clip)[None]).isfinite().all()

    @pytest.mark.parametrize("rate", [1, 1_999_999_973])
    def test_absurd_sampling_rates_are_found(self, root: Path, bad: Path, rate: int) -> None:
        write(bad, noise(500), rate)
        with pytest.raises(UserError, match=rf"bad.wav \(its header gives a sampling rate of {rate} Hz\)"):
            open_clips(root, [bad])

    def test_all_are_counted_and_the_first_three_named(self, root: Path) -> None:
        paths = some_recordings(root, 8)
        for path in paths[1:6]:
            path.write_bytes(b"")
        named = ", ".join(f"{path} (an empty file)" for path in paths[1:4])
        with pytest.raises(UserError) as error:
            open_clips(root, paths)
        assert f"5 of 8 recordings of Test cannot be used: {named}, ...; replace" in str(error.value)

    def test_mending_them_is_enough(self, root: Path) -> None:
        paths = some_recordings(root)
        content = paths[2].read_bytes()
        paths[2].write_bytes(b"")
        with pytest.raises(UserError):
            open_clips(root, paths)
        paths[2].write_bytes(content)
        assert len(open_clips(root, paths)) == 5

    @pytest.mark.parametrize(("kind", "problem"), [("link", "No such file or directory"), ("folder", "Is a directory")])
    def test_what_cannot_be_read_is_named(self, root: Path, bad: Path, kind: str, problem: str) -> None:
        if kind == "link":
            bad.symlink_to(root / "gone.wav")
        else:
            bad.mkdir()
        with pytest.raises(UserError, match=rf"the recording {bad} cannot be read \({problem}\); replace or remove it"):
            open_clips(root, [*some_recordings(root, 2), bad])

    def test_no_recordings_at_all(self, root: Path) -> None:
        with pytest.raises(UserError, match=f"Test has no recordings below {root}; set --data.root"):
            open_clips(root, [])


class TestKeys:
    @pytest.fixture
    def rebuilds(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Grows by one at each build."""
        builds: list[int] = []
        build = cache.build

        def counted(*args: Any) -> str:
            builds.append(1)
            return build(*args)

        monkeypatch.setattr(cache, "build", counted)
        return builds

    def test_an_unchanged_corpus_is_not_read_again(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = some_recordings(root)
        expected = first_clip(open_clips(root, paths))

        def read(*_: Any) -> None:
            raise AssertionError("the recordings were read again")

        monkeypatch.setattr(cache, "hash_files", read)
        monkeypatch.setattr(cache, "hash_in_parallel", read)
        np.testing.assert_array_equal(first_clip(open_clips(root, paths)), expected)

    def test_a_changed_corpus_is_rebuilt(self, root: Path, rebuilds: list[int]) -> None:
        paths = some_recordings(root)
        before = first_clip(open_clips(root, paths))
        times = paths[0].stat()
        write(paths[0], noise(1000, seed=99))
        os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same date: still noticed
        after = first_clip(open_clips(root, paths))
        assert_holds(after, paths[0])
        assert np.abs(after - before).max() > 1000
        open_clips(root, paths[:-1])
        assert len(rebuilds) == 3

    def test_a_copy_elsewhere_shares_the_cache(self, root: Path, rebuilds: list[int]) -> None:
        paths = some_recordings(root)
        clips = open_clips(root, paths)
        copy = root.parent / "copy"
        shutil.copytree(root, copy)
        shared = open_clips(copy, [copy / path.name for path in paths])
        assert shared.folder == clips.folder
        assert len(rebuilds) == 1

    def test_a_copy_packed_while_another_waits_is_not_packed_again(self, root: Path, rebuilds: list[int]) -> None:
        paths = some_recordings(root)
        copy = root.parent / "copy"
        shutil.copytree(root, copy)
        place = root.parent / "caches"
        with ThreadPoolExecutor() as pool:
            with cache.exclusively(place):
                waiting = pool.submit(open_clips, copy, [copy / path.name for path in paths])
                time.sleep(0.5)  # it finds no cache and waits for the lock
                name = cache.build(place, "Test", root, paths, stat_signature("Test", root, paths, cache.FORMAT))
            assert waiting.result(timeout=60).folder.name == name
        assert len(rebuilds) == 1

    def test_a_renamed_recording_makes_another_cache(self, root: Path, rebuilds: list[int]) -> None:
        paths = some_recordings(root)
        open_clips(root, paths)
        open_clips(root, [paths[0].rename(root / "00.wav"), *paths[1:]])
        assert len(rebuilds) == 2

    def test_a_first_build_reads_no_file_only_to_hash_it(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def read(*_: Any) -> None:
            raise AssertionError("the recordings were read before they were packed")

        monkeypatch.setattr(cache, "hash_in_parallel", read)
        paths = some_recordings(root)
        assert_holds(first_clip(open_clips(root, paths)), paths[0])

    def test_touched_files_are_hashed_and_not_decoded_again(self, root: Path, rebuilds: list[int]) -> None:
        paths = some_recordings(root)
        open_clips(root, paths)
        paths[0].touch()
        open_clips(root, paths)
        assert len(rebuilds) == 1

    def test_a_change_at_the_end_of_a_long_recording_is_seen(self, root: Path) -> None:
        path = root / "long.wav"
        path.write_bytes(bytes(600_000))
        before = [*hash_files([path])]
        path.write_bytes(bytes(599_999) + b"\1")
        assert [*hash_files([path])] != before

    def test_recordings_that_change_while_they_are_read(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = some_recordings(root)
        pack = cache.pack

        def changing(*args: Any) -> Any:
            write(paths[0], noise(3000))
            return pack(*args)

        monkeypatch.setattr(cache, "pack", changing)
        with pytest.raises(UserError, match="were changed while they were read; start again"):
            open_clips(root, paths)
        assert caches(root) == []

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("samples.int16", None),
            ("samples.int16", slice(-2)),
            ("index.npy", None),
            ("index.npy", slice(0)),
            ("index.npy", slice(40)),
            ("index.npy", slice(-20)),
            ("index.npy", b"garbage"),
            ("names.json", None),
            ("names.json", slice(0)),
        ],
    )
    def test_a_damaged_cache_is_rebuilt(
        self, root: Path, rebuilds: list[int], file: str, content: slice | bytes | None
    ) -> None:
        paths = some_recordings(root)
        clips = open_clips(root, paths)
        expected = first_clip(clips).copy()
        damaged = clips.folder / file
        original = damaged.read_bytes()
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(original[content] if isinstance(content, slice) else content)
        np.testing.assert_array_equal(first_clip(open_clips(root, paths)), expected)
        assert len(rebuilds) == 2

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("length", [-10, 2020]),  # with the sum of those that were there
            ("length", [2**62, 1010]),
            ("loudest", [0, -1]),
            ("loudest", [1, 0]),
            ("scale", [1.0, np.inf]),
        ],
    )
    def test_a_cache_with_a_damaged_index_is_rebuilt(
        self, root: Path, rebuilds: list[int], field: str, values: list[float]
    ) -> None:
        """Or clips would be read beyond their ends, as parts of other recordings."""
        paths = some_recordings(root, count=2)
        clips = open_clips(root, paths)
        index = np.load(clips.folder / INDEX)
        assert index["length"].tolist() == [1000, 1010]
        index[field] = values
        np.save(clips.folder / INDEX, index)
        repaired = open_clips(root, paths)
        np.testing.assert_array_equal(repaired.lengths, clips.lengths)
        assert len(rebuilds) == 2

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
    def test_damaged_notes_of_signatures_are_harmless(self, root: Path, rebuilds: list[int], content: str) -> None:
        paths = some_recordings(root)
        open_clips(root, paths)
        notes = root.parent / "caches" / "signatures.json"
        notes.write_text(content)
        open_clips(root, paths)
        assert len(rebuilds) == 1
        assert list(json.loads(notes.read_text()).values()) == caches(root)


class TestPlaces:
    def test_beside_the_corpus(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "01"
        folder.mkdir(parents=True)
        write(folder / "1_01_0.wav", noise(100))
        corpus = AudioMNIST(tmp_path / "data")
        for _ in range(2):  # the cache is not taken for a speaker
            paths = [recording.path for recording in corpus.scan()]
            clips = PackedClips.open("Test", corpus.root, paths, "beside")
            assert clips.folder.parent == tmp_path / "data" / ".audio-lrp-cache"

    def test_environment_variable(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUDIO_LRP_CACHE", str(root.parent / "from-environment"))
        clips = PackedClips.open("Test", root, some_recordings(root))
        assert clips.folder.parent == root.parent / "from-environment"

    def test_user_cache_folder(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AUDIO_LRP_CACHE", raising=False)
        monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(root.parent / "user" / name))
        clips = PackedClips.open("Test", root, some_recordings(root))
        assert clips.folder.parent == root.parent / "user" / "audio-lrp"

    def test_a_folder_that_cannot_be_written_is_named(self, root: Path) -> None:
        place = root.parent / "file"
        place.touch()
        with pytest.raises(UserError) as error:
            PackedClips.open("Test", root, some_recordings(root), place / "caches")
        assert str(error.value) == (
            f"the recordings of Test cannot be packed into {place / 'caches'} (Not a directory); free space there, "
            "or choose another folder by --data.cache_dir or the variable AUDIO_LRP_CACHE"
        )

    def test_reading_needs_no_right_to_write(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = some_recordings(root)
        expected = first_clip(open_clips(root, paths))
        (root.parent / "caches" / "signatures.json").unlink()

        def refused(folder: Path) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr(cache, "exclusively", refused)
        np.testing.assert_array_equal(first_clip(open_clips(root, paths)), expected)


def build_slowly(root: Path, answers: "Queue[Any]") -> None:
    """In another process: open the cache of all recordings, half a second per build, and tell how it went."""
    pack = cache.pack

    def slow(*args: Any) -> Any:
        answers.put("building")
        args[2].write(b"half-finished work")
        args[2].flush()
        time.sleep(0.5)
        args[2].seek(0)
        return pack(*args)

    with mock.patch.object(cache, "pack", slow):
        answers.put(open_clips(root, sorted(root.glob("*.wav"))).lengths.tolist())


def build_on_full_disk(root: Path, answers: "Queue[Any]") -> None:
    """In another process: open the cache of all recordings where files cannot grow beyond 3,000 bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    try:
        open_clips(root, sorted(root.glob("*.wav")))
    except UserError as error:
        answers.put(str(error))


@pytest.fixture(scope="module")
def context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audio_lrp.data.packing.cache"])  # imports once for all processes
    return context


class TestProcesses:
    def test_of_two_that_start_at_once_one_builds(self, root: Path, context: Any) -> None:
        some_recordings(root)
        answers = context.Queue()
        processes = [context.Process(target=build_slowly, args=(root, answers)) for _ in range(2)]
        for process in processes:
            process.start()
        got = [answers.get(timeout=60) for _ in range(3)]
        for process in processes:
            process.join(timeout=60)
            assert process.exitcode == 0
        assert got == ["building", [1000, 1010, 1020, 1030, 1040], [1000, 1010, 1020, 1030, 1040]]
        assert len(caches(root)) == 1
        assert answers.empty()

    def test_a_builder_that_was_killed_leaves_nothing_behind(self, root: Path, context: Any) -> None:
        paths = some_recordings(root)
        answers = context.Queue()
        victim = context.Process(target=build_slowly, args=(root, answers))
        victim.start()
        assert answers.get(timeout=60) == "building"
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(timeout=60)
        assert victim.exitcode == -signal.SIGKILL
        (unfinished,) = caches(root)
        assert unfinished.endswith(".building")
        assert_holds(first_clip(open_clips(root, paths)), paths[0])
        (finished,) = caches(root)
        assert finished.startswith("Test-")

    def test_a_full_disk_is_said(self, root: Path, context: Any) -> None:
        paths = some_recordings(root)
        answers = context.Queue()
        process = context.Process(target=build_on_full_disk, args=(root, answers))
        process.start()
        message = answers.get(timeout=60)
        process.join(timeout=60)
        assert f"the recordings of Test cannot be packed into {root.parent / 'caches'} (File too large)" in message
        assert "--data.cache_dir" in message
        assert caches(root) == []
        assert len(open_clips(root, paths)) == 5


def test_packing_is_the_same_in_several_processes(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = some_recordings(root, 2 * BATCH + 1)
    for number in (0, BATCH, 2 * BATCH):  # one of them in each batch
        write(paths[number], noise(30_000, seed=number), 48_000)
    alone = PackedClips.open("Test", root, paths, tmp_path / "alone")
    monkeypatch.setattr("audio_lrp.utils.parallel.WORTH_PROCESSES", 1)
    monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 2)
    shared = PackedClips.open("Test", root, paths, tmp_path / "shared")
    for file in (SAMPLES, INDEX, NAMES):
        assert (shared.folder / file).read_bytes() == (alone.folder / file).read_bytes()
