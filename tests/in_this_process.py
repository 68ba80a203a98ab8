"""A stand-in for the processes of a queue's workers, which would take seconds to start and see no monkeypatch."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from audio_lrp.jobs import supervisor
from audio_lrp.jobs.queue import Queue
from audio_lrp.jobs.worker import Work, do_jobs


class InThisProcess:
    """Does all that a worker's process would do, at its start."""

    pid = os.getpid()

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._args = args
        self.exitcode = 0

    def start(self) -> None:
        work: Work
        work, ignored, name, _, _ = self._args
        try:
            do_jobs(work, Queue(work.open(), ignored), name)
        except SystemExit as error:
            self.exitcode = int(error.code or 0)

    def is_alive(self) -> bool:
        return False

    def kill(self) -> None:
        pass

    def join(self) -> None:
        pass


def use_this_process(patch: pytest.MonkeyPatch) -> None:
    """Have workers work in this process as long as the patch lasts."""
    context = SimpleNamespace(Process=InThisProcess)
    patch.setattr(supervisor, "multiprocessing", SimpleNamespace(get_context=lambda _: context))
    patch.setattr(supervisor, "_POLL", 0)
