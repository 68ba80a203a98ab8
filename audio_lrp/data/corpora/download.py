"""Downloading one big file over HTTP, resumed where an earlier attempt was cut off."""

import errno
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Final

import requests
from tqdm import tqdm

from audio_lrp.errors import UserError, not_writable

ATTEMPTS: Final = 5
"""How many attempts in a row may fail without getting beyond the best one before it."""

PAUSE: Final = 1.0  # seconds before the second attempt, doubled each time
TIMEOUTS: Final = (10.0, 60.0)  # seconds to connect, and between two pieces of the answer
CHUNK: Final = 1 << 20
AGAIN: Final = "choose another folder, then run the same command again"
CUT_OFF: Final = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class CutOffError(Exception):
    """The file is not complete yet; another attempt may resume it."""


def download(url: str, path: Path, max_bytes: int) -> None:
    """Download a file.

    What has arrived lies in ``<path>.part``, together with a note of what it is a part of (``<path>.part.json``), and
    stays there when the download fails: the next call asks for the rest alone (HTTP ``Range`` with ``If-Range``), and
    starts anew where the server does not support that or the file has changed.

    Args:
        url: address, ``http`` or ``https``; redirections are followed.
        path: where the complete file goes.
        max_bytes: refuse a longer file.

    Raises:
        UserError: the address is wrong, the server refuses or keeps breaking off, or there is no space left.
    """
    part = Part(path.with_name(f"{path.name}.part"), max_bytes)
    best, failures = part.size, 0
    with requests.Session() as session:
        while failures < ATTEMPTS:
            try:
                part.fetch(session, url)
            except (*CUT_OFF, CutOffError) as error:
                reason = error
            except (requests.RequestException, ValueError) as error:  # ValueError: an address that makes no sense
                raise UserError(f"{url} cannot be downloaded: {error}; {another_server(path.parent)}") from error
            except OSError as error:
                raise not_writable(part.path, error, AGAIN) from error
            else:
                part.become(path)
                return
            failures = 0 if part.size > best else failures + 1
            best = max(best, part.size)
            if failures < ATTEMPTS:
                pause = PAUSE * 2**failures
                tqdm.write(f"audio-lrp: {_brief(reason)}; trying again in {pause:.0f} s", file=sys.stderr)
                time.sleep(pause)
    rest = f"to resume after the {part.size / 1e6:.0f} MB that lie in {part.path}" if part.size else "later"
    raise UserError(
        f"the download of {url} broke off {ATTEMPTS} times ({_brief(reason)}); run the same command again {rest}, "
        f"or {another_server(path.parent)}"
    )


def another_server(folder: Path) -> str:
    """What to do where a server has not got the file; said in full, as trainings download too, by other options.

    Args:
        folder: the corpus's folder.
    """
    return f"name another server: audio-lrp data download audiomnist --root {folder} --mirror URL"


class Part:
    """The beginning of a file.

    Args:
        path: where it lies.
        max_bytes: refuse a longer file.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.note = path.with_name(f"{path.name}.json")
        self.max_bytes = max_bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    def fetch(self, session: requests.Session, url: str) -> None:
        """Ask for what is missing, once.

        Raises:
            CutOffError: it did not come whole.
            requests.RequestException: the server cannot be reached or refuses.
            OSError: the file cannot be written.
            UserError: the file is too long.
        """
        headers = {"Accept-Encoding": "identity"}  # bytes are counted as they are stored
        version = self._version(url)
        if self.size and version:
            headers["Range"] = f"bytes={self.size}-"
            if not version.startswith("W/"):  # weak tags are not allowed there; they are compared below
                headers["If-Range"] = version
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{self.size}":
                    return  # killed after the last byte
                self.discard()
                raise CutOffError("there was more of the file here than on the server")
            if answer.status_code in (408, 429) or answer.status_code >= 500:
                raise CutOffError(f"the server answered {answer.status_code} {answer.reason}")
            answer.raise_for_status()
            first, total = _range(answer)
            if first and (first != self.size or _version_of(answer) != version):
                self.discard()
                raise CutOffError("the file on the server has changed")
            if not first:
                self.discard()
                self.note.parent.mkdir(parents=True, exist_ok=True)
                self.note.write_text(json.dumps({"url": url, "version": _version_of(answer)}))
            self._append(answer, first, total)

    def _append(self, answer: requests.Response, first: int, total: int | None) -> None:
        self._refuse_long(total or 0)
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - first > free:
            raise OSError(errno.ENOSPC, f"{(total - first) / 1e6:.0f} MB are missing and {free / 1e6:.0f} MB are free")
        with (
            self.path.open("ab") as file,
            tqdm(
                desc="downloading", initial=first, total=total, unit="B", unit_scale=True, dynamic_ncols=True
            ) as progress,
        ):
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
                self._refuse_long(file.tell())
        if total is not None and self.size != total:
            raise CutOffError(f"{self.size} of {total} bytes came")

    def _refuse_long(self, size: int) -> None:
        if size > self.max_bytes:
            self.discard()
            raise UserError(
                f"the file is longer than {self.max_bytes / 1e6:.0f} MB, more than it can be: it is not the one that "
                f"is wanted; {another_server(self.path.parent)}"
            )

    def _version(self, url: str) -> str | None:
        """The server's name for the version of the file that this is the beginning of, if it came from ``url``."""
        try:
            note = json.loads(self.note.read_text())
            return str(note["version"]) if note["url"] == url and note["version"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def discard(self) -> None:
        """Forget what there is."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def become(self, path: Path) -> None:
        """Give the complete file its name."""
        self.path.replace(path)
        self.note.unlink(missing_ok=True)


def _range(answer: requests.Response) -> tuple[int, int | None]:
    """The first byte that comes and, where the server says it, the size of the whole file."""
    if answer.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            raise CutOffError("the server did not say which part of the file it sent")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length is not None else None


def _version_of(answer: requests.Response) -> str | None:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def _brief(error: Exception) -> str:
    """The innermost reason of an error that requests and urllib3 wrapped."""
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    text = " ".join(str(error).split())
    return _brief(reason) if isinstance(reason, Exception) else re.sub(r"^\w+\(host=[^)]*\): ", "", text)
