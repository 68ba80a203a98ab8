"""Files that are whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from audio_lrp.errors import not_writable


@contextmanager
def replacing(path: Path, mend: str = "choose another folder") -> Iterator[Path]:
    """A temporary path that becomes ``path`` once it is written, so that nobody reads half a file.

    Of several processes that write the same file at once one after the other replaces it.

    Args:
        path: the file; folders above it are made.
        mend: what the user can do where it cannot be written, e.g. ``"choose another place with --output"``.

    Raises:
        UserError: the file cannot be written, or not whole; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise not_writable(path, error, mend) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
