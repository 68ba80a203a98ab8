"""What audio-lrp data check finds in corpora with known faults, and how exclusions are applied."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from command_line import exit_code
from matplotlib.image import imread
from numpy.typing import NDArray

from audio_lrp.data import FSDD, AudioMNIST, AudioMNISTDataModule, FSDDDataModule
from audio_lrp.data.corpora.audiomnist_metadata import metadata_faults
from audio_lrp.data.corpora.exclusions import read_exclusions, write_exclusions
from audio_lrp.data.inspection.faults import Fault, clipped_samples, find_faults, listen, listen_to_all, worth_excluding
from audio_lrp.data.packing.cache import PackedClips
from audio_lrp.data.packing.decode import UnusableRecordingError, decode_all
from audio_lrp.errors import UserError

Samples = NDArray[np.floating[Any]]


def sound(seed: int, seconds: float = 0.3, peak: float = 0.02) -> Samples:
    samples: Samples = np.random.default_rng(seed).standard_normal(round(8000 * seconds))
    return samples * float(peak / np.abs(samples).max())


def make_corpus(root: Path, repetitions: int = 3) -> Path:
    """Two speakers, nothing wrong."""
    for speaker in ("01", "02"):
        folder = root / "data" / speaker
        folder.mkdir(parents=True)
        for digit in range(10):
            for repetition in range(repetitions):
                seed = int(speaker) * 1000 + digit * 10 + repetition
                soundfile.write(folder / f"{digit}_{speaker}_{repetition}.wav", sound(seed), 8000)
    metadata = {name: {"gender": "male", "age": 30} for name in ("01", "02")}
    (root / "data" / "audioMNIST_meta.txt").write_text(json.dumps(metadata))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


def faults(root: Path) -> list[Fault]:
    corpus = AudioMNIST(root)
    return find_faults(corpus, listen_to_all(corpus.recordings))


class TestSound:
    def test_nothing_is_wrong_with_a_good_corpus(self, root: Path) -> None:
        assert faults(root) == []

    @pytest.mark.parametrize(
        ("samples", "fault", "detail"),
        [
            (sound(1, seconds=1.25), "too long", "1.25 s"),
            (np.zeros(2400), "silent", "its samples span 0 steps of 16 bit"),
            (np.full(2400, 0.3), "silent", "its samples span 0 steps of 16 bit"),
            (np.resize([0.0, 3 / 32768], 2400), "silent", "its samples span 3 steps of 16 bit"),
            (sound(1) + 0.34 * sound(1).std(), "DC offset", "the mean is 0.3"),
            (sound(1, peak=0.02 * 10**-1.5), "much quieter", "30 dB below speaker 01's median"),
            (np.clip(sound(1, peak=1) + np.repeat([0, 2, 0], 800), -1, 1 - 1 / 32768), "clipped", "samples in runs"),
        ],
    )
    def test_bad_sounds(self, root: Path, samples: Samples, fault: str, detail: str) -> None:
        soundfile.write(root / "data/01/4_01_2.wav", samples, 8000)
        found = {entry.kind: entry for entry in faults(root)}
        assert found[fault].place == "data/01/4_01_2.wav"
        assert detail in found[fault].detail
        assert set(found) == {fault} | ({"DC offset"} if fault == "clipped" else set())

    @pytest.mark.parametrize("subtype", ["PCM_U8", "ULAW", "ALAW", "PCM_24"])
    def test_clipped_in_formats_of_fewer_steps(self, root: Path, subtype: str) -> None:
        path = root / "data/01/4_01_2.wav"
        for peak, clipped in ((0.9, False), (3.0, True)):
            soundfile.write(path, np.clip(sound(1, peak=peak), -1, 1), 8000, subtype=subtype)
            heard = listen(path)
            assert not isinstance(heard, str)
            assert (heard.clipped > 0) == clipped

    def test_copies(self, root: Path) -> None:
        samples, rate = soundfile.read(root / "data/01/4_01_0.wav")
        soundfile.write(root / "data/02/5_02_1.wav", samples, rate, subtype="FLOAT")  # other bytes, the same samples
        (root / "data/02/5_02_2.wav").write_bytes((root / "data/01/4_01_0.wav").read_bytes())
        original = "the same samples as data/01/4_01_0.wav"
        places = ["data/02/5_02_1.wav", "data/02/5_02_2.wav"]
        assert faults(root) == [Fault("duplicate", place, original) for place in places]

    def test_corrupt_files(self, root: Path) -> None:
        (root / "data/01/4_01_0.wav").write_bytes(b"")
        (root / "data/01/4_01_1.wav").unlink()
        (root / "data/01/4_01_1.wav").symlink_to(root / "gone")
        found = {entry.place: entry for entry in faults(root)}
        assert found["data/01/4_01_0.wav"] == Fault("corrupt", "data/01/4_01_0.wav", "an empty file")
        assert found["data/01/4_01_1.wav"].kind == "corrupt"

    @pytest.mark.parametrize("rate", [48000, 44100, 11025, 1_000_000])
    def test_too_short_are_exactly_those_that_a_training_refuses(self, tmp_path: Path, rate: int) -> None:
        shortest = -(-rate // 16000)
        refused = []
        for length in (1, shortest - 1, shortest, shortest + 1):
            path = tmp_path / f"{length}.wav"
            soundfile.write(path, np.resize([0.1, -0.1], length), rate)
            (decoded,) = decode_all([path])
            refused.append(isinstance(decoded, UnusableRecordingError))
            heard = listen(path)
            assert isinstance(heard, str) == refused[-1]
            assert not refused[-1] or "holds no samples" in str(heard)
        assert refused[-2:] == [False, False]
        assert refused[1] or rate == 11025  # one sample is enough there

    def test_other_rates(self, root: Path) -> None:
        soundfile.write(root / "data/02/5_02_2.wav", sound(1), 16000)
        assert faults(root) == [Fault("other rate", "data/02/5_02_2.wav", "16000 Hz, most have 8000 Hz")]

    @pytest.mark.parametrize("seed", range(10))
    def test_clipped_samples_equal_a_slow_count(self, seed: int) -> None:
        samples = np.random.default_rng(seed).choice([-1, 1, 0.5], 60, p=[0.3, 0.4, 0.3]).astype(np.float32)
        runs = "".join("#" if abs(value) == 1 else " " for value in samples).split()
        assert clipped_samples(samples) == sum(len(run) for run in runs if len(run) >= 3)


class TestCompleteness:
    def test_missing_recordings_and_cells(self, root: Path) -> None:
        (root / "data/01/4_01_0.wav").unlink()
        for repetition in range(3):
            (root / f"data/02/7_02_{repetition}.wav").unlink()
        assert faults(root) == [
            Fault("missing", "speaker 01, digit 4", "1 of 3 repetitions (0)"),
            Fault("missing", "speaker 02, digit 7", "no recordings"),
        ]

    def test_metadata(self, tmp_path: Path) -> None:
        path = tmp_path / "audioMNIST_meta.txt"
        assert list(metadata_faults(path, ["01"])) == [(path.name, "is missing: no speaker's gender is known")]
        room = "recordingroom"
        metadata = {
            "01": {"gender": "male", "age": "1234", room: "VR-Room"},
            "02": {"gender": "femal", "age": "", room: "vr-room"},
            "03": {"gender": "female", "age": 30, room: "Kino"},
            "05": "male",
            "06": {"gender": "male", "age": "3²"},
        }
        path.write_text("[]")
        ((place, detail),) = metadata_faults(path, ["01"])
        assert place == path.name
        assert detail.startswith("is not a JSON object of speakers")
        path.write_text(json.dumps(metadata))
        assert list(metadata_faults(path, ["01", "02", "04", "05", "06"])) == [
            ("speaker 01", "age is 1234"),
            ("speaker 02", "gender is 'femal', neither male nor female"),
            ("speaker 03", "has metadata but no recordings"),
            ("speaker 04", "has recordings but no metadata"),
            ("speaker 05", "has no facts"),
            (room, "is spelled in 2 ways: VR-Room, vr-room"),
        ]

    def test_real_metadata_show_the_known_faults(self, shared_data: Path) -> None:
        path = shared_data / "audiomnist-sample" / "data" / "audioMNIST_meta.txt"
        found = list(metadata_faults(path, [f"{speaker:02d}" for speaker in range(1, 61)]))
        assert found[0] == ("speaker 45", "age is 1234")
        assert {place for place, _ in found[1:]} == {"accent", "recordingroom"}


class TestExclusions:
    def test_what_is_excluded_is_not_found(self, root: Path, tmp_path: Path) -> None:
        places = tmp_path / "places.yaml"
        write_exclusions(places, {"01/4_01_0.wav": "a copy", "data/02/5_02_2.wav": "hm: #1"}, "corpus")
        assert read_exclusions(places) == {"01/4_01_0.wav": "a copy", "data/02/5_02_2.wav": "hm: #1"}
        for folder in (root, root / "data"):
            names = {recording.path.name for recording in AudioMNIST(folder, exclude=places).recordings}
            assert len(names) == 58
            assert {"4_01_0.wav", "5_02_2.wav"}.isdisjoint(names)

    @pytest.mark.parametrize("place", ["./data/01/4_01_0.wav", "01//4_01_0.wav", "{root}/data/01/4_01_0.wav"])
    def test_other_ways_to_write_a_place(
        self, root: Path, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_exclusions(tmp_path / "places.yaml", {place.format(root=root): "a copy"}, "corpus")
        assert len(AudioMNIST(root, exclude=tmp_path / "places.yaml").recordings) == 59
        assert not caplog.messages

    def test_places_that_name_nothing_are_told(
        self, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        places = tmp_path / "places.yaml"
        places.write_text("01/4_01_0.wav: x\na.wav: x\n/b/01/4_01_1.wav: x\n'': x\n'01': x\n")
        assert len(AudioMNIST(root, exclude=places).recordings) == 59
        assert caplog.messages == [
            f"4 of the 5 places in the list of exclusions {places} name no recording of {root}: a.wav, "
            "/b/01/4_01_1.wav, , ...; a place is the end of a path, such as 01/0_01_0.wav"
        ]

    def test_places_are_those_of_recordings_in_any_format(self, root: Path, tmp_path: Path) -> None:
        path = root / "data/01/4_01_0.wav"
        soundfile.write(path.with_suffix(".flac"), *soundfile.read(path))
        path.unlink()
        write_exclusions(tmp_path / "places.yaml", {"01/4_01_0.wav": "a copy"}, "corpus")
        assert len(AudioMNIST(root).recordings) == 60
        assert len(AudioMNIST(root, exclude=tmp_path / "places.yaml").recordings) == 59

    def test_the_shipped_list_is_not_for_other_corpora(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert len(AudioMNIST(root, exclude="audiomnist").recordings) == 60
        (message,) = caplog.messages
        assert message.startswith("3 of the 3 places in the list of exclusions audiomnist name no recording of ")

    def test_lists_that_leave_nothing_are_refused(self, root: Path, tmp_path: Path) -> None:
        places = tmp_path / "places.yaml"
        write_exclusions(places, {path.name: "x" for path in root.rglob("*.wav")}, "corpus")
        with pytest.raises(UserError) as error:
            AudioMNISTDataModule(str(root), exclude=str(places)).prepare_data()
        assert str(error.value) == (
            f"the list of exclusions {places} excludes all 60 recordings of {root}; take some out of it, or do without "
            "it"
        )

    @pytest.mark.parametrize(("kind", "name"), [(AudioMNIST, "data/01/take2.wav"), (FSDD, "recordings/take2.wav")])
    def test_misnamed_files_can_be_left_out(
        self, tmp_path: Path, kind: type[AudioMNIST] | type[FSDD], name: str
    ) -> None:
        good = (tmp_path / name).with_name("3_01_0.wav")
        good.parent.mkdir(parents=True)
        good.touch()
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=r"take2\.wav: its name does not tell its labels"):
            kind(tmp_path).scan()
        write_exclusions(tmp_path / "places.yaml", {name: "misnamed"}, "corpus")
        assert [item.path for item in kind(tmp_path, exclude=tmp_path / "places.yaml").recordings] == [good]

    def test_places_are_whole_names(self, root: Path, tmp_path: Path) -> None:
        places = tmp_path / "places.yaml"
        places.write_text("_01_0.wav: the end of a name\n03/4_01_0.wav: another folder\n")
        assert len(AudioMNIST(root, exclude=places).recordings) == 60

    def test_other_corpora_and_data_modules(self, tmp_path: Path) -> None:
        for name in ("1_a_0.wav", "2_a_0.wav"):
            soundfile.write(tmp_path / name, sound(1), 8000)
        places = tmp_path / "places.yaml"
        places.write_text("1_a_0.wav: why not")
        assert len(FSDD(tmp_path, exclude=places).recordings) == 1
        assert len(FSDDDataModule(str(tmp_path), exclude=str(places)).corpus.recordings) == 1
        (tmp_path / "36").mkdir()
        for name in ("3_36_19.wav", "3_36_20.wav"):
            soundfile.write(tmp_path / "36" / name, sound(1), 8000)
        shipped = AudioMNISTDataModule(str(tmp_path), exclude="audiomnist").corpus.recordings
        assert [recording.path.name for recording in shipped] == ["3_36_19.wav"]

    def test_the_shipped_list(self) -> None:
        assert set(read_exclusions("audiomnist")) == {"36/3_36_20.wav", "36/3_36_29.wav", "19/0_19_22.wav"}

    def test_only_useless_recordings_are_proposed(self) -> None:
        found = [Fault("too long", "a", "2 s"), Fault("duplicate", "b", "the same samples as a")]
        assert worth_excluding(found) == {"b": "duplicate: the same samples as a"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "cannot be read (No such file or directory); give a YAML file, or one of the shipped"),
            (b"- a\n- b", "is no list of exclusions: each line must be 'place: reason'"),
            (b"1: one", "is no list of exclusions"),
            (b"{", "is not valid YAML"),
            (b"\xff\xfe\xff", "is not valid YAML"),
        ],
    )
    def test_bad_lists_are_refused(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / "list.yaml").write_bytes(content)
        with pytest.raises(UserError) as error:
            read_exclusions(tmp_path / "list.yaml")
        assert message in str(error.value)

    def test_a_reason_that_is_no_date(self, tmp_path: Path) -> None:
        (tmp_path / "list.yaml").write_text("01/1_01_0.wav: 2024-02-30")
        with pytest.raises(UserError, match=r"list\.yaml is not valid YAML: day is out of range for month"):
            read_exclusions(tmp_path / "list.yaml")

    def test_an_empty_list_excludes_nothing(self, tmp_path: Path) -> None:
        write_exclusions(tmp_path / "list.yaml", {}, "corpus")
        assert read_exclusions(tmp_path / "list.yaml") == {}


class TestCommand:
    def test_report(self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (root / "data/01/4_01_0.wav").write_bytes(b"")
        soundfile.write(root / "data/01/4_01_1.wav", sound(1, seconds=1.25), 8000)
        output = tmp_path / "report"
        assert exit_code("data", "check", str(root), f"--output={output}") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{root}: 60 recordings of 2 speakers, 0.01 hours, 0.30 to 1.25 s, 8000 Hz")
        assert lines[2].split(maxsplit=2) == ["corrupt", "1", "data/01/4_01_0.wav: an empty file"]
        assert lines[3].split() == ["too", "long", "1", "data/01/4_01_1.wav:", "1.25", "s"]
        with (output / "faults.csv").open() as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["fault", "place", "detail"]
        assert Counter(row[0] for row in rows[1:]) == {"corrupt": 1, "too long": 1}
        assert yaml.safe_load((output / "exclude.yaml").read_text()) == {"data/01/4_01_0.wav": "corrupt: an empty file"}
        assert imread(output / "corpus.png").shape[1] == 1200
        assert {path.name for path in output.iterdir()} == {"faults.csv", "exclude.yaml", "corpus.png"}

    def test_other_formats_are_read_or_counted(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for path in root.glob("data/*/*.wav"):
            soundfile.write(path.with_suffix(".flac"), *soundfile.read(path))
            path.unlink()
        (root / "data/01/1_01_9.m4a").touch()
        (root / "data/02/1_02_9.wma").touch()
        assert exit_code("data", "check", str(root), f"--output={tmp_path / 'report'}") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{root}: 60 recordings of 2 speakers")
        assert lines[2].split()[:3] == ["left", "out", "2"]
        assert "in a format that cannot be read (convert to WAV or FLAC)" in lines[2]

    def test_its_own_list_mends_what_it_found(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (root / "data/01/4_01_0.wav").rename(root / "data/01/take2.wav")
        (root / "data/01/5_01_0.wav").rename(root / "data/01/5_02_7.wav")
        soundfile.write(root / "data/02/4_02_0.wav", np.array([0.1, -0.1]), 48000)
        output = tmp_path / "report"
        assert exit_code("data", "check", str(root), f"--output={output}") == 0
        assert yaml.safe_load((output / "exclude.yaml").read_text()) == {
            "data/01/5_02_7.wav": "misnamed: a file of speaker 02",
            "data/01/take2.wav": "misnamed: its name does not tell its labels",
            "data/02/4_02_0.wav": "corrupt: holds no samples at 8000 Hz: its 2 at 48000 Hz are too short",
        }
        kept = [recording.path for recording in AudioMNIST(root, exclude=output / "exclude.yaml").recordings]
        PackedClips.open("AudioMNIST", root, kept, cache_dir=tmp_path / "cache")  # as a training begins
        again = ["data", "check", str(root), f"--output={tmp_path / 'again'}", f"--exclude={output / 'exclude.yaml'}"]
        assert exit_code(*again) == 0
        second = capsys.readouterr().out.rpartition("57 recordings of 2 speakers")[2]
        assert second
        assert "corrupt" not in second
        assert "misnamed" not in second

    def test_broken_metadata_do_not_keep_the_rest_from_being_checked(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (root / "data/01/4_01_0.wav").write_bytes(b"")
        (root / "data/audioMNIST_meta.txt").write_text("{")
        assert exit_code("data", "check", str(root), f"--output={tmp_path / 'report'}") == 0
        rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        assert ["corrupt", "1", "data/01/4_01_0.wav: an empty file"] in rows
        (metadata,) = (row for row in rows if row[0] == "metadata")
        assert metadata[1] == "1"
        assert metadata[2].startswith("audioMNIST_meta.txt: is not readable JSON")

    def test_names_that_look_like_formulas(self, tmp_path: Path) -> None:
        folder = tmp_path / "$odd_{$"
        for speaker in ("a$b_{$", "plain"):
            (folder / "recordings").mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / "recordings" / f"1_{speaker}_0.wav", sound(len(speaker)), 8000)
        assert exit_code("data", "check", str(folder), f"--output={tmp_path / 'report'}") == 0
        assert imread(tmp_path / "report" / "corpus.png").shape[1] == 1200

    def test_names_in_an_old_encoding(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / "recordings"
        folder.mkdir()
        soundfile.write(folder / "1_jose_0.wav", sound(1), 8000)
        (folder / "1_jose_0.wav").rename(os.fsdecode(os.fsencode(folder) + b"/1_jos\xe9_0.wav"))
        assert exit_code("data", "check", str(tmp_path), f"--output={tmp_path / 'report'}") == 1
        expected = rf"audio-lrp: error: the name '{folder}/1_jos\xe9_0.wav' is not in UTF-8; rename the file or folder"
        assert capsys.readouterr().err.splitlines()[-1] == expected
        assert exit_code("fit", "--config=audionet_digit", f"--data.root={os.fsdecode(b'jos' + bytes([0xE9]))}") == 1
        assert r"the name '--data.root=jos\xe9' is not in UTF-8" in capsys.readouterr().err

    @pytest.mark.slow
    def test_a_users_settings_of_matplotlib(self, root: Path, tmp_path: Path) -> None:
        """A notebook's backend that is missing here, LaTeX that may be, and another look."""
        (tmp_path / "own").write_text("text.usetex: True\nfont.size: 30\naxes.facecolor: red\n")
        theirs = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path / "own")}
        pictures = []
        for settings in ({}, theirs):
            output = tmp_path / f"report-{len(settings)}"
            command = [sys.executable, "-m", "audio_lrp", "data", "check", str(root), f"--output={output}"]
            ended = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            pictures.append((output / "corpus.png").read_bytes())
        assert pictures[0] == pictures[1]

    def test_the_users_own_folder(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert exit_code("data", "check", f"~/{root.name}", "--output=~/report") == 0
        assert (tmp_path / "report" / "corpus.png").is_file()
        assert exit_code("data", "download", "audiomnist", f"--root=~/{root.name}") == 0
        assert f"{root}: 60 recordings of 2 speakers, which were there already" in capsys.readouterr().out
        assert exit_code("report", "~/nothing") == 1
        assert f"there is no folder {tmp_path / 'nothing'}:" in capsys.readouterr().err
        assert exit_code("data", "check", "") == 2
        assert "FOLDER: expected a file or folder, got ''" in capsys.readouterr().err
        assert exit_code("data", "check", "~nobody-of-this-name/corpus") == 2
        assert "FOLDER: there is no such user's folder: '~nobody-of-this-name/corpus'" in capsys.readouterr().err

    def test_a_name_that_no_folder_can_have(self, capsys: pytest.CaptureFixture[str]) -> None:
        name = "long" * 100
        assert exit_code("data", "check", name) == 1
        assert capsys.readouterr().err == (f"audio-lrp: error: {name}: File name too long; give another place\n")

    def test_a_corpus_of_misnamed_files_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "data/01").mkdir(parents=True)
        (tmp_path / "data/01/take2.wav").touch()
        assert exit_code("data", "check", str(tmp_path), f"--output={tmp_path / 'report'}") == 1
        assert "take2.wav: its name does not tell its labels; files in" in capsys.readouterr().err
        assert not (tmp_path / "report").exists()

    def test_exclusions_are_checked(self, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        command = [sys.executable, "-m", "audio_lrp", "data", "check", str(root), f"--output={tmp_path / 'report'}"]
        places = tmp_path / "places.yaml"
        places.write_text("nonsense.wav: x\n")
        assert subprocess.run([*command, f"--exclude={places}"], check=False).returncode == 0
        assert f"1 of the 1 places in the list of exclusions {places} name no recording" in capfd.readouterr().err
        write_exclusions(places, {path.name: "x" for path in root.rglob("*.wav")}, "corpus")
        assert exit_code("data", "check", str(root), f"--exclude={places}", f"--output={tmp_path / 'other'}") == 1
        assert f"audio-lrp: error: the list of exclusions {places} excludes all 60" in capfd.readouterr().err
        assert not (tmp_path / "other").exists()

    def test_known_faults_of_audiomnist(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        silent = tmp_path / "silent.wav"
        soundfile.write(silent, np.zeros(10), 48000)
        for speaker in range(1, 61):
            folder = tmp_path / "data" / f"{speaker:02d}"
            folder.mkdir(parents=True)
            for name in {"36": ["3_36_20"], "19": ["0_19_22"]}.get(folder.name, [f"0_{folder.name}_0"]):
                (folder / f"{name}.wav").write_bytes(silent.read_bytes())
        assert exit_code("data", "check", str(tmp_path), f"--output={tmp_path / 'report'}") == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("known fault"))
        assert line.split(maxsplit=3)[2:] == ["2", "data/19/0_19_22.wav: reported to be a spoken three"]

    def test_nothing_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert exit_code("data", "check", str(tmp_path / "nowhere")) == 1
        assert "nowhere: give the folder of a corpus" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["digits-en", "fsdd", "audiomnist-sample"])
    def test_real_corpora(
        self, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        assert exit_code("data", "check", str(shared_data / name), f"--output={tmp_path}") == 0
        output = capsys.readouterr().out
        assert not {"corrupt", "duplicate", "silent", "clipped", "other rate"} & set(output.split())
        assert ("too long" in output) == (name != "audiomnist-sample")
