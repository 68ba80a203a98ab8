"""Work on all cores: results in order and bounded in number, errors, and processes that end."""

import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest import mock

import pytest
import torch
from waiting import wait_until

from audio_lrp.utils.parallel import (
    BATCH,
    BATCHES_IN_MEMORY,
    WORTH_PROCESSES,
    _workers,
    map_in_processes,
    map_in_threads,
    usable_cores,
)


@pytest.fixture(params=[map_in_threads, map_in_processes])
def map_on_all_cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both maps, the second of them really in two processes, however few the items and the cores."""
    monkeypatch.setattr("audio_lrp.utils.parallel.WORTH_PROCESSES", 1)
    monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 2)
    return request.param


class TestMaps:
    @pytest.mark.parametrize("count", [0, 1, BATCH, BATCH * BATCHES_IN_MEMORY, 3 * BATCH * BATCHES_IN_MEMORY + 5])
    def test_results_come_in_order(self, count: int, map_on_all_cores: Any) -> None:
        doubled = map_on_all_cores(lambda items: [2 * item for item in items], range(count))
        assert list(doubled) == list(range(0, 2 * count, 2))

    def test_the_function_gets_a_batch_at_a_time(self, map_on_all_cores: Any) -> None:
        sizes = list(map_on_all_cores(lambda items: [len(items)] * len(items), range(BATCH + 2)))
        assert sizes == [*[BATCH] * BATCH, 2, 2]

    def test_results_wait_for_the_caller_in_bounded_number(self, map_on_all_cores: Any) -> None:
        begun = multiprocessing.get_context("fork").Value("q", 0)

        def begin(items: range) -> range:
            with begun.get_lock():
                begun.value += len(items)
            return items

        results = map_on_all_cores(begin, range(10 * BATCH * BATCHES_IN_MEMORY))
        next(results)
        time.sleep(0.05)
        assert begun.value <= BATCH * BATCHES_IN_MEMORY
        results.close()

    def test_errors_reach_the_caller(self, map_on_all_cores: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            list(map_on_all_cores(lambda items: [1 // item for item in items], range(-3, 3)))

    def test_errors_keep_what_they_know(self, map_on_all_cores: Any, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            list(map_on_all_cores(partial(map, Path.stat), [tmp_path / "missing"]))
        assert caught.value.filename == str(tmp_path / "missing")

    def test_random_numbers_drawn_later_are_the_same(self, map_on_all_cores: Any) -> None:
        before = torch.get_rng_state()
        list(map_on_all_cores(partial(map, abs), range(100)))
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be kept from a process here")
def test_cores_kept_from_this_process_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
        assert _workers(WORTH_PROCESSES) == {"num_workers": 0}
    finally:
        os.sched_setaffinity(0, allowed)


def test_no_processes_where_they_cannot_be_coordinated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 2)
    assert _workers(WORTH_PROCESSES)["num_workers"] == 2

    def refuse() -> None:
        raise OSError(28, "No space left on device")  # /dev/shm is full

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    assert _workers(WORTH_PROCESSES) == {"num_workers": 0}


def test_as_many_threads_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: BATCHES_IN_MEMORY + 4)
    together = Barrier(BATCHES_IN_MEMORY + 4)  # nobody gets through unless all are there

    def meet(items: range) -> range:
        together.wait(timeout=30)
        return items

    count = BATCH * (BATCHES_IN_MEMORY + 4)
    assert list(map_in_threads(meet, range(count))) == list(range(count))


class TestMapInProcesses:
    def processes(self, count: int) -> set[int]:
        return set(map_in_processes(_process, range(count)))

    @pytest.mark.parametrize("cores", [3, BATCHES_IN_MEMORY + 4, 1000])
    def test_no_more_processes_than_batches(self, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
        monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: cores)
        workers = _workers(WORTH_PROCESSES)
        assert workers["num_workers"] == min(cores, math.ceil(WORTH_PROCESSES / BATCH))
        assert workers["num_workers"] * workers["prefetch_factor"] < max(BATCHES_IN_MEMORY, cores + 1)

    def test_all_cores_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 2)
        working = self.processes(WORTH_PROCESSES)
        assert len(working) == 2
        assert os.getpid() not in working

    def test_few_items_are_not_worth_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 2)
        assert self.processes(WORTH_PROCESSES - 1) == {os.getpid()}

    def test_nor_is_one_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audio_lrp.utils.parallel.usable_cores", lambda: 1)
        assert self.processes(WORTH_PROCESSES) == {os.getpid()}

    def test_processes_that_may_not_start_others_do_it_themselves(self) -> None:
        context: Any = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=_work_in_processes, args=(answers,), daemon=True)
        process.start()
        assert answers.get(timeout=60) == {process.pid}
        process.join(timeout=60)

    def test_processes_of_one_that_is_killed_end(self) -> None:
        context: Any = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=_give_much, args=(answers,))
        process.start()
        workers = answers.get(timeout=60)
        time.sleep(0.2)  # until their pipes are full
        process.kill()
        process.join(timeout=60)
        assert len(workers) == 2
        wait_until(lambda: not any(map(_runs, workers)), seconds=10)


def _process(items: Sequence[int]) -> list[int]:
    """The process that works on each item."""
    return [os.getpid() for _ in items]


def _give_much(answers: Any) -> None:
    """Take a little of what two processes have to give, and say which they are."""
    with mock.patch("audio_lrp.utils.parallel.usable_cores", return_value=2):
        results = map_in_processes(lambda items: [(os.getpid(), bytes(100_000)) for _ in items], range(WORTH_PROCESSES))
        answers.put({next(results)[0] for _ in range(2 * BATCH)})
        time.sleep(60)


def _runs(process: int) -> bool:
    """Whether there is such a process that is more than an entry for its parent to read."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _work_in_processes(answers: Any) -> None:
    """Say which processes work where there are two cores."""
    with mock.patch("audio_lrp.utils.parallel.usable_cores", return_value=2):
        answers.put(set(map_in_processes(_process, range(WORTH_PROCESSES))))
