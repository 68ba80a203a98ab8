"""Who works on which cell, among processes and machines that share nothing but a folder.

A claim is a file ``claim-0001.json`` in the cell's folder, created in the mode that fails where the file exists, which
is atomic on every local file system and on NFS since its version 3. Its holder touches it every half minute. A claim
that was not touched for ten minutes is void: its machine has died. So is one whose process, on this very machine, has
ended, which spares the wait after a crash or a kill. Whoever finds the newest claim void creates the next number, and
of several who try only one succeeds. Nothing is ever deleted, renamed or locked, so there is no moment in which two
can both be right, and it does not matter whether the file system supports locks across machines, as many do not.

A holder that was suspended for longer than ten minutes finds a newer claim beside its own and stops (`Claim.check`).
Times are the file server's: machines need not agree on the hour.
"""

import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Final

from audio_lrp.errors import not_writable

HEARTBEAT_SECONDS: Final = 30.0
VOID_SECONDS: Final = 600.0
"""After so long without a heartbeat a claim is void: much longer than NFS clients cache a file's times (a minute)."""

_RELEASED: Final = 0.0
"""Heartbeat time of a claim that its holder gave up."""


class ClaimLostError(Exception):
    """Another worker has taken the cell, because this one gave no sign of life for too long."""


class Claim:
    """A cell held by this process, until it is released or the process ends.

    Args:
        path: the claim's file, which this process has just created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a file server that restarts: the next one will do
                os.utime(self.path)

    def check(self) -> None:
        """Make sure that the cell is still ours.

        Raises:
            ClaimLostError: it is not.
        """
        if _newest(self.path.parent) != self.path:
            raise ClaimLostError(f"{self.path.parent.name} has been taken over by another worker")

    def release(self) -> None:
        """Give the cell up; whoever comes next need not wait."""
        self._done.set()
        self._heart.join()
        with suppress(OSError):
            os.utime(self.path, (_RELEASED, _RELEASED))

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def take(folder: Path) -> Claim | None:
    """Claim a cell.

    Args:
        folder: the cell's folder; created where it is missing.

    Returns:
        The claim, or ``None`` where somebody else holds the cell.

    Raises:
        UserError: the claim cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder)
    if newest is not None and _is_valid(newest):
        return None
    number = 1 if newest is None else int(newest.stem.removeprefix("claim-")) + 1
    path = folder / f"claim-{number:04d}.json"
    content = json.dumps(_this_process())
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:  # another was faster
        return None
    except OSError as error:
        with suppress(OSError):  # nobody holds what could not be written
            os.utime(path, (_RELEASED, _RELEASED))
        raise not_writable(path, error) from error
    return Claim(path)


def is_held(folder: Path) -> bool:
    """Whether somebody works on a cell."""
    newest = _newest(folder)
    return newest is not None and _is_valid(newest)


def server_time(folder: Path) -> float:
    """The time by the clock of the machine that keeps a folder, in seconds."""
    with TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("claim-*.json"), default=None)


def _is_valid(claim: Path) -> bool:
    try:
        touched = claim.stat().st_mtime
        content = claim.read_text()
    except OSError:  # unreadable for the moment: leave it to the next look
        return True
    # A time in the future was given by a clock that has been put right since; a living holder soon gives another.
    if touched == _RELEASED or abs(server_time(claim.parent) - touched) > VOID_SECONDS:
        return False
    with suppress(ValueError):  # not yet written
        return not _has_ended(json.loads(content))
    return True


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether a process is known to have ended; that of another machine is not."""
    here = _this_process()
    if not here["machine"] or holder.get("machine") != here["machine"]:
        return False
    return _started(int(holder["process"])) != str(holder["started"])


def _this_process() -> dict[str, Any]:
    """What tells this process from every other one, on this machine and elsewhere."""
    machine = ""
    with suppress(OSError):  # Linux; elsewhere claims become void by time alone
        # Containers on one machine share its boot, but number their processes each for itself.
        namespace = Path("/proc/self/ns/pid").readlink()
        machine = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {namespace}"
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": machine,
        "started": _started(os.getpid()),
    }


def _started(process: int) -> str:
    """When a process of this machine started, in clock ticks after boot; numbers of processes are used again.

    Empty for a process that has ended.
    """
    try:
        # The second field, the command's name, may hold spaces and parentheses.
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]
