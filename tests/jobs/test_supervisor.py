"""Supervisors: how many workers they start, and what becomes of the jobs of the dead."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from in_this_process import InThisProcess
from numbered_work import NumberedWork
from optuna.trial import TrialState

from audio_lrp.errors import UserError
from audio_lrp.jobs import supervise, supervisor, worker
from audio_lrp.jobs.queue import DIED, ENDED, STOPPED, Queue, waiting
from audio_lrp.jobs.supervisor import _Crew, _Others
from audio_lrp.utils.processes import process_name

ELSEWHERE = "another-machine-1-1"


class Started(InThisProcess):
    """A worker that was started and has done nothing so far."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.alive = True

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.alive, self.exitcode = False, -9


def crew(queue: Queue, size: int, url: str) -> _Crew:
    made = _Crew(NumberedWork(url), queue, size)
    made._spawn.Process = Started  # type: ignore[method-assign]
    return made


@pytest.fixture(autouse=True)
def _workers(workers_in_this_process: None) -> None:
    """No worker here is a process."""


def test_all_jobs_are_done(url: str) -> None:
    work = NumberedWork(url)
    queue = supervise(work, 1, unit="job")
    assert work.done == work.jobs
    assert {trial.state for trial in queue.latest()} == {TrialState.COMPLETE}
    supervise(work, 1, unit="job")
    assert len(work.done) == 6


@pytest.mark.parametrize(("size", "to_start", "started"), [(2, 6, 2), (40, 3, 3), (4, 0, 0)])
def test_no_more_workers_than_jobs(url: str, size: int, to_start: int, started: int) -> None:
    made = crew(NumberedWork(url).queue(), size, url)
    made.keep_up(to_start)
    made.keep_up(to_start)
    assert len(made._alive) == started


def test_the_job_of_a_dead_worker_is_repeated_by_another(url: str) -> None:
    queue = NumberedWork(url).queue()
    made = crew(queue, 1, url)
    made.keep_up(6)
    attempt = queue.start("0", made.name, process_name())
    made.bury()
    assert len(made._alive) == 1
    made._alive[0][0].kill()
    made.bury()
    assert queue.study.trials[attempt.number].user_attrs[ENDED] == DIED
    made.keep_up(6)
    assert len(made._alive) == 1


def test_a_worker_whose_job_others_have_taken_is_ended(url: str) -> None:
    queue = NumberedWork(url).queue()
    made = crew(queue, 1, url)
    made.keep_up(6)
    attempt = queue.start("0", made.name, process_name())
    queue.end(attempt.number, STOPPED)  # by a supervisor that had heard nothing for long
    process = made._alive[0][0]
    made.bury()
    assert not process.is_alive()
    assert made._alive == {}


def test_a_stopped_supervisor_leaves_its_jobs_to_the_next(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = NumberedWork(url, failing={"2": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        supervise(work, 1, unit="job")
    again = NumberedWork(url)
    supervise(again, 1, unit="job")
    assert work.done + again.done == work.jobs


def test_a_full_disk_ends_the_work_and_not_the_job(url: str) -> None:
    work = NumberedWork(url, failing={"1": OSError(28, "No space left on device")})
    with pytest.raises(UserError, match="the disk is full"):
        supervise(work, 1, unit="job")
    again = NumberedWork(url)
    supervise(again, 1, unit="job")
    assert again.done == ["1", "2", "3", "4", "5"]


def test_a_worker_that_cannot_work(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = NumberedWork(url, folder=tmp_path)
    worker.log_file(work, os.getpid()).write_text("no library\n")
    monkeypatch.setattr(InThisProcess, "start", lambda self: setattr(self, "exitcode", 1))
    with pytest.raises(UserError, match=r"could not work \(no library\)"):
        supervise(work, 1, unit="job")


@pytest.mark.slow
def test_why_a_worker_cannot_work_is_in_its_log(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here its process cannot open the storage."""
    monkeypatch.setattr(supervisor, "multiprocessing", multiprocessing)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    work = NumberedWork(url, folder=tmp_path, storage_of_workers="oracle://nowhere")
    with pytest.raises(UserError, match=r"could not work \(.*no driver for it is installed"):
        supervise(work, 1, unit="job")


def test_the_dead_of_this_machine_are_known_at_once(url: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(ended.pid)
    queue = NumberedWork(url).queue()
    queue.start("0", name, name)
    others = _Others(queue)
    others.bury("me")
    assert "0" not in waiting(["0"], queue.attempts())
    ended.kill()
    time.sleep(0.2)  # nobody has asked for its exit code so far
    others.bury("me")
    assert "0" in waiting(["0"], queue.attempts())
    ended.wait()


def test_on_another_machine_silence_is_death(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before a first sign of life, and whatever the clocks say."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue = NumberedWork(url).queue()
    queue.start("0", ELSEWHERE, ELSEWHERE)
    queue.start("1", "a-third-one-2-2", "a-third-one-2-2")
    others = _Others(queue)
    for beat in range(4):
        queue.study.set_user_attr(ELSEWHERE, beat)
        others.bury("me")
        now[0] += supervisor.GRACE - 1
    assert waiting(["0", "1"], queue.attempts()) == ["1"]
    others.bury("me")
    assert waiting(["0", "1"], queue.attempts()) == ["1"]
    now[0] += supervisor.GRACE
    others.bury("me")
    assert waiting(["0", "1"], queue.attempts()) == ["0", "1"]
    assert {trial.user_attrs[ENDED] for trial in queue.attempts()} == {STOPPED}


def test_signs_of_life_are_given_now_and_then(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue = NumberedWork(url).queue()
    made = crew(queue, 1, url)
    beats = []
    for _ in range(5):
        made.give_sign_of_life()
        beats.append(queue.study.user_attrs[made.name])
        now[0] += supervisor.HEARTBEAT / 2 + 1
    assert beats == [1, 1, 2, 2, 3]
    assert 2 * supervisor.HEARTBEAT < supervisor.GRACE
