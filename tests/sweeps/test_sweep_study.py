"""Workers share a sweep's storage: each point is tried once, and again where its worker died."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from audio_lrp.errors import UserError
from audio_lrp.sweeps import worker
from audio_lrp.sweeps.study import (
    default_storage,
    is_finished,
    latest,
    open_study,
    points,
    repeat,
    running,
    sign,
    startable,
    unsigned,
)
from audio_lrp.sweeps.sweep_file import Sweep, make_sweep
from audio_lrp.sweeps.worker import Job, run_trials, worker_name

CONTENT: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "score", "goal": "maximize"},
    "command": ["audio-lrp", "fit", "${args}"],
    "parameters": {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}},
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return default_storage(tmp_path)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The points that were tried, by trials that take a moment and train nothing."""
    found: list[dict[str, Any]] = []

    def run_trial(trial: optuna.Trial, sweep: Sweep, point: dict[str, Any], folder: Path) -> float:
        found.append(dict(point))
        trial.report(point["a"], 1)
        time.sleep(0.05)
        return float(point["a"])

    monkeypatch.setattr(worker, "run_trial", run_trial)
    return found


def job(url: str, content: dict[str, Any], total: int) -> Job:
    return Job("name", content, url, total, Path(), workers=1)


def work(url: str, content: dict[str, Any], total: int, **settings: int) -> optuna.Study:
    sweep = make_sweep(content)
    study = open_study(url, "name", sweep, content, **settings)
    run_trials(study, sweep, job(url, content, total))
    return study


def several_work(url: str, content: dict[str, Any], total: int, workers: int) -> list[FrozenTrial]:
    open_study(url, "name", make_sweep(content), content)
    with ThreadPoolExecutor(workers) as pool:
        studies = list(pool.map(lambda _: work(url, content, total), range(workers)))
    return studies[0].get_trials()


class TestSharing:
    """Several workers, one sweep."""

    def test_every_point_of_a_grid_once(self, url: str, tried: list[dict[str, Any]]) -> None:
        trials = several_work(url, CONTENT, 6, workers=4)
        assert Counter(map(str, tried)) == Counter(map(str, make_sweep(CONTENT).grid))
        assert len(points(trials)) == len(latest(trials)) == 6
        assert {trial.state for trial in latest(trials)} == {TrialState.COMPLETE}
        best = max(latest(trials), key=lambda trial: trial.value or 0)
        assert best.user_attrs["parameters"]["a"] == 3

    def test_exactly_as_many_trials_as_asked_for_and_then_more(self, url: str, tried: list[dict[str, Any]]) -> None:
        content = CONTENT | {"method": "bayes"}
        assert len(points(several_work(url, content, 4, workers=3))) == len(tried) == 4
        study = work(url, content, 5)  # the same sweep goes on
        assert len(points(study.get_trials())) == len(tried) == 5
        assert is_finished(study, make_sweep(content), 5)

    def test_target_ends_the_sweep(self, url: str, tried: list[dict[str, Any]]) -> None:
        content = CONTENT | {"metric": {"name": "score", "goal": "maximize", "target": 2}}
        study = work(url, content, 6)
        assert [point["a"] for point in tried] == [1, 1, 2]
        assert is_finished(study, make_sweep(content), 12)

    def test_a_trial_that_begins_at_this_moment_is_not_finished(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep = make_sweep(CONTENT)
        study = open_study(url, "name", sweep, CONTENT)
        read = study.get_trials

        def read_just_before_it_begins(*arguments: Any, **options: Any) -> list[FrozenTrial]:
            trials = list(read(*arguments, **options))
            if not trials:
                study.ask()
            return trials

        monkeypatch.setattr(study, "get_trials", read_just_before_it_begins)
        assert not is_finished(study, sweep, 1)
        assert not is_finished(study, sweep, 1)

    def test_another_file_of_the_same_name(self, url: str) -> None:
        open_study(url, "name", make_sweep(CONTENT), CONTENT)
        other = CONTENT | {"method": "random"}
        with pytest.raises(UserError, match=r"another file \(method differs\).*--name"):
            open_study(url, "name", make_sweep(other), other)


class TestDeadWorkers:
    """A trial outlives its worker."""

    def test_trial_is_repeated_at_its_own_point(self, url: str, tried: list[dict[str, Any]]) -> None:
        sweep = make_sweep(CONTENT)
        study = open_study(url, "name", sweep, CONTENT)
        lost = study.ask()
        point = {name: parameter.draw(lost, name) for name, parameter in sweep.parameters.items()}
        lost.set_user_attr("worker", worker_name(0))
        assert [trial.number for trial in running(study, worker_name(0))] == [0]
        assert running(study, worker_name(1)) == []
        repeat(study, running(study, worker_name(0))[0])
        assert startable(study, sweep, 6) == 6
        run_trials(study, sweep, job(url, CONTENT, 6))
        assert tried[0] == point == sweep.grid[0]
        assert Counter(map(str, tried)) == Counter(map(str, sweep.grid))
        states = Counter(trial.state for trial in study.get_trials())
        assert states == {TrialState.COMPLETE: 6, TrialState.FAIL: 1}
        assert len(latest(study.get_trials())) == 6

    @pytest.mark.parametrize("before", [0, 2])
    def test_a_trial_that_died_before_it_drew_is_repeated_at_its_own_point(
        self, url: str, tried: list[dict[str, Any]], before: int
    ) -> None:
        study = open_study(url, "name", make_sweep(CONTENT), CONTENT)
        for _ in range(before):
            run_trials(study, make_sweep(CONTENT), job(url, CONTENT, len(study.trials) + 1))
        for _ in range(2):  # and so did the second attempt
            dying = study.ask()
            sign(dying, "elsewhere-1")
            repeat(study, study.trials[dying.number])
        study = work(url, CONTENT, 6)
        assert sorted((point["a"], point["b"]) for point in tried) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]
        assert {trial.state for trial in latest(study.trials)} == {TrialState.COMPLETE}

    def test_death_before_the_first_sign_of_life(self, url: str, tried: list[dict[str, Any]]) -> None:
        study = open_study(url, "name", make_sweep(CONTENT), CONTENT)
        lost, working = study.ask(), study.ask()
        sign(working, "elsewhere-1")
        optuna.storages.fail_stale_trials(study)
        assert [trial.number for trial in unsigned(study, 0)] == [lost.number]
        assert unsigned(study) == []  # its worker may be about to sign it
        repeat(study, unsigned(study, 0)[0])
        assert unsigned(study, 0) == []
        run_trials(study, make_sweep(CONTENT), job(url, CONTENT, 2))
        assert [(point["a"], point["b"]) for point in tried] == [(1, "x")]

    def test_silence_is_death(self, url: str, tried: list[dict[str, Any]]) -> None:
        # As on another machine, which nobody here can look at.
        sweep = make_sweep(CONTENT)
        study = open_study(url, "name", sweep, CONTENT, heartbeat=1, grace=1)
        lost = study.ask()
        study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]
        assert not is_finished(study, sweep, 1)
        time.sleep(2.5)
        optuna.storages.fail_stale_trials(study)
        assert startable(study, sweep, 1) == 1
        assert len(latest(work(url, CONTENT, 1, heartbeat=1, grace=1).get_trials())) == len(tried) == 1

    def test_a_trial_that_kills_every_worker_is_given_up(self, url: str) -> None:
        sweep = make_sweep(CONTENT)
        study = open_study(url, "name", sweep, CONTENT)
        for _ in range(4):
            study.ask().set_user_attr("worker", "w")
            repeat(study, running(study, "w")[0])
        assert startable(study, sweep, 1) == 0
        assert [trial.state for trial in latest(study.get_trials())] == [TrialState.FAIL]
        assert is_finished(study, sweep, 1)

    def test_a_crash_is_recorded_and_not_repeated(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def run_trial(trial: optuna.Trial, sweep: Sweep, point: dict[str, Any], folder: Path) -> float:
            if trial.number == 1:
                raise RuntimeError("boom\n  at home")
            if trial.number == 2:
                raise UserError("mend it")
            return 1.0

        monkeypatch.setattr(worker, "run_trial", run_trial)
        trials = work(url, CONTENT, 4).get_trials()
        assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
        assert [trial.user_attrs["failure"] for trial in trials[1:3]] == ["RuntimeError: boom at home", "mend it"]


class TestStorage:
    """What is wrong with a storage, in one sentence."""

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("postgresql://me:secret@127.0.0.1:1/x", r"^(?!.*secret).*127.0.0.1:1/x cannot be used \(.*refused"),
            ("mysql://me:secret@127.0.0.1:1/x", r"^(?!.*secret).*127.0.0.1:1/x cannot be used \(.*refused"),
            ("sqlite:////no/such/folder/study.db", "cannot be used .*unable to open database file"),
            ("oracle://me@host/x", "no driver for it is installed"),
            ("nonsense://x", "no driver for it is installed"),
            ("study.db", "no URL of a database: sqlite:///FILE, postgresql"),
        ],
    )
    def test_unusable(self, url: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_study(url, "name", make_sweep(CONTENT), CONTENT)

    def test_postgresql(self, postgresql: str, tried: list[dict[str, Any]]) -> None:
        with ThreadPoolExecutor(4) as pool:  # machines that begin at the same moment: one makes the tables
            opened = pool.map(lambda _: open_study(postgresql, "name", make_sweep(CONTENT), CONTENT), range(4))
            assert len({study._study_id for study in opened}) == 1
        trials = several_work(postgresql, CONTENT, 6, workers=3)
        assert Counter(map(str, tried)) == Counter(map(str, make_sweep(CONTENT).grid))
        assert {trial.state for trial in latest(trials)} == {TrialState.COMPLETE}


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A server of Debian's package, on a socket of its own."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("pg_ctl") or "").resolve().parent]
    found = next((folder for folder in programs if (folder / "initdb").exists()), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    with TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *options: str) -> None:
            command = [found / program, f"--pgdata={folder}/data", *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)

        run("initdb", "--username=tests", "--auth=trust", "--no-sync")
        run("pg_ctl", "start", "--wait", "--log=log", f"--options=-k {folder} -h ''")
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
