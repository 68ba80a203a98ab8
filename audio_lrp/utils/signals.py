"""Ends that come from outside, by SIGTERM for example: a command ends as it does when the user interrupts it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NamedTuple

from audio_lrp.errors import with_causes

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""What terminals and schedulers announce an end by; all of them would end the process anyway, without a word.

SIGUSR1 as well in a job of SLURM, where Lightning would put the job back into the queue: its second start has a run
folder of its own, so that the training would begin anew.
"""
_BURST_SECONDS: Final = 5.0
"""Time for an orderly end after a signal, in which others are ignored: schedulers send several."""

_received: list[tuple[int, float]] = []
"""Signals, each with its time."""


class Terminated(KeyboardInterrupt):
    """A signal asks this process to end.

    Whatever ends in order after Ctrl-C, which is a KeyboardInterrupt too, does so after the signal.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption(NamedTuple):
    """What ended a command early.

    Attributes:
        name: as the user is told, e.g. ``"ended by SIGTERM"``.
        exit_code: the shell's for it, e.g. 143.
        notes: what was added on the way, e.g. how to resume.
    """

    name: str
    exit_code: int
    notes: list[str]


@contextmanager
def orderly_end() -> Iterator[None]:
    """Have the signals raise :class:`Terminated` in the block; those that are ignored already (``nohup``) stay so."""
    process = os.getpid()
    _received.clear()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:  # forked from it, by a DataLoader for example: not its to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        now = time.monotonic()
        if not _received or now - _received[-1][1] > _BURST_SECONDS:
            _received.append((number, now))
            raise Terminated(number)

    in_main_thread = threading.current_thread() is threading.main_thread()  # Python's condition for what follows
    free = [number for number in _ENDING if in_main_thread and signal.getsignal(number) == signal.SIG_DFL]
    for number in free:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)


def end_if_terminated() -> None:
    """Raise once more what a signal raised, where work goes on as if there had been none.

    Python drops what is raised in a finalizer, and libraries in C++ turn it into an error of their own.

    Raises:
        Terminated: a signal was received.
    """
    if _received:
        raise Terminated(_received[0][0])


def interruption(error: BaseException | None) -> Interruption | None:
    """The interruption by the user or a signal that an error, or what it was raised after, comes from.

    Lightning turns one into a SystemExit, and what it interrupts may fail in its own way, as a DataLoader does whose
    processes got the signal too.
    """
    found: KeyboardInterrupt | None = None
    notes: list[str] = []
    for each in with_causes(error):
        notes += getattr(each, "__notes__", [])
        if found is None and isinstance(each, KeyboardInterrupt):
            found = each
    if found is None:
        return None
    if isinstance(found, Terminated):
        return Interruption(f"ended by {found}", 128 + found.number, notes)
    return Interruption("interrupted", 128 + signal.SIGINT, notes)
