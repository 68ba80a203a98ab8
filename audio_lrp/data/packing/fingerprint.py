"""Telling whether a corpus's files changed: quickly by their dates, surely by their content."""

import array
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

import xxhash
from tqdm import tqdm

from audio_lrp.errors import UserError
from audio_lrp.utils.parallel import map_in_threads

REMEMBERED = "signatures.json"
FACTS = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns")


def stat_signature(corpus_name: str, root: Path, paths: Sequence[Path], version: str) -> str:
    """A hash of the files' places, sizes and times of change, and of ``version``: equal while nobody touched them.

    Every file is asked, which takes some 3 us each, most of it in the system. The times of the folders alone would be
    had at once, but do not tell when a file is written in place. The time of a file's last change of any kind (ctime)
    is the system's own: who sets the time of modification back changes it. It is missed only where the clock itself
    is set back to the very nanosecond, and on Windows, which has no such time, where the modification's is set back.

    Raises:
        UserError: a file is missing.
    """
    places = list(map(str, paths))
    try:
        facts = array.array("q", chain.from_iterable(map(FACTS, map(os.stat, places))))
    except OSError as error:
        raise unreadable(error) from error
    names = "\0".join([version, corpus_name, os.path.abspath(root), *places])  # noqa: PTH100 (keeps links)
    return hashlib.blake2b(facts.tobytes() + os.fsencode(names), digest_size=8).hexdigest()


def content_key(root: Path, paths: Sequence[Path], hashes: Sequence[str], version: str) -> str:
    """A hash of the files' content and their places below the corpus's folder, the same for every copy of the corpus.

    Args:
        root: the corpus's folder.
        paths: files below it.
        hashes: of their content, see :func:`hash_files`.
        version: hashed along.
    """
    return digest([version, *(path.relative_to(root).as_posix() for path in paths), *hashes])


def hash_in_parallel(paths: Sequence[Path]) -> list[str]:
    """A hash of each file's content, read in several threads, with a progress bar.

    Raises:
        UserError: a file cannot be read.
    """
    hashes = map_in_threads(hash_files, paths)
    return list(tqdm(hashes, "checking recordings", total=len(paths), unit="file", delay=1))


def hash_files(paths: Sequence[Path]) -> Iterator[str]:
    """A hash of each file's content, one after the other.

    Raises:
        UserError: a file cannot be read.
    """
    buffer = memoryview(bytearray(2**18))  # one for all: fresh memory takes as long as reading
    for path in paths:
        hash_of_file = xxhash.xxh3_128()  # tells files apart; a hash that is safe from forgers takes 25 times as long
        try:
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(buffer):
                    hash_of_file.update(buffer[:size])
        except OSError as error:
            raise unreadable(error) from error
        yield hash_of_file.hexdigest()


def recall(folder: Path, signature: str) -> str | None:
    """What :func:`remember` noted for this signature, ``None`` where it noted nothing."""
    return _remembered(folder).get(signature)


def remember(folder: Path, signature: str, cache_name: str) -> None:
    """Note which cache in ``folder`` belongs to a signature, and forget the caches that are gone.

    Only one process at a time may call this. A folder that must not be written remembers nothing.
    """
    notes = {old: name for old, name in _remembered(folder).items() if (folder / name).is_dir()}
    temporary = folder / f"{REMEMBERED}.tmp"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(notes | {signature: cache_name}, indent=1))
        temporary.replace(folder / REMEMBERED)


def _remembered(folder: Path) -> dict[str, str]:
    try:
        notes = json.loads((folder / REMEMBERED).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(notes, dict):
        return {}
    return {signature: name for signature, name in notes.items() if isinstance(name, str)}


def digest(parts: Sequence[str]) -> str:
    """A hash of strings, 16 hexadecimal digits."""
    # File names may hold bytes that are not text; JSON keeps ["a", "b"] apart from ["ab"].
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def unreadable(error: OSError) -> UserError:
    """The error for a recording that is missing or must not be read."""
    return UserError(f"the recording {error.filename} cannot be read ({error.strerror}); replace or remove it")
