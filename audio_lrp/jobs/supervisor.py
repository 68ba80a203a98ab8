"""The supervisor: keeps the workers of one command alive, has the jobs of the dead repeated, and shows the progress."""

import multiprocessing
import time
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from typing import Final, Never

from optuna.trial import FrozenTrial
from tqdm import tqdm

from audio_lrp.errors import UserError
from audio_lrp.jobs.queue import DIED, ENDED, JOB, STOPPED, SUPERVISOR, WORKER, Queue, running, waiting
from audio_lrp.jobs.storage import storage_errors
from audio_lrp.jobs.worker import DISK_FULL, Work, log_file, run_worker
from audio_lrp.utils.processes import has_ended, process_name

HEARTBEAT: Final = 20.0
"""Seconds between two signs of life of a supervisor."""
GRACE: Final = 120.0
"""Seconds of silence after which a supervisor is taken for dead: longer than NFS clients cache a file (a minute)."""
_POLL: Final = 1.0
"""Seconds between two looks at the queue."""
_MOST_IDLE_DEATHS: Final = 3


def supervise(work: Work, workers: int, *, unit: str, ignored: frozenset[int] = frozenset()) -> Queue:
    """Do all jobs, with the help of whoever else shares the queue, and return once nobody works on one.

    Args:
        work: what to do.
        workers: number of processes on this machine.
        unit: what a job is called in the progress bar.
        ignored: see `Queue`.

    Returns:
        The queue, for what came out.

    Raises:
        UserError: the storage is lost, the disk is full, or no worker can work.
        KeyboardInterrupt: the user has stopped the work, and the workers have ended.
    """
    with storage_errors(work.storage):
        queue = Queue(work.open(), ignored)
        crew, others = _Crew(work, queue, workers), _Others(queue)
        bar: tqdm[Never] = tqdm(total=len(work.jobs), desc=work.name, unit=unit, disable=None)
        try:
            while True:
                crew.give_sign_of_life()
                crew.bury()
                others.bury(crew.name)
                attempts = queue.attempts()
                to_start = len(waiting(work.unfinished(attempts), attempts))
                bar.n, text = work.progress(attempts)
                bar.set_postfix_str(text)
                at_work = [trial for trial in running(attempts) if trial.user_attrs[JOB] in work.jobs]
                if not to_start and not at_work:
                    return queue
                crew.keep_up(to_start)
                time.sleep(_POLL)
        finally:
            bar.close()
            with suppress(Exception):  # a lost storage has been reported by then
                crew.stop()


class _Crew:
    """The workers of this process.

    Args:
        work: what they do.
        queue: the queue that they share.
        size: how many there may be.
    """

    def __init__(self, work: Work, queue: Queue, size: int) -> None:
        self.name = process_name()
        self._work = work
        self._queue = queue
        self._size = size
        self._spawn = multiprocessing.get_context("spawn")  # a fork would share PyTorch's and the database's state
        self._alive: dict[int, tuple[SpawnProcess, str]] = {}
        """By the share of the machine that a worker has taken: its process, and that one's name."""
        self._idle_deaths = 0
        self._beats = 0
        self._last_beat = 0.0

    def give_sign_of_life(self) -> None:
        """Count one up in the queue, now and then: supervisors of other machines watch the number change."""
        if not self._beats or time.monotonic() - self._last_beat > HEARTBEAT:
            self._beats, self._last_beat = self._beats + 1, time.monotonic()
            self._queue.study.set_user_attr(self.name, self._beats)

    def keep_up(self, to_start: int) -> None:
        """Start as many workers as there is work for."""
        busy = {trial.user_attrs[WORKER] for trial in self._running()}
        wanted = min(self._size, to_start + sum(name in busy for _, name in self._alive.values()))
        for index in range(self._size):
            if index not in self._alive and len(self._alive) < wanted:
                task = (self._work, self._queue.ignored, self.name, self._size, index)
                process = self._spawn.Process(target=run_worker, args=task)
                process.start()
                self._alive[index] = (process, process_name(process.pid))

    def bury(self) -> None:
        """Have the jobs of dead workers repeated; end workers whose jobs others have taken, as if this one were dead.

        Raises:
            UserError: the disk is full, or no worker can work.
        """
        taken = {trial.user_attrs[WORKER] for trial in self._queue.attempts() if trial.user_attrs.get(ENDED) == STOPPED}
        for index, (process, name) in list(self._alive.items()):
            if name in taken:
                process.kill()
                process.join()
            if process.is_alive():
                continue
            del self._alive[index]
            lost = [trial for trial in self._running() if trial.user_attrs[WORKER] == name]
            for trial in lost:
                self._queue.end(trial.number, STOPPED if process.exitcode == DISK_FULL else DIED)
            if process.exitcode == DISK_FULL:
                raise UserError(
                    f"the disk is full in {self._work.folder}: free space there, then run the same command again to "
                    "resume"
                )
            if process.exitcode and not lost and name not in taken:
                self._complain(process)

    def _complain(self, process: SpawnProcess) -> None:
        self._idle_deaths += 1  # killed between two jobs: bad luck, but not again and again
        if (process.exitcode or 0) > 0 or self._idle_deaths > _MOST_IDLE_DEATHS:
            log = log_file(self._work, process.pid or 0)
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise UserError(f"a worker could not work ({''.join(last)}): its output is in {log}")

    def stop(self) -> None:
        """End all workers at once; the next command starts their jobs again."""
        for process, _ in self._alive.values():
            process.kill()
        for process, _ in self._alive.values():
            process.join()
        for trial in self._running():
            self._queue.end(trial.number, STOPPED)

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in running(self._queue.attempts()) if trial.user_attrs[SUPERVISOR] == self.name]


class _Others:
    """The other supervisors of the queue, as far as their signs of life tell.

    Those of this machine are looked at. On other machines a supervisor is dead whose count has not changed for `GRACE`
    seconds by this process's own clock, so that no two clocks need agree.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._seen: dict[str, tuple[int | None, float]] = {}

    def bury(self, own: str) -> None:
        """Have the jobs of dead supervisors repeated."""
        beats = self._queue.study.user_attrs
        for trial in running(self._queue.attempts()):
            name = trial.user_attrs[SUPERVISOR]
            if name == own:
                continue
            gone = has_ended(name) and has_ended(trial.user_attrs[WORKER])
            if gone or self._is_silent(name, beats.get(name)):
                self._queue.end(trial.number, STOPPED)

    def _is_silent(self, name: str, beat: int | None) -> bool:
        now = time.monotonic()
        if name not in self._seen or self._seen[name][0] != beat:
            self._seen[name] = (beat, now)
        return now - self._seen[name][1] > GRACE
