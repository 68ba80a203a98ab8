"""The exception that stands for a mistake the user can fix, and what is said of unreadable and unwritable files."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's share of it, or a file has reached the longest that is allowed."""

OUT_OF_REACH: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
"""A place that must not be entered, read or written, or that no place can be called."""


class UserError(Exception):
    """A mistake in the input, answered with one sentence and no traceback.

    The message names the thing, the place where it stands and the fix, e.g.
    ``"fold 7 does not exist: AudioMNIST has folds 0 to 4 for the digit task; choose one with --data.fold"``.
    The command line prints it and exits with a code other than 0; library users may catch it.
    """


class UsageError(UserError):
    """A mistake in the options, found before anything runs: the command ends with exit code 2.

    Attributes:
        option: the option's dotted name without ``init_args``, where the message is about one.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


def with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or after; each once, as an error may be raised from a later one."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def not_writable(path: Path | str, error: OSError, fix: str = "choose another folder") -> UserError:
    """The error for a file or folder that cannot be written, or not whole.

    Args:
        path: what cannot be written.
        error: why.
        fix: what the user can do, beside freeing space where that is what is missing.
    """
    full = error.errno in NO_SPACE
    reason, hint = ("the disk is full", f"free space there, or {fix}") if full else ("it cannot be written", fix)
    return UserError(f"{path}: {reason} ({error.strerror or error}); {hint}")


def out_of_reach(error: BaseException) -> UserError | None:
    """The error for a place that even to look for fails, wherever that happened; ``None`` for other errors."""
    if not isinstance(error, OSError) or error.errno not in OUT_OF_REACH or error.filename is None:
        return None
    fix = "fix its permissions, or " if error.errno in (errno.EACCES, errno.EPERM) else ""
    return UserError(f"{error.filename}: {error.strerror}; {fix}give another place")


def lost_worker(error: BaseException) -> UserError | None:
    """The error for a data loader's worker process that ended before its work was done; ``None`` for other errors."""
    ended = re.match(r"DataLoader worker \(pid.*?(?:exited unexpectedly|killed by signal: [\w ]+)", str(error))
    if not isinstance(error, RuntimeError) or ended is None:
        return None
    if "Bus error" in ended[0]:
        fix = "/dev/shm is too small for its batches; give it more, in a container --shm-size=1g"
    else:
        fix = "if memory ran out, free some"
    return UserError(f"{ended[0]}: {fix}, or train without workers, --data.num_workers 0")


def too_many_files(error: BaseException) -> UserError | None:
    """The error for the limit of open files, wherever it was met; ``None`` for other errors."""
    met = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    if not met and not (isinstance(error, RuntimeError) and "too many open files" in str(error).lower()):
        return None
    return UserError("more files are open than the system allows; raise the limit, ulimit -n 4096")


def legible(name: str) -> str:
    r"""A file's name with the bytes that are not UTF-8 written out, as neither terminals nor pages could show them.

    Example:
        >>> print(legible("jos\udce9.wav"))
        jos\xe9.wav
    """
    return os.fsencode(name).decode(errors="backslashreplace")


def wrongly_encoded(error: BaseException) -> UserError | None:
    """The error for a file's or folder's name that is not in UTF-8, as old archives leave some; else ``None``."""
    if not isinstance(error, UnicodeEncodeError) or not any("\udc80" <= char <= "\udcff" for char in error.object):
        return None
    return UserError(f"the name '{legible(error.object)}' is not in UTF-8; rename the file or folder")


def parse_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        yaml.YAMLError: it is not valid; also where PyYAML raises something else, as for a day that no month has.

    Example:
        >>> parse_yaml("max_epochs: 3")
        {'max_epochs': 3}
        >>> parse_yaml("2024-02-30")
        Traceback (most recent call last):
        yaml.error.YAMLError: day is out of range for month
    """
    import yaml  # only now: what tells of a broken installation imports this module

    try:
        return yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def yaml_problem(error: Exception) -> str:
    """Why a file is not YAML, and in which line.

    Args:
        error: what PyYAML raised, or the failure to decode the file's text.
    """
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None:
        return " ".join(str(error).split())
    return f"{problem}" if mark is None else f"{problem} in line {mark.line + 1}"
