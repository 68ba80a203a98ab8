"""A sweep on the job queue: which points are tried, by how many trials, and when it ends."""

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from audio_lrp.errors import UserError
from audio_lrp.jobs import Queue, default_storage
from audio_lrp.jobs.queue import DIED, ENDED
from audio_lrp.jobs.worker import do_jobs
from audio_lrp.sweeps import work
from audio_lrp.sweeps.sweep_file import Sweep, make_sweep
from audio_lrp.sweeps.work import SweepWork

CONTENT: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "score", "goal": "maximize"},
    "command": ["audio-lrp", "fit", "${args}"],
    "parameters": {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}},
}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The points that were tried, by trials that train nothing."""
    found: list[dict[str, Any]] = []

    def run_trial(trial: optuna.Trial, sweep: Sweep, point: dict[str, Any], folder: Path) -> float:
        found.append(dict(point))
        trial.report(point["a"], 1)
        return float(point["a"])

    monkeypatch.setattr(work, "run_trial", run_trial)
    return found


def run(folder: Path, total: int, workers: int = 1, **changes: Any) -> list[FrozenTrial]:
    """Run a sweep, and give the last trial of each point."""
    made = SweepWork("name", CONTENT | changes, default_storage(folder), total, folder)
    queues = [Queue(made.open()) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda queue: do_jobs(made, queue, "here"), queues))
    return queues[0].latest()


def test_every_point_of_a_grid_once(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    trials = run(tmp_path, 6, workers=4)
    assert Counter(map(str, tried)) == Counter(map(str, make_sweep(CONTENT).grid))
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert max(trials, key=lambda trial: trial.value or 0).user_attrs["parameters"]["a"] == 3


def test_a_point_of_a_grid_is_repeated_where_its_worker_died(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    """Also before it drew its parameters."""
    queue = Queue(SweepWork("name", CONTENT, default_storage(tmp_path), 6, tmp_path).open())
    for job in ("0", "4", "4"):
        queue.end(queue.start(job, "there", "there-1").number, DIED)
    run(tmp_path, 6)
    assert tried == make_sweep(CONTENT).grid


def test_exactly_as_many_trials_as_asked_for_and_then_more(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    assert len(run(tmp_path, 4, workers=3, method="bayes")) == len(tried) == 4
    assert len(run(tmp_path, 5, method="bayes")) == len(tried) == 5


def test_a_target_ends_the_sweep(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    run(tmp_path, 6, metric={"name": "score", "goal": "maximize", "target": 2})
    assert [point["a"] for point in tried] == [1, 1, 2]


def test_another_file_of_the_same_name(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    run(tmp_path, 1)
    with pytest.raises(UserError, match=r"method differs.*--name"):
        run(tmp_path, 1, method="random")


def test_progress(tmp_path: Path, tried: list[dict[str, Any]]) -> None:
    made = SweepWork("name", CONTENT, default_storage(tmp_path), 6, tmp_path)
    queue = Queue(made.open())
    assert made.progress(queue.attempts()) == (0, "running 0, pruned 0")
    run(tmp_path, 3)
    queue.start("5", "there", "there-1")
    assert made.progress(queue.attempts()) == (3, "running 1, pruned 0, best score 2")
    assert all(ENDED not in trial.user_attrs for trial in queue.latest())


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    parameters = {"a": {"distribution": "log_normal"}, "b": {"values": [1, 2], "probabilities": [0.1, 0.9]}}
    made = SweepWork("name", CONTENT | {"method": "random", "parameters": parameters}, "", 6, tmp_path)
    assert made.sweep.method == "random"
    assert pickle.loads(pickle.dumps(made)).jobs == made.jobs
