"""AudioMNIST and FSDD: what is found in their folders, and what is said about what is not there."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.corpus import Recording
from audio_lrp.data.corpora.formats import SUFFIXES
from audio_lrp.data.corpora.fsdd import FSDD
from audio_lrp.data.corpora.layout import corpus_class
from audio_lrp.data.corpora.listing import ELSEWHERE, FORMAT, HIDDEN, NAMELESS, NO_FILE, TWIN, Listing
from audio_lrp.errors import UserError

FEMALE = {"12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"}

# The published folds, written down as train / validate / test groups.
DIGIT_GROUPS = {
    "A": [26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51],
    "B": [28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53],
    "C": [36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54],
    "D": [43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55],
    "E": [12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44, 50],
}
DIGIT_FOLDS = [("BCD", "E", "A"), ("CDE", "A", "B"), ("DEA", "B", "C"), ("EAB", "C", "D"), ("ABC", "D", "E")]
GENDER_GROUPS = {
    "1": [36, 47, 56, 2, 44, 50],
    "2": [26, 12, 57, 25, 37, 45],
    "3": [43, 28, 52, 48, 53, 41],
    "4": [58, 59, 60, 7, 23, 38],
}
GENDER_FOLDS = [("12", "3", "4"), ("23", "4", "1"), ("34", "1", "2"), ("41", "2", "3")]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def make_audiomnist(root: Path, speakers: list[int]) -> Path:
    for speaker in speakers:
        touch(root / "data" / f"{speaker:02d}" / f"{speaker % 10}_{speaker:02d}_0.wav")
    metadata = {f"{s:02d}": {"age": "1234", "gender": "female" if f"{s:02d}" in FEMALE else "male"} for s in speakers}
    (root / "data" / "audioMNIST_meta.txt").write_text(json.dumps(metadata))
    return root


def genders(corpus: AudioMNIST) -> dict[str, str | None]:
    return {recording.speaker: recording.gender for recording in corpus.recordings}


class TestAudioMNIST:
    def test_labels_come_from_names_and_metadata(self, tmp_path: Path) -> None:
        make_audiomnist(tmp_path, [1, 26])
        data = tmp_path / "data"
        touch(data / "26" / "0_26_49.WAV")
        expected = (
            Recording(data / "01" / "1_01_0.wav", 1, "01", "male", 0),
            Recording(data / "26" / "0_26_49.WAV", 0, "26", "female", 49),
            Recording(data / "26" / "6_26_0.wav", 6, "26", "female", 0),
        )
        assert AudioMNIST(tmp_path).recordings == expected
        assert AudioMNIST(data).recordings == expected

    def test_hidden_and_other_files_are_ignored(self, tmp_path: Path) -> None:
        make_audiomnist(tmp_path, [1])
        for name in (".DS_Store", "01/._1_01_0.wav", "01/notes.txt", ".audio-lrp-cache/x.wav", "empty/readme.md"):
            touch(tmp_path / "data" / name)
        assert [recording.path.name for recording in AudioMNIST(tmp_path).recordings] == ["1_01_0.wav"]

    def test_pipes_are_ignored(self, tmp_path: Path) -> None:
        """To read one would mean to wait for who writes to it."""
        touch(tmp_path / "data" / "01" / "3_01_0.wav")
        os.mkfifo(tmp_path / "data" / "01" / "4_01_0.wav")
        assert [recording.digit for recording in AudioMNIST(tmp_path).scan()] == [3]

    def test_links_to_folders_and_files_are_followed(self, tmp_path: Path) -> None:
        make_audiomnist(tmp_path / "elsewhere", [1, 2])
        data = tmp_path / "corpus" / "data"
        (data / "02").mkdir(parents=True)
        (data / "01").symlink_to(tmp_path / "elsewhere" / "data" / "01")
        (data / "02" / "2_02_0.wav").symlink_to(tmp_path / "elsewhere" / "data" / "02" / "2_02_0.wav")
        assert [recording.speaker for recording in AudioMNIST(tmp_path / "corpus").recordings] == ["01", "02"]

    def test_what_is_not_taken_is_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        data = make_audiomnist(tmp_path, [1]) / "data"
        for name in ("1_01_1.FLAC", "1_01_2.opus", "1_01_3.aif", "1_01_0.flac", "1_01_2.mp3", "._1_01_0.wav"):
            touch(data / "01" / name)
        for name in (
            "01/1_01_4.m4a",
            "01/1_01_5.raw",
            "01/notes.txt",
            "01/.DS_Store",
            "01/old/take/1_01_6.wav",
            ".old/01/1_01_6.ogg",
            "1_01_7.wav",
        ):
            touch(data / name)
        (data / "01" / "1_01_8").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
        os.mkfifo(data / "01" / "2_01_0.wav")
        corpus = AudioMNIST(tmp_path)
        assert [recording.path.name for recording in corpus.recordings] == [
            *("1_01_0.wav", "1_01_1.FLAC", "1_01_2.opus", "1_01_3.aif"),
        ]
        assert {path.relative_to(data).as_posix(): reason for path, reason in corpus.left_out.items()} == {
            "01/._1_01_0.wav": HIDDEN,
            "01/1_01_0.flac": TWIN,
            "01/1_01_2.mp3": TWIN,
            "01/1_01_4.m4a": FORMAT,
            "01/1_01_5.raw": FORMAT,
            "01/2_01_0.wav": NO_FILE,
            "01/1_01_8": NAMELESS,
            "01/old/take/1_01_6.wav": ELSEWHERE,
            ".old/01/1_01_6.ogg": HIDDEN,
            "1_01_7.wav": ELSEWHERE,
        }
        (message,) = caplog.messages
        assert message.startswith(f"AudioMNIST at {tmp_path} is read without ")
        assert "2 files in a format that cannot be read (convert to WAV or FLAC), such as 01/1_01_" in message
        assert "2 files with a hidden name or in a hidden folder, such as" in message

    def test_a_corpus_that_cannot_be_read_is_told_what_to_do(self, tmp_path: Path) -> None:
        touch(tmp_path / "data" / "01" / "1_01_0.m4a")
        with pytest.raises(UserError, match=r"holds no recordings but 1 file in a format .*convert to WAV or FLAC"):
            AudioMNIST(tmp_path).scan()

    def test_speakers_without_metadata_have_no_gender(self, tmp_path: Path) -> None:
        make_audiomnist(tmp_path, [1, 2, 3, 4, 5])
        metadata = {"01": {"gender": "male"}, "03": {"gender": "unknown"}, "04": {}, "05": "female"}
        (tmp_path / "data" / "audioMNIST_meta.txt").write_text(json.dumps(metadata))
        assert genders(AudioMNIST(tmp_path)) == {"01": "male", "02": None, "03": None, "04": None, "05": None}

    def test_missing_metadata_leave_all_genders_open(self, tmp_path: Path) -> None:
        make_audiomnist(tmp_path, [1, 2])
        (tmp_path / "data" / "audioMNIST_meta.txt").unlink()
        assert genders(AudioMNIST(tmp_path)) == {"01": None, "02": None}

    @pytest.mark.parametrize("content", [b"gender: male", b"\xff\xfe\x00", b"", b"[" * 100_000, b'["01"]'])
    def test_metadata_that_are_no_json_object_are_refused(self, tmp_path: Path, content: bytes) -> None:
        path = make_audiomnist(tmp_path, [1]) / "data" / "audioMNIST_meta.txt"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"^{path} is not .*JSON.*restore it"):
            AudioMNIST(tmp_path).scan()

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("01/one_01_0.wav", "its name does not tell its labels"),
            ("01/1_01.wav", "its name does not tell its labels"),
            ("01/11_01_0.wav", "its name does not tell its labels"),
            ("01/1_1_0.wav", "its name does not tell its labels"),
            ("01/1_02_0.wav", "a file of speaker 02"),
            ("bob/1_bob_0.wav", "its name does not tell its labels"),
        ],
    )
    def test_names_that_do_not_fit_are_refused(self, tmp_path: Path, name: str, problem: str) -> None:
        data = make_audiomnist(tmp_path, [1]) / "data"
        touch(data / name)
        speaker = name.split("/")[0]
        with pytest.raises(UserError) as error:
            AudioMNIST(tmp_path).scan()
        assert str(error.value) == (
            f"{data / name}: {problem}; files in {data / speaker} must be called "
            f"{{digit}}_{speaker}_{{repetition}}.wav: rename or remove it"
        )

    def test_the_layout_of_the_other_corpus_is_told(self, tmp_path: Path) -> None:
        touch(tmp_path / "recordings" / "3_theo_7.wav")
        with pytest.raises(UserError, match=r"layout of the Free Spoken Digit Dataset, .*: say --data FSDDDataModule"):
            AudioMNIST(tmp_path).scan()

    def test_published_folds(self, tmp_path: Path) -> None:
        corpus = AudioMNIST(make_audiomnist(tmp_path, list(range(1, 61))))
        folds, groups = {"digit": DIGIT_FOLDS, "gender": GENDER_FOLDS}, {"digit": DIGIT_GROUPS, "gender": GENDER_GROUPS}
        for task in ("digit", "gender"):
            published = corpus.published_folds(task)
            assert published is not None
            assert len(published) == len(folds[task])
            for fold, letters in zip(published, folds[task], strict=True):
                for part, names in zip((fold.train, fold.validate, fold.test), letters, strict=True):
                    assert sorted(part) == sorted(f"{s:02d}" for name in names for s in groups[task][name])
        for fold in corpus.published_folds("gender") or ():
            assert sum(speaker in FEMALE for speaker in fold.train) == len(fold.train) / 2
            assert sum(speaker in FEMALE for speaker in fold.test) == len(fold.test) / 2

    @pytest.mark.parametrize(
        ("speakers", "digit", "gender"),
        [
            (range(1, 22), False, False),  # another corpus in the same layout
            (range(1, 60), False, False),  # speaker 60 is missing
            (sorted(s for group in GENDER_GROUPS.values() for s in group), False, True),
            (range(1, 62), False, False),  # somebody else is there
        ],
    )
    def test_published_folds_need_the_published_speakers(
        self, tmp_path: Path, speakers: list[int], digit: bool, gender: bool
    ) -> None:
        corpus = AudioMNIST(make_audiomnist(tmp_path, list(speakers)))
        assert (corpus.published_folds("digit") is not None) == digit
        assert (corpus.published_folds("gender") is not None) == gender

    def test_real_corpora(self, shared_data: Path) -> None:
        sample = AudioMNIST(shared_data / "audiomnist-sample")
        assert len(sample.recordings) == 12
        assert {s for s, gender in genders(sample).items() if gender == "female"} == {"26", "52", "60"}
        digits = AudioMNIST(shared_data / "digits-en")
        assert len(digits.recordings) == 1824
        assert Counter(genders(digits).values()) == {"female": 11, "male": 10}
        assert digits.published_folds("digit") is None


class TestFSDD:
    def test_labels_come_from_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "recordings"
        for name in ("7_jackson_32.wav", "0_mary_ann_1.wav", "._7_jackson_32.wav", "readme.md"):
            touch(folder / name)
        expected = (
            Recording(folder / "0_mary_ann_1.wav", 0, "mary_ann", None, 1),
            Recording(folder / "7_jackson_32.wav", 7, "jackson", None, 32),
        )
        assert FSDD(tmp_path).recordings == expected
        assert FSDD(folder).recordings == expected
        assert FSDD(tmp_path).published_folds("digit") is None

    @pytest.mark.parametrize("name", ["seven_jackson_0.wav", "7_jackson.wav", "7__0.wav", "7_jackson_x.wav"])
    def test_names_that_do_not_fit_are_refused(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path / "recordings" / name)
        with pytest.raises(UserError, match=rf"{name}: .*must be called {{digit}}_{{speaker}}_{{repetition}}.wav"):
            FSDD(tmp_path).scan()

    def test_recordings_in_all_formats(self, tmp_path: Path) -> None:
        for number, suffix in enumerate(SUFFIXES):
            touch(tmp_path / "recordings" / f"7_ann_{number}{suffix if number % 2 else suffix.upper()}")
        touch(tmp_path / "recordings" / "old" / "7_ann_0.wav")
        (tmp_path / "recordings" / "old" / "back").symlink_to(tmp_path / "recordings" / "old")
        corpus = FSDD(tmp_path)
        assert {recording.repetition for recording in corpus.recordings} == set(range(len(SUFFIXES)))
        assert [*corpus.left_out.values()] == [ELSEWHERE]

    def test_real_corpus(self, shared_data: Path) -> None:
        recordings = FSDD(shared_data / "fsdd").recordings
        assert Counter(recording.digit for recording in recordings) == dict.fromkeys(range(10), 300)
        assert len({recording.speaker for recording in recordings}) == 6


@pytest.mark.parametrize(
    ("corpus", "layout"),
    [
        (AudioMNIST, "data/NN/{digit}_{NN}_{repetition}.wav"),
        (FSDD, "recordings/{digit}_{speaker}_{repetition}.wav"),
    ],
)
class TestNothingThere:
    def test_missing_folder(self, tmp_path: Path, corpus: type[AudioMNIST] | type[FSDD], layout: str) -> None:
        with pytest.raises(UserError) as error:
            corpus(tmp_path / "nowhere").scan()
        assert f"{tmp_path / 'nowhere'} does not exist" in str(error.value)
        assert layout in str(error.value)
        assert "set --data.root" in str(error.value)

    def test_empty_folder(self, tmp_path: Path, corpus: type[AudioMNIST] | type[FSDD], layout: str) -> None:
        (tmp_path / layout.split("/")[0]).mkdir()
        with pytest.raises(UserError, match="holds no recordings") as error:
            corpus(tmp_path).scan()
        assert layout in str(error.value)

    def test_link_to_itself(self, tmp_path: Path, corpus: type[AudioMNIST] | type[FSDD], layout: str) -> None:
        folder = tmp_path / layout.split("/")[0]
        folder.symlink_to(folder)
        with pytest.raises(UserError, match="holds no recordings"):
            corpus(tmp_path).scan()

    def test_file_instead_of_folder(self, tmp_path: Path, corpus: type[AudioMNIST] | type[FSDD], layout: str) -> None:
        touch(tmp_path / "corpus.zip")
        with pytest.raises(UserError, match=r"corpus.zip is not a folder"):
            corpus(tmp_path / "corpus.zip").scan()


@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        ("data/01/3_01_0.wav", AudioMNIST),
        ("01/3_01_0.wav", AudioMNIST),
        ("recordings/3_ann_0.wav", FSDD),
        ("3_ann_0.flac", FSDD),
        ("3_ann_0.wav", FSDD),
        ("ann/3.wav", None),
    ],
)
def test_a_corpus_is_told_by_its_layout(recording: str, expected: type | None, tmp_path: Path) -> None:
    touch(tmp_path / recording)
    assert corpus_class(tmp_path) is expected


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "CAF", "AU", "NIST", "OGG"])
def test_sound_is_told_by_its_first_bytes_where_the_name_does_not_tell(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "sound", np.zeros(100), 8000, format=kind)
    soundfile.write(tmp_path / "sound.backup", np.zeros(100), 8000, format=kind)
    (tmp_path / "picture").write_bytes(b"RIFF\x24\0\0\0WEBPVP8 ")
    (tmp_path / "README").write_text("sound")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    found = Listing()
    assert found.search(tmp_path) == []
    assert not found.paths
    assert found.left_out == {tmp_path / "sound": NAMELESS, tmp_path / "sound.backup": NAMELESS}


def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    folder.symlink_to(folder)  # permissions do not hold root back
    with pytest.raises(UserError, match=rf"the folder {folder} cannot be read \(.*\); fix its permissions"):
        Listing().search(folder)
