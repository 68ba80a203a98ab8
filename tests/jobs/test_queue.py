"""Workers share a queue: each job is done once, and begun again where it came to no result."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from numbered_work import NumberedWork
from optuna.trial import TrialState

from audio_lrp.errors import UserError
from audio_lrp.jobs import JOB, Queue
from audio_lrp.jobs.queue import DIED, ENDED, MOST_DEATHS, STOPPED, came_to_nothing, running, waiting
from audio_lrp.jobs.worker import do_jobs


def states(queue: Queue) -> list[str]:
    return [trial.user_attrs.get(ENDED, trial.state.name) for trial in queue.study.get_trials()]


def assert_several_do_each_job_once(url: str) -> None:
    works = [NumberedWork(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:  # machines that begin at the same moment: one makes the storage
        queues = list(pool.map(lambda work: work.queue(), works))
        list(pool.map(lambda work, queue: do_jobs(work, queue, "here"), works, queues))
    assert len({queue.study._study_id for queue in queues}) == 1
    assert sorted(job for work in works for job in work.done) == works[0].jobs
    assert Counter(states(queues[0]))["COMPLETE"] == len(queues[0].latest()) == 6
    assert sum(len(work.done) > 0 for work in works) > 1


class TestSharing:
    def test_in_a_journal(self, url: str) -> None:
        assert_several_do_each_job_once(url)

    def test_in_sqlite(self, url: str) -> None:
        assert_several_do_each_job_once(url.replace("journal", "sqlite", 1).replace("://", ":///"))

    def test_in_postgresql(self, postgresql: str) -> None:
        assert_several_do_each_job_once(postgresql)

    def test_of_many_who_begin_a_job_at_once_one_succeeds(self, url: str) -> None:
        work = NumberedWork(url, count=15)
        work.queue()

        def begin_all(name: str) -> list[str]:
            queue = work.queue()
            return [job for job in work.jobs if queue.start(job, name, name) is not None]

        with ThreadPoolExecutor(5) as pool:
            begun = list(pool.map(begin_all, "abcde"))
        assert sorted(job for jobs in begun for job in jobs) == sorted(work.jobs)
        assert len(running(work.queue().attempts())) == 15

    def test_more_jobs_than_before(self, url: str) -> None:
        do_jobs(NumberedWork(url, count=4), NumberedWork(url).queue(), "here")
        work = NumberedWork(url, count=5)
        do_jobs(work, work.queue(), "here")
        assert work.done == ["4"]


class TestRepeating:
    @pytest.mark.parametrize("draws", [True, False])
    @pytest.mark.parametrize("reason", [DIED, STOPPED])
    def test_a_job_without_result_is_begun_again_at_its_own_parameters(
        self, url: str, draws: bool, reason: str
    ) -> None:
        """Also where the second attempt ended before it drew."""
        queue = NumberedWork(url).queue()
        first = queue.start("3", "there", "there-1")
        drawn = first.suggest_float("x", 0, 1)
        queue.end(first.number, reason)
        queue.end(first.number, reason)  # two may notice at once
        second = queue.start("3", "there", "there-2")
        if draws:
            assert second.suggest_float("x", 0, 1) == drawn
        queue.end(second.number, reason)
        assert [came_to_nothing(trial) for trial in queue.attempts()] == [True, True]
        work = NumberedWork(url)
        do_jobs(work, queue, "here")
        assert work.done == work.jobs
        values = {trial.user_attrs[JOB]: trial.params["x"] for trial in queue.latest()}
        assert values["3"] == drawn
        assert len(set(values.values())) == 6

    def test_a_job_that_kills_every_worker_is_given_up(self, url: str) -> None:
        queue = NumberedWork(url).queue()
        for _ in range(MOST_DEATHS):
            assert waiting(["0"], queue.attempts()) == ["0"]
            queue.end(queue.start("0", "here", "here-1").number, DIED)
        assert waiting(["0"], queue.attempts()) == []
        assert waiting(["0"], NumberedWork(url).queue(ignored=frozenset(range(MOST_DEATHS))).attempts()) == ["0"]

    def test_a_job_is_interrupted_as_often_as_the_user_likes(self, url: str) -> None:
        queue = NumberedWork(url).queue()
        for _ in range(2 * MOST_DEATHS):
            queue.end(queue.start("0", "here", "here-1").number, STOPPED)
        assert waiting(["0"], queue.attempts()) == ["0"]

    def test_a_failure_is_recorded_and_not_repeated(self, url: str) -> None:
        failing = {"1": RuntimeError("boom\n  at home"), "2": UserError("fix it"), "3": optuna.TrialPruned()}
        work = NumberedWork(url, count=5, failing=failing)
        do_jobs(work, work.queue(), "here")
        attempts = work.queue().attempts()
        assert [trial.state.name for trial in attempts] == ["COMPLETE", "FAIL", "FAIL", "PRUNED", "COMPLETE"]
        assert [trial.user_attrs["failure"] for trial in attempts[1:3]] == ["RuntimeError: boom at home", "fix it"]

    def test_what_is_ignored_is_done_again(self, url: str) -> None:
        work = NumberedWork(url, count=2, failing={"1": RuntimeError("boom")})
        do_jobs(work, work.queue(), "here")
        again = NumberedWork(url, count=3)
        do_jobs(again, again.queue(frozenset({1})), "here")
        assert again.done == ["1", "2"]
        assert states(again.queue()) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]

    def test_an_attempt_given_to_another_worker_costs_its_own_nothing(self, url: str) -> None:
        """The machine slept: for the others this worker was dead, and it was not."""
        work = NumberedWork(url, count=2)
        queue, run, begun = work.queue(), work.run, []

        def taken_at_first(attempt: optuna.Trial, job: str) -> float:
            begun.append(job)
            if len(begun) == 1:
                queue.end(attempt.number, STOPPED)
            return run(attempt, job)

        work.run = taken_at_first  # type: ignore[method-assign]
        do_jobs(work, queue, "here")
        assert begun == ["0", "0", "1"]
        assert states(queue) == [STOPPED, "COMPLETE", "COMPLETE"]
        assert {trial.state for trial in queue.latest()} == {TrialState.COMPLETE}
