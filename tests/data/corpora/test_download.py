"""Downloading over HTTP: whole, in parts, against bad servers and full disks."""

import json
import multiprocessing
import re
import shutil
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
from http_server import Served, serving

from audio_lrp.data.corpora import download as module
from audio_lrp.data.corpora.download import ATTEMPTS, CUT_OFF, CutOffError, Part, download
from audio_lrp.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
LIMIT = 1_000_000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "CHUNK", 1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.zip"


def left_behind(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


def ranges(served: Served) -> list[str | None]:
    return [request.get("Range") for request in served.requests]


def test_a_file_comes_whole(path: Path) -> None:
    served = Served(CONTENT)
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert left_behind(path) == {path.name}
    assert ranges(served) == [None]


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"'])
def test_a_cut_connection_goes_on_where_it_was_cut(path: Path, etag: str) -> None:
    served = Served(CONTENT, etag=etag, cuts=[100_000, 50_000, 0])
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    # A last, unfinished chunk is lost; everything before it is kept.
    first, second, third, fourth = ranges(served)
    assert first is None
    assert second is not None
    assert 99_000 <= int(second[6:-1]) <= 100_000
    assert third == fourth is not None
    assert 148_000 <= int(third[6:-1]) <= 150_000
    assert [request.get("If-Range") for request in served.requests][1:] == [etag if etag == '"one"' else None] * 3


def test_a_later_call_goes_on_too(path: Path) -> None:
    served = Served(CONTENT, cuts=[100_000] + [0] * ATTEMPTS)
    with serving(served) as url:
        with pytest.raises(UserError) as error:
            download(url, path, LIMIT)
        assert f"{url} broke off {ATTEMPTS} times" in str(error.value)
        assert "run the same command again to resume after the 0 MB" in str(error.value)
        assert not path.exists()
        before = len(served.requests)
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert len(ranges(served)) == before + 1
    assert ranges(served)[-1] is not None


@pytest.mark.parametrize(
    ("content_range", "reason"),
    [
        ("", "the server did not say which part of the file it sent"),
        (f"bytes {{first}}-{len(CONTENT) - 1}/{len(CONTENT) + 7}", f"{len(CONTENT)} of {len(CONTENT) + 7} bytes came"),
    ],
)
def test_parts_that_do_not_fit_are_not_taken_for_the_end(path: Path, content_range: str, reason: str) -> None:
    served = Served(CONTENT, cuts=[290_000, len(CONTENT)], content_range=content_range)
    part = Part(path, LIMIT)
    with serving(served) as url, requests.Session() as session:
        with pytest.raises(CUT_OFF):
            part.fetch(session, url)
        with pytest.raises(CutOffError, match=reason):
            part.fetch(session, url)


def test_a_server_without_ranges_starts_anew(path: Path) -> None:
    served = Served(CONTENT, ranges=False, cuts=[100_000, 200_000])
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert ranges(served)[1] is not None  # it was asked


def test_a_server_that_names_no_version_starts_anew(path: Path) -> None:
    served = Served(CONTENT, etag="", cuts=[100_000])
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert ranges(served) == [None, None]


@pytest.mark.parametrize("weak", ["", "W/"])
def test_parts_of_two_versions_are_not_joined(path: Path, weak: str) -> None:
    served = Served(CONTENT, etag=f'{weak}"one"', cuts=[100_000] + [0] * ATTEMPTS)
    with serving(served) as url, pytest.raises(UserError):
        download(url, path, LIMIT)
    changed = Served(CONTENT[::-1], etag=f'{weak}"two"')
    with serving(changed) as url:
        note = path.with_name("archive.zip.part.json")
        note.write_text(json.dumps(json.loads(note.read_text()) | {"url": url}))  # another port
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": 1, "version": 2}'])
def test_a_part_of_unknown_origin_is_not_used(path: Path, note: str) -> None:
    path.with_name("archive.zip.part").write_bytes(b"something else")
    path.with_name("archive.zip.part.json").write_text(note)
    served = Served(CONTENT)
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert ranges(served) == [None]


def test_more_than_the_whole_file_is_thrown_away(path: Path) -> None:
    served = Served(CONTENT)
    with serving(served) as url:
        path.with_name("archive.zip.part").write_bytes(CONTENT + b"more")
        path.with_name("archive.zip.part.json").write_text(json.dumps({"url": url, "version": '"one"'}))
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT


def test_a_download_that_was_killed_after_its_last_byte_is_complete(path: Path) -> None:
    served = Served(CONTENT)
    with serving(served) as url:
        path.with_name("archive.zip.part").write_bytes(CONTENT)
        path.with_name("archive.zip.part.json").write_text(json.dumps({"url": url, "version": '"one"'}))
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert len(served.requests) == 1
    assert left_behind(path) == {path.name}


def test_busy_servers_are_asked_again(path: Path) -> None:
    served = Served(CONTENT, statuses=[503, 429])
    with serving(served) as url:
        download(url, path, LIMIT)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_refusals_are_told_at_once(path: Path, status: int) -> None:
    served = Served(CONTENT, statuses=[status])
    with (
        serving(served) as url,
        pytest.raises(UserError, match=f"{url} cannot be downloaded: {status}.*; name another"),
    ):
        download(url, path, LIMIT)
    assert left_behind(path) == set()


@pytest.mark.parametrize("url", ["archive.zip", "ftp://127.0.0.1/archive.zip", "http://[::1/archive.zip"])
def test_senseless_addresses(path: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot be downloaded: "):
        download(url, path, LIMIT)


def test_nobody_listens(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Served(CONTENT)) as url:
        pass
    with pytest.raises(UserError, match=f"{url} broke off {ATTEMPTS} times .*Connection refused") as error:
        download(url, path, LIMIT)
    # Trainings download too, and have no option --mirror.
    command = f"audio-lrp data download audiomnist --root {path.parent} --mirror URL"
    assert str(error.value).endswith(f"run the same command again later, or name another server: {command}")
    told = capsys.readouterr().err.splitlines()  # the pauses before further attempts are long
    assert len(told) == ATTEMPTS - 1
    assert all(re.match(r"audio-lrp: .*Connection refused.*; trying again in \d+ s$", line) for line in told)


@pytest.mark.parametrize("length", [True, False])
def test_endless_files_are_refused(path: Path, length: bool) -> None:
    with serving(Served(CONTENT, length=length)) as url, pytest.raises(UserError, match="longer than 0 MB"):
        download(url, path, 100_000)
    assert left_behind(path) == set()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_will_be_full_is_told_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, 1000))
    with serving(Served(CONTENT)) as url, pytest.raises(UserError, match=r"the disk is full .*free space there"):
        download(url, path, LIMIT)
    assert not path.exists()


def download_on_full_disk(url: str, path: Path, answers: "Queue[Any]") -> None:
    """In another process, in which files cannot grow beyond 120,000 bytes."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
    try:
        download(url, path, LIMIT)
    except UserError as error:
        answers.put(str(error))


def test_a_full_disk_is_told_and_the_rest_comes_later(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    served = Served(CONTENT)
    with serving(served) as url:
        answers = context.Queue()
        process = context.Process(target=download_on_full_disk, args=(url, path, answers))
        process.start()
        message = answers.get(timeout=60)
        process.join(timeout=60)
        assert f"{path}.part: the disk is full (File too large); free space there" in message
        assert not path.exists()
        download(url, path, LIMIT)
        assert path.read_bytes() == CONTENT
        assert ranges(served)[-1] is not None
