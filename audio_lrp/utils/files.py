"""Files that are whole or not there, and folders that one process at a time writes to."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from audio_lrp.errors import not_writable

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path, fix: str = "choose another folder") -> Iterator[Path]:
    """A temporary path that becomes ``path`` once it is written, so that nobody reads half a file.

    Of several processes that write the same file at once one after the other replaces it.

    Args:
        path: the file; folders above it are made.
        fix: what the user can do where it cannot be written, e.g. ``"choose another place with --output"``.

    Raises:
        UserError: the file cannot be written, or not whole; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise not_writable(path, error, fix) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def exclusively(folder: Path) -> Iterator[bool]:
    """Let one process at a time write to a folder; the system lifts the lock of a process that was killed.

    Yields:
        Whether another process had to be waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process is writing to %s: waiting for it", folder)
        lock.acquire()
        waited = True
    try:
        yield waited
    finally:
        lock.release()
