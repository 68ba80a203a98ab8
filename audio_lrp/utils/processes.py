"""Names of processes, by which a process of this machine can tell whether another one has ended."""

import os
import socket
from pathlib import Path

_PROC = Path("/proc")


def process_name(number: int | None = None) -> str:
    """What tells a process from every other one, on this machine and elsewhere.

    Args:
        number: the process's number on this machine; by default this process's.
    """
    number = number or os.getpid()
    return f"{_machine()}-{number}-{_started(number)}"


def has_ended(name: str) -> bool:
    """Whether the process of a name is known to have ended; that of another machine is not."""
    machine, number, started = name.rsplit("-", 2)
    return machine == _machine() and _started(int(number)) != started


def _machine() -> str:
    """This machine since it was started; on Linux also the container, as each numbers its processes for itself."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}-{boot}-{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started(number: int) -> str:
    """When a process of this machine started, as numbers are used again; empty for one that has ended."""
    if _PROC.is_dir():
        try:  # the second field, the command's name, may hold spaces and parentheses
            state, *fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state == "Z" else fields[18]
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # another user's
        pass
    return "running"
