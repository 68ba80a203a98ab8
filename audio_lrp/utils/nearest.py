"""The valid names that are nearest to a wrong one."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(name: str, valid: Iterable[str], *, before: str = "", prefix: str = "") -> str:
    """A question after the nearest valid names, two at most; empty where none is near.

    Args:
        name: the wrong name.
        valid: the valid ones.
        before: what to put before the question.
        prefix: what to put before each name.

    Example:
        >>> did_you_mean("fitt", ["fit", "test", "sweep"])
        'did you mean fit?'
        >>> did_you_mean("max_epoch", ["max_epochs", "min_epochs"], prefix="--")
        'did you mean --max_epochs or --min_epochs?'
        >>> did_you_mean("listen", ["fit"])
        ''
    """
    nearest = [f"{prefix}{near}" for near in get_close_matches(name, list(valid), n=2)]
    return f"{before}did you mean {' or '.join(nearest)}?" if nearest else ""


def nearest_path(path: Path, *, before: str = "") -> str:
    """A question after the existing paths that are nearest to a missing one; empty where none is near.

    The first part of the path that does not exist is compared with what lies beside it.

    Args:
        path: the missing path.
        before: what to put before the question.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "last.ckpt").write_text("")
        >>> nearest_path(folder / "lst.ckpt") == f"did you mean {folder / 'last.ckpt'}?"
        True
        >>> (folder / "newest").symlink_to("moved.ckpt")  # leads nowhere, and is not its own cure
        >>> nearest_path(folder / "newest")
        ''
        >>> nearest_path(folder / "wholly-different" / "last.ckpt")
        ''
    """
    for part in reversed([path, *path.parents]):
        if not part.exists():
            beside = part.parent
            names = [other.name for other in beside.iterdir() if other.exists()] if beside.is_dir() else []
            return did_you_mean(part.name, names, before=before, prefix="" if beside == Path() else f"{beside}/")
    return ""
