"""AudioMNIST's archive: put in place whole, and refused when it is anything but that."""

import io
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from archives import METADATA, SMALL, TOP, Archive, contents, genders, recording, zipped
from command_line import exit_code
from http_server import Served, serving

from audio_lrp.data import AudioMNISTDataModule
from audio_lrp.data.corpora import audiomnist, audiomnist_download
from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.audiomnist_download import (
    AUDIOMNIST,
    WrongArchiveError,
    download_audiomnist,
    install,
)
from audio_lrp.errors import UserError


def fetch(root: Path, content: bytes) -> None:
    with serving(Served(content)) as url:
        download_audiomnist(root, mirror=url, release=SMALL)


def assert_nothing_left(root: Path) -> None:
    assert {path.name for path in root.iterdir()} == {".lock"}


def test_the_shipped_release() -> None:
    names = AUDIOMNIST.recordings()
    assert len(names) == len(set(names)) == 30_000
    assert names[0] == "01/0_01_0.wav"
    assert names[-1] == "60/9_60_49.wav"
    assert AUDIOMNIST.females == 12


def test_the_recordings_come_into_place(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    fetch(root, zipped(contents()))
    assert {path.name for path in root.iterdir()} == {".lock", "data"}
    files = {f"{TOP}{path.relative_to(root)}": path.read_bytes() for path in root.rglob("data/**/*") if path.is_file()}
    assert files == {name: content for name, content in contents().items() if "/data/" in name}
    corpus = AudioMNIST(root)
    assert len(corpus.recordings) == 60
    assert {r.speaker: r.gender for r in corpus.recordings} == {"01": "female", "02": "male", "03": "male"}


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_an_empty_address_is_not_the_usual_one(tmp_path: Path) -> None:
    """That of an unset variable, for example."""
    with pytest.raises(UserError, match="''"):
        download_audiomnist(tmp_path, mirror="", release=SMALL)


@pytest.mark.parametrize("place", ["data/01", "01"])
def test_a_corpus_that_is_there_is_left_alone(tmp_path: Path, place: str) -> None:
    touch(tmp_path / place / "7_01_0.wav")
    download_audiomnist(tmp_path, mirror="http://127.0.0.1:1/nobody")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / place / "7_01_0.wav"]


@pytest.mark.parametrize("place", ["data", "01", "2024/take.wav", "sounds/7_01.wav"])
def test_folders_without_recordings_are_no_corpus(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True) if place in ("data", "01") else touch(tmp_path / place)
    fetch(tmp_path, zipped(contents()))
    assert len(AudioMNIST(tmp_path).recordings) == 60
    assert (tmp_path / place).exists()


@pytest.mark.parametrize("place", ["data", "data/.DS_Store", "data/01/take.wav"])
def test_nothing_is_fetched_where_its_place_is_taken(tmp_path: Path, place: str) -> None:
    touch(tmp_path / place)
    served = Served(zipped(contents()))
    with (
        serving(served) as url,
        pytest.raises(UserError, match=rf"^{tmp_path / 'data'} is there, but holds no recordings .*move it away"),
    ):
        download_audiomnist(tmp_path, mirror=url, release=SMALL)
    assert not served.requests
    assert (tmp_path / place).is_file()


@pytest.mark.parametrize("target", ["big disk", "gone"])
def test_nothing_is_fetched_where_its_place_is_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / target)
    served = Served(zipped(contents()))
    with serving(served) as url, pytest.raises(UserError, match=rf"^{tmp_path / 'data'} is a link: .*remove it, or"):
        download_audiomnist(tmp_path, mirror=url, release=SMALL)
    assert not served.requests


def test_an_archive_that_a_killed_process_had_unpacked_is_removed(tmp_path: Path) -> None:
    touch(tmp_path / "data" / "01" / "7_01_0.wav")
    (tmp_path / ".0123.zip").write_bytes(zipped(contents()))
    download_audiomnist(tmp_path, mirror="http://127.0.0.1:1/nobody", release=SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_an_unpacking_that_was_killed_is_done_again(tmp_path: Path) -> None:
    (tmp_path / ".partial" / "01").mkdir(parents=True)
    (tmp_path / ".partial" / "01" / "0_01_0.wav").write_bytes(b"half")
    (tmp_path / ".0123.zip").write_bytes(zipped(contents()))
    download_audiomnist(tmp_path, mirror="http://127.0.0.1:1/nobody", release=SMALL)  # nothing is left to be fetched
    assert (tmp_path / "data" / "01" / "0_01_0.wav").read_bytes() == recording(0)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "data"}


def without(name: str) -> Callable[[Archive], Archive]:
    return lambda files: {place: content for place, content in files.items() if not place.endswith(name)}


def with_file(name: str, content: bytes) -> Callable[[Archive], Archive]:
    return lambda files: files | {TOP + name: content}


WAV = "data/02/7_02_1.wav"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("7_02_1.wav"), "1 of 61 files are missing, the first of them 02/7_02_1.wav"),
        (without(METADATA), f"1 of 61 files are missing, the first of them {METADATA}"),
        (lambda _: {"readme.txt": b"hello"}, "61 of 61 files are missing"),
        (with_file(WAV, recording(rate=16_000)), "02/7_02_1.wav is WAV PCM_16 with 1 channels at 16000 Hz"),
        (with_file(WAV, recording(channels=2)), "02/7_02_1.wav is WAV PCM_16 with 2 channels at 48000 Hz"),
        (with_file(WAV, recording(width=3)), "02/7_02_1.wav is WAV PCM_24 with 1 channels at 48000 Hz"),
        (with_file(WAV, b"<html>404</html>"), "02/7_02_1.wav is not readable as audio"),
        (with_file(WAV, b""), "02/7_02_1.wav is not readable as audio"),
        (with_file(f"data/{METADATA}", b"{"), "does not tell the gender of every speaker"),
        (with_file(f"data/{METADATA}", b"[" * 100_000), "does not tell the gender of every speaker"),
        (with_file(f"data/{METADATA}", genders(speakers=2)), "does not tell the gender of every speaker"),
        (with_file(f"data/{METADATA}", genders(females=2)), "tells other genders than AudioMNIST's"),
        (with_file(WAV, bytes(300_000)), "02/7_02_1.wav has 300000 bytes"),
        (lambda files: files | {"../outside.wav": b""}, "'../outside.wav' would lie outside"),
        (with_file("data/../../outside.wav", b""), "would lie outside"),
        (lambda files: files | {"/etc/outside": b""}, "'/etc/outside' would lie outside"),
        (lambda files: files | {"C:/outside": b""}, "'C:/outside' would lie outside"),
        (lambda files: files | {"..\\outside": b""}, "would lie outside"),
    ],
)  # fmt: skip
def test_wrong_content_is_refused(tmp_path: Path, change: Callable[[Archive], Archive], problem: str) -> None:
    root = tmp_path / "root"
    with pytest.raises(UserError) as error:
        fetch(root, zipped(change(contents())))
    assert "is not the archive of AudioMNIST" in str(error.value)
    assert problem in str(error.value)
    assert str(error.value).endswith(f"server: audio-lrp data download audiomnist --root {root} --mirror URL")
    assert_nothing_left(root)
    assert {path.name for path in tmp_path.iterdir()} == {"root"}


def special(mode: int) -> bytes:
    """An archive in which one recording is a link, a device or the like."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents().items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (mode if name == TOP + WAV else stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(UserError, match=r"02/7_02_1.wav is no regular file"):
        fetch(tmp_path, special(kind | 0o777))
    assert_nothing_left(tmp_path)


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO(zipped(contents()))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(TOP + WAV, recording(99))
    with pytest.raises(UserError, match=r"02/7_02_1.wav is there twice"):
        fetch(tmp_path, file.getvalue())


def test_an_archive_without_its_beginning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its .* would begin before the archive does"):
        fetch(tmp_path, zipped(contents())[7:])
    assert_nothing_left(tmp_path)


def test_what_another_process_has_put_there_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([False, True])  # before the lock is had, and after
    monkeypatch.setattr(audiomnist_download, "is_there", lambda root: next(looks))
    download_audiomnist(tmp_path, mirror="http://127.0.0.1:1/nobody")
    assert_nothing_left(tmp_path)


def test_bombs_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = contents() | {f"{TOP}data/{METADATA}": bytes(50_000_000)}  # 50 kB in the archive
    with pytest.raises(UserError, match=r"audioMNIST_meta.txt has 50000000 bytes"):
        fetch(tmp_path, zipped(files))
    monkeypatch.setattr(audiomnist_download, "MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(UserError, match="its table of contents is too long"):
        fetch(tmp_path, zipped(contents()))


def test_a_file_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    honest = zipped(contents() | {TOP + WAV: bytes(100_000)})
    size = (100_000).to_bytes(4, "little")
    assert honest.count(size) == 2  # before the file, and in the table of contents
    with pytest.raises(UserError, match="is not the archive of AudioMNIST"):
        fetch(tmp_path, honest.replace(size, (50_000).to_bytes(4, "little")))
    assert_nothing_left(tmp_path)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    """Bytes changed and ends cut off at random: whatever gets through is whole."""
    good = zipped(contents())
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(150):
        content = bytearray(good)
        if trial % 3 == 0:
            del content[rng.integers(len(content)) :]
        else:  # half of the changes hit the table of contents, which is short
            first = good.index(b"PK\x01\x02") if trial % 2 else 0
            for place in rng.integers(first, len(content), size=3):
                content[place] = rng.integers(256)
        archive = tmp_path / "archive.zip"
        archive.write_bytes(content)
        try:
            install(archive, tmp_path, SMALL)
        except (WrongArchiveError, *audiomnist_download.DAMAGED):
            refused += 1
        else:
            for name, expected in contents().items():
                if "/data/" in name:
                    assert (tmp_path / name.removeprefix(TOP)).read_bytes() == expected
            shutil.rmtree(tmp_path / "data")
        assert {path.name for path in tmp_path.iterdir()} == {"archive.zip"}
    assert refused > 100


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_the_archive_is_kept_where_there_is_no_space_to_unpack_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".0123.zip").write_bytes(zipped(contents()))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, 1000))
        with pytest.raises(UserError, match=r"unpacking AudioMNIST takes 0 MB and 0 MB are free in .*free space there"):
            download_audiomnist(tmp_path, release=SMALL)
    download_audiomnist(tmp_path, release=SMALL)
    assert len(AudioMNIST(tmp_path).recordings) == 60


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: it cannot be written \(File exists\)"):
        download_audiomnist(tmp_path / "file")


class TestWhoCallsIt:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch_small(root: Path, mirror: str | None = None) -> None:
            download_audiomnist(root, mirror, SMALL)

        monkeypatch.setattr(audiomnist_download, "AUDIOMNIST", SMALL)
        monkeypatch.setattr(audiomnist, "download_audiomnist", fetch_small)
        monkeypatch.setattr("audio_lrp.data.corpora.audiomnist_download.download_audiomnist", fetch_small)

    def test_the_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(Served(zipped(contents()))) as url:
            assert exit_code("data", "download", "audiomnist", f"--root={tmp_path / 'x'}", f"--mirror={url}") == 0
        output = capsys.readouterr().out
        assert f"{tmp_path / 'x'}: 60 recordings of 3 speakers\n" in output
        assert f"audio-lrp fit --config audionet_digit --data.root {tmp_path / 'x'}" in output

    def test_the_command_says_what_was_there_already(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("01/7_01_0.wav", "02/7_02_0.wav", "02/7_02_1.wav"):
            touch(tmp_path / "data" / name)
        assert exit_code("data", "download", "audiomnist", f"--root={tmp_path}") == 0
        assert capsys.readouterr().out.startswith(
            f"{tmp_path}: 3 recordings of 2 speakers, which were there already and are not AudioMNIST's 60: "
            "for those, choose another --root\n"
        )

    def test_the_command_says_what_went_wrong(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(Served(b"", statuses=[404])) as url:
            assert exit_code("data", "download", "audiomnist", f"--root={tmp_path}", f"--mirror={url}") == 1
        assert f"audio-lrp: error: {url} cannot be downloaded: 404" in capsys.readouterr().err

    def test_the_data_module_on_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(Served(zipped(contents()))) as url:
            release = replace(SMALL, url=url)
            monkeypatch.setattr(
                audiomnist, "download_audiomnist", lambda root: download_audiomnist(root, None, release)
            )
            data = AudioMNISTDataModule(str(tmp_path / "x"), download=True, num_folds=3, cache_dir="beside")
            data.prepare_data()
            assert len(data.corpus.recordings) == 60
        with pytest.raises(UserError, match="does not exist: AudioMNIST is expected there"):
            AudioMNISTDataModule(str(tmp_path / "y"), num_folds=3).prepare_data()


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    release = replace(SMALL, speakers=60, females=12, repetitions=50)
    clip = recording()
    files = {f"{TOP}data/{name}": clip for name in release.recordings()}
    content = zipped(files | {f"{TOP}data/{METADATA}": genders(12, 60)})
    with serving(Served(content, cuts=[1_000_000, 2_000_000])) as url:
        download_audiomnist(tmp_path, mirror=url, release=release)
    assert len(AudioMNIST(tmp_path).recordings) == 30_000
