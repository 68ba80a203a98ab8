"""The synthetic corpus: the same bytes always, speech that differs as it should, and a folder that survives mishaps."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import stft

from audio_lrp.data.corpora import synthetic
from audio_lrp.data.corpora.corpus import Recording
from audio_lrp.data.corpora.espeak import SAMPLE_RATE, Voice, initialize, installation, load_private_copy, version
from audio_lrp.data.corpora.synthetic import (
    ACCENTS,
    MAX_SPEAKERS,
    VARIANTS,
    WORDS,
    SyntheticDigits,
    describe,
    draw_speakers,
    speak_digits,
)
from audio_lrp.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDigits:
    corpus = SyntheticDigits(tmp_path_factory.mktemp("synthetic") / "corpus", repetitions=5)
    corpus.prepare()
    return corpus


@pytest.fixture(scope="module")
def clips(corpus: SyntheticDigits) -> list[tuple[Recording, NDArray[np.float64]]]:
    return [(recording, soundfile.read(recording.path)[0]) for recording in corpus.recordings]


def contents(root: Path) -> dict[str, str]:
    """Hash of every visible file by its path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def fundamental_frequency(samples: NDArray[np.float64]) -> float:
    """Median over voiced frames of 1024 samples: highest peak of the normalised autocorrelation, 60 to 400 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256] * np.hanning(1024)
    frames = frames[np.square(frames).sum(1) > 0.1 * np.square(frames).sum(1).max()]
    power = np.abs(np.fft.rfft(frames, 2048)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(1024), 2048)) ** 2)
    correlation = np.fft.irfft(power)[:, : SAMPLE_RATE // 60] / window[: SAMPLE_RATE // 60]
    lags = correlation[:, SAMPLE_RATE // 400 :].argmax(1) + SAMPLE_RATE // 400
    voiced = correlation[np.arange(len(lags)), lags] > 0.6 * correlation[:, 0]
    return float(SAMPLE_RATE / np.median(lags[voiced]))


def spectral_shape(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log power in 24 bands of equal ratio and 12 equal parts of the clip, mean removed [288]."""
    _, _, spectrum = stft(samples, nperseg=512, noverlap=384)
    edges = np.geomspace(5, 256, 25).astype(int)
    bands = np.log(np.add.reduceat(np.abs(spectrum) ** 2, edges[:-1], axis=0) + 1e-9)
    parts = np.array([part.mean(1) for part in np.array_split(bands, 12, axis=1)])
    shape: NDArray[np.float64] = (parts - parts.mean()).ravel()
    return shape


class TestDeterminism:
    def test_another_process_and_locale_give_the_same_bytes(self, tmp_path: Path) -> None:
        SyntheticDigits(tmp_path / "here", speakers=2, repetitions=2, seed=3).prepare()
        program = (
            "import sys; from audio_lrp.data.corpora.synthetic import SyntheticDigits; "
            "SyntheticDigits(sys.argv[1], speakers=2, repetitions=2, seed=3).prepare()"
        )
        environment = os.environ | {"LC_ALL": "C", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True, env=environment)
        assert len(contents(tmp_path / "here")) == 2 * 2 * 10 + 2
        assert contents(tmp_path / "here") == contents(tmp_path / "there")

    def test_what_was_spoken_before_and_meanwhile_does_not_matter(self) -> None:
        speakers = draw_speakers(6, seed=0)

        def speak(number: int) -> list[bytes]:
            return [samples.tobytes() for *_, samples in speak_digits(speakers[number], repetitions=2, seed=0)]

        forwards = [speak(number) for number in range(6)]
        backwards = [speak(number) for number in reversed(range(6))]
        with ThreadPoolExecutor(6) as pool:
            at_once = list(pool.map(speak, range(6)))
        assert forwards == backwards[::-1] == at_once

    def test_interleaved_voices_do_not_disturb_each_other(self) -> None:
        def say(voice: Voice, word: str) -> bytes:
            return voice.speak(word, rate=140, pitch=50, pitch_range=50).tobytes()

        with Voice("en", "f5") as voice:
            alone = [say(voice, word) for word in WORDS]
        with Voice("en", "f5") as voice, Voice("en-us", "adam") as other:
            interleaved = [(say(voice, word), say(other, word + "!"))[0] for word in WORDS]
        assert alone == interleaved

    def test_more_speakers_and_repetitions_leave_the_others_alone(
        self, corpus: SyntheticDigits, tmp_path: Path
    ) -> None:
        fewer = SyntheticDigits(tmp_path / "fewer", speakers=3, repetitions=2)
        fewer.prepare()
        few, many = contents(fewer.root), contents(corpus.root)
        assert all(many[path] == digest for path, digest in few.items() if path.endswith(".wav"))

    def test_the_seed_changes_every_recording(self, corpus: SyntheticDigits, tmp_path: Path) -> None:
        other = SyntheticDigits(tmp_path / "other", speakers=2, repetitions=1, seed=1)
        other.prepare()
        assert not set(contents(corpus.root).values()) & set(contents(other.root).values())

    def test_the_process_keeps_its_locale(self) -> None:
        import locale

        before = locale.setlocale(locale.LC_CTYPE)
        locale.setlocale(locale.LC_CTYPE, "C")
        try:
            with Voice("en", "m6"):
                assert locale.setlocale(locale.LC_CTYPE) == "C"
        finally:
            locale.setlocale(locale.LC_CTYPE, before)


class TestSpeakers:
    def test_all_that_can_be_had_are_distinct_and_balanced(self) -> None:
        speakers = draw_speakers(MAX_SPEAKERS, seed=0)
        assert len({(speaker.accent, speaker.variant) for speaker in speakers}) == MAX_SPEAKERS == 224
        assert [speaker.gender for speaker in speakers] == ["female", "male"] * (MAX_SPEAKERS // 2)
        assert all(speaker.variant in VARIANTS[speaker.gender].split() for speaker in speakers)

    def test_no_variant_twice_among_the_default_speakers(self) -> None:
        assert len({speaker.variant for speaker in draw_speakers(12, seed=0)}) == 12

    def test_espeak_has_every_voice_and_they_sound_different(self) -> None:
        voices = [
            (list(ACCENTS)[i % len(ACCENTS)], variant)
            for names in VARIANTS.values()
            for i, variant in enumerate(names.split())
        ]
        spoken = set()
        for accent, variant in [*voices, *((accent, "f2") for accent in ACCENTS)]:
            with Voice(accent, variant) as voice:
                spoken.add(b"".join(voice.speak(word, rate=150, pitch=50, pitch_range=50).tobytes() for word in WORDS))
        assert len(spoken) == len({*voices, *((accent, "f2") for accent in ACCENTS)})

    def test_metadata_have_the_keys_of_audiomnist(self, corpus: SyntheticDigits) -> None:
        metadata = json.loads((corpus.root / "data" / "audioMNIST_meta.txt").read_text())
        assert metadata == describe(draw_speakers(12, seed=0))
        keys = {"accent", "age", "gender", "native speaker", "origin", "recordingdate", "recordingroom"}
        assert all(keys <= facts.keys() for facts in metadata.values())


class TestRecordings:
    def test_labels(self, corpus: SyntheticDigits) -> None:
        assert len(corpus.recordings) == 12 * 10 * 5
        assert {(r.speaker, r.digit, r.repetition) for r in corpus.recordings} == {
            (f"{speaker:02d}", digit, repetition)
            for speaker in range(1, 13)
            for digit in range(10)
            for repetition in range(5)
        }
        genders = {recording.speaker: recording.gender for recording in corpus.recordings}
        assert genders == {speaker.name: speaker.gender for speaker in draw_speakers(12, seed=0)}
        assert corpus.published_folds("digit") is None

    def test_format_level_and_duration(self, clips: list[tuple[Recording, NDArray[np.float64]]]) -> None:
        info = soundfile.info(clips[0][0].path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        durations = np.array([len(samples) / SAMPLE_RATE for _, samples in clips])
        assert durations.min() > 0.2
        assert durations.max() < 1.0
        assert 0.4 < np.median(durations) < 0.7
        peaks = np.array([np.abs(samples).max() for _, samples in clips])
        assert peaks.min() > 0.9 * 10 ** (-25 / 20)
        assert peaks.max() < 1.1 * 10 ** (-3 / 20)

    def test_slowest_and_fastest_voices_stay_below_a_second(self) -> None:
        margins = 2 * synthetic.MAX_MARGIN
        for variant in ("linda", "f2", "Andrea", "Alex"):
            for accent in ACCENTS:
                with Voice(accent, variant) as voice:
                    lengths = [
                        len(voice.speak(word + ".", rate=rate, pitch=50, pitch_range=50))
                        for word in WORDS
                        for rate in (round(125 * 0.94), round(160 * 1.06))
                    ]
                assert min(lengths) > 0.15 * SAMPLE_RATE
                assert max(lengths) + margins < SAMPLE_RATE

    def test_speech_lies_inside_the_clip(self, clips: list[tuple[Recording, NDArray[np.float64]]]) -> None:
        for recording, samples in clips:
            audible = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
            assert audible[0] < 0.15 * SAMPLE_RATE, recording
            assert len(samples) - audible[-1] < 0.25 * SAMPLE_RATE, recording
            assert np.abs(samples.mean()) < 0.02 * np.abs(samples).max(), recording  # no offset

    def test_no_two_recordings_are_alike(self, clips: list[tuple[Recording, NDArray[np.float64]]]) -> None:
        groups = defaultdict(list)
        for recording, samples in clips:
            groups[recording.speaker, recording.digit].append(samples)
        for repetitions in groups.values():
            assert len({samples.tobytes() for samples in repetitions}) == 5
            assert len({len(samples) for samples in repetitions}) > 1  # speed and margins vary, not just the noise

    def test_pitch_tells_the_gender(self, clips: list[tuple[Recording, NDArray[np.float64]]]) -> None:
        pitches = defaultdict(list)
        for recording, samples in clips:
            pitches[recording.gender, recording.speaker].append(fundamental_frequency(samples))
        female = [np.median(values) for (gender, _), values in pitches.items() if gender == "female"]
        male = [np.median(values) for (gender, _), values in pitches.items() if gender == "male"]
        assert len(female) == len(male) == 6
        assert min(female) > 140
        assert max(male) < 125
        assert min(male) > 60
        assert max(female) < 300

    def test_digits_differ(self, clips: list[tuple[Recording, NDArray[np.float64]]]) -> None:
        features = np.array([spectral_shape(samples) for _, samples in clips])
        digits = np.array([recording.digit for recording, _ in clips])
        held_out = np.array([recording.repetition == 4 for recording, _ in clips])
        centroids = np.array([features[~held_out & (digits == digit)].mean(0) for digit in range(10)])
        distances = np.linalg.norm(features[held_out, None] - centroids, axis=-1)
        accuracy = (distances.argmin(1) == digits[held_out]).mean()
        assert accuracy > 0.7  # chance is 0.1


class TestFolder:
    def test_generated_once(self, corpus: SyntheticDigits, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SyntheticDigits, "_generate", lambda self: pytest.fail("generated again"))
        SyntheticDigits(corpus.root, repetitions=5).prepare()

    def test_two_at_once_generate_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        generated = []
        generate = SyntheticDigits._generate

        def counting(self: SyntheticDigits) -> None:
            generated.append(self)
            generate(self)

        monkeypatch.setattr(SyntheticDigits, "_generate", counting)
        corpora = [SyntheticDigits(tmp_path / "corpus", speakers=2, repetitions=2) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(SyntheticDigits.prepare, corpora))
        assert len(generated) == 1
        assert all(len(corpus.recordings) == 40 for corpus in corpora)

    def test_default_folder_depends_on_the_arguments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path))
        corpora = [
            SyntheticDigits(),
            SyntheticDigits(seed=1),
            SyntheticDigits(speakers=3),
            SyntheticDigits(repetitions=1),
        ]
        assert {corpus.root.parent for corpus in corpora} == {tmp_path}
        assert all(corpus.root.name.startswith("synthetic-") for corpus in corpora)
        assert len({corpus.root for corpus in corpora}) == 4
        assert SyntheticDigits().root == corpora[0].root

    def test_leftovers_of_a_killed_process_are_removed(self, tmp_path: Path) -> None:
        (tmp_path / ".partial" / "01").mkdir(parents=True)
        (tmp_path / ".partial" / "01" / "0_01_0.wav").write_bytes(b"half a rec")
        corpus = SyntheticDigits(tmp_path, speakers=2, repetitions=1)
        corpus.prepare()
        assert len(corpus.recordings) == 20
        assert not (tmp_path / ".partial").exists()

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        corpus = SyntheticDigits(tmp_path / "corpus", speakers=2, repetitions=1)
        with monkeypatch.context() as patch:

            def fail(path: Path, samples: NDArray[np.int16]) -> None:
                if path.name.startswith("5"):
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                path.touch()

            patch.setattr(synthetic, "write_wav", fail)
            with pytest.raises(UserError, match=r"cannot be written to .*No space left on device"):
                corpus.prepare()
        assert contents(corpus.root) == {}
        assert not (corpus.root / ".partial").exists()
        corpus.prepare()
        assert len(corpus.recordings) == 20

    def test_interruption_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        corpus = SyntheticDigits(tmp_path / "corpus", speakers=2, repetitions=1)

        def interrupt(path: Path, samples: NDArray[np.int16]) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(synthetic, "write_wav", interrupt)
        with pytest.raises(KeyboardInterrupt):
            corpus.prepare()
        assert [path.name for path in corpus.root.iterdir() if path.name != ".lock"] == []

    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(
                UserError,
                match=r"cannot be written to .*choose another folder with --data\.root or the variable AUDIO_LRP_CACHE",
            ):
                SyntheticDigits(root).prepare()

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(UserError, match="holds something else than synthetic digits"):
            SyntheticDigits(tmp_path).prepare()
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_other_synthetic_digits_are_left_alone(self, corpus: SyntheticDigits) -> None:
        before = contents(corpus.root)
        with pytest.raises(UserError, match=r'"repetitions": 5.*not.*"repetitions": 6'):
            SyntheticDigits(corpus.root, repetitions=6).prepare()
        assert contents(corpus.root) == before

    def test_reading_before_preparing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no synthetic digits have been generated in .*prepare\(\)"):
            SyntheticDigits(tmp_path).scan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speakers": 1}, "speakers = 1: it must be between 2 and 224"),
        ({"speakers": 225}, "speakers = 225: it must be between 2 and 224"),
        ({"repetitions": 0}, "repetitions = 0: it must be between 1 and 1000"),
        ({"repetitions": 1001}, "repetitions = 1001: it must be between 1 and 1000"),
        ({"seed": -1}, "seed = -1: it must be at least 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SyntheticDigits(None, **arguments)


class TestInstallation:
    def test_missing_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        version.cache_clear()
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
        with pytest.raises(UserError, match=r"pip install 'audio-lrp\[demo\]'"):
            SyntheticDigits()
        with pytest.raises(UserError, match=r"pip install 'audio-lrp\[demo\]'"):
            SyntheticDigits(tmp_path / "corpus").prepare()
        assert not (tmp_path / "corpus").exists()

    def test_library_that_cannot_be_loaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import espeakng_loader

        broken = tmp_path / "libespeak-ng.so"
        broken.write_bytes(b"not a library")
        version.cache_clear()
        monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
        with pytest.raises(UserError, match="espeak-ng cannot be loaded"):
            SyntheticDigits()
        with pytest.raises(UserError, match="TMPDIR"):
            Voice("en", "f1")

    def test_missing_voices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import espeakng_loader

        def missing() -> str:
            raise RuntimeError("data path not exists")

        monkeypatch.setattr(espeakng_loader, "get_data_path", missing)
        with pytest.raises(UserError, match=r"espeak-ng is damaged \(data path not exists\): "):
            installation()

    def test_a_voice_that_fails_is_not_taken_for_silence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Voice("en", "f1") as voice:
            monkeypatch.setattr(voice._library, "espeak_Synth", lambda *_: 2)
            with pytest.raises(RuntimeError, match="espeak-ng could not speak 'one': status 2"):
                voice.speak("one", rate=150, pitch=50, pitch_range=50)

    def test_voices_that_cannot_be_read(self, tmp_path: Path) -> None:
        library, _ = installation()
        with pytest.raises(UserError, match="cannot read its voices"):
            initialize(load_private_copy(library), tmp_path)

    @pytest.mark.parametrize(("accent", "variant"), [("en", "nobody"), ("xx-nowhere", "f1")])
    def test_unknown_voice(self, accent: str, variant: str) -> None:
        with pytest.raises(UserError, match=r"espeak-ng 1\..* has no voice"):
            Voice(accent, variant)
