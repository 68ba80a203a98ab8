"""The study that all workers of a sweep share: where it is kept, and which of its trials count.

Workers may be killed at any moment, so nothing about the sweep's progress is kept but the trials themselves. A point
of the sweep is a trial that repeats no other; a trial whose worker died is repeated by another one (Optuna's
heartbeats, which its relational storages have and its journal files have not: hence SQLite where nothing is said).
"""

import copy
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from audio_lrp.errors import UserError
from audio_lrp.sweeps.hyperband import HyperbandPruner
from audio_lrp.sweeps.sweep_file import Sweep

HEARTBEAT = 20
"""Seconds between two signs of life of a worker."""
GRACE = 120
"""Seconds of silence after which a worker is held for dead."""
_MOST_RETRIES = 3
"""How often a trial is begun anew that takes its worker with it, e.g. by running out of memory."""

_MOST_COLLISIONS = 10

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_CONTENT = "sweep"
_SURPLUS = "surplus"
_WORKER = "worker"


class GridSampler(BaseSampler):
    """Gives the n-th point of the sweep the n-th point of the grid, whichever worker runs it.

    Optuna's own may run a point twice where several workers share a study.

    Args:
        sweep: whose grid it is.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._points = sweep.grid
        self._choices = {name: parameter.variable for name, parameter in sweep.parameters.items()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: parameters are looked up one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's text at the trial's point: that of the first attempt, which may have died before it drew."""
        first = [*earlier_attempts(trial), trial.number][0]
        return json.dumps(self._points[rank(study.get_trials(deepcopy=False), first)][param_name])


def default_storage(folder: Path) -> str:
    """The URL of the SQLite file in the sweep's folder."""
    return f"sqlite:///{folder / 'study.db'}"


def open_study(
    url: str, name: str, sweep: Sweep, content: Mapping[str, Any], *, heartbeat: int = HEARTBEAT, grace: int = GRACE
) -> optuna.Study:
    """Begin a sweep, or go on with the one of this name.

    Args:
        url: the storage, in SQLAlchemy's form, e.g. ``postgresql://user:password@host/database``.
        name: the sweep's name in the storage.
        sweep: what is searched.
        content: the content of its file, which must not change while the sweep lasts.
        heartbeat: seconds between two signs of life of a worker.
        grace: seconds of silence after which a worker is held for dead.

    Raises:
        UserError: the storage cannot be reached, or holds another sweep of this name.
    """
    with told_as_user_errors(url):
        study = optuna.create_study(
            storage=_storage(url, heartbeat, grace),
            study_name=name,
            direction="maximize" if sweep.maximize else "minimize",
            sampler=_sampler(sweep),
            pruner=HyperbandPruner(sweep.hyperband) if sweep.hyperband else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        known = study.user_attrs.get(_CONTENT)
        if known is None:
            study.set_user_attr(_CONTENT, dict(content))
        elif known != dict(content):
            changed = sorted(key for key in {*known, *content} if known.get(key) != content.get(key))
            raise UserError(
                f"the sweep {name} was begun with another file ({', '.join(changed)} differs): put the file back, "
                "or begin another sweep with --name"
            )
    return study


@contextmanager
def told_as_user_errors(url: str) -> Iterator[None]:
    """Tell in one sentence what is wrong with the storage.

    Raises:
        UserError: the block could not use it.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        scheme, _, rest = url.partition("://")
        place = f"{scheme}://{rest.rpartition('@')[2]}"  # without the password
        if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
            reason = "no driver for it is installed: pip install 'audio-lrp[sweeps]' brings PostgreSQL's and MySQL's"
        else:
            reason = next(line for line in str(error.__cause__ or error).splitlines() if line.strip())
        raise UserError(f"the sweep's storage {place} cannot be used ({reason}): look at --storage") from error


def _storage(url: str, heartbeat: int, grace: int) -> RDBStorage:
    driver, separator, rest = url.partition("://")
    if not separator or driver == "journal":
        raise UserError(
            f"the storage {url!r} is no URL of a database: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE "
            "or mysql://USER:PASSWORD@HOST/DATABASE"
        )
    # Several processes write into one SQLite file: each waits for its turn instead of failing.
    settings = {"connect_args": {"timeout": 60}} if driver == "sqlite" else {"pool_pre_ping": True}
    for attempt in count(1):
        try:
            return RDBStorage(
                f"{_DRIVERS.get(driver, driver)}://{rest}",
                engine_kwargs=settings,
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(_MOST_RETRIES),
            )
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Another machine begins the same sweep at this moment, and makes the tables.
            collision = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error)
            if not collision or attempt == _MOST_COLLISIONS:
                raise
            time.sleep(random.uniform(0.2, 1.0))
    raise AssertionError("unreachable")


def _sampler(sweep: Sweep) -> BaseSampler:
    if sweep.method == "grid":
        return GridSampler(sweep)
    return RandomSampler() if sweep.method == "random" else TPESampler()


def rank(trials: Sequence[FrozenTrial], number: int) -> int:
    """Which point of the sweep, counted from 0, the trial of this number is: a fact that no later trial changes."""
    return sum(trial.number < number for trial in points(trials))


def points(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that repeat no other."""
    return [trial for trial in trials if not is_retry(trial) and not trial.user_attrs.get(_SURPLUS)]


def latest(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The last attempt at every point."""
    repeated = {number for trial in trials for number in earlier_attempts(trial)}
    return [trial for trial in trials if trial.number not in repeated and not trial.user_attrs.get(_SURPLUS)]


def is_retry(trial: FrozenTrial) -> bool:
    """Whether the trial repeats one whose worker died."""
    return bool(earlier_attempts(trial))


def earlier_attempts(trial: FrozenTrial) -> list[int]:
    """The numbers of the trials that this one repeats, the first attempt first."""
    return list(trial.system_attrs.get("retry_history", []))


def startable(study: optuna.Study, sweep: Sweep, total: int) -> int:
    """How many trials could begin now: points not yet tried, and repetitions."""
    trials = study.get_trials(deepcopy=False)
    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    return waiting + (0 if reached(trials, sweep) else max(0, total - len(points(trials))))


def is_finished(study: optuna.Study, sweep: Sweep, total: int) -> bool:
    """Whether nothing is left to do, by any worker anywhere."""
    if startable(study, sweep, total) > 0:
        return False
    trials = study.get_trials(deepcopy=False)  # only now: the last one may have begun a moment ago
    return all(trial.state.is_finished() for trial in latest(trials))


def reached(trials: Sequence[FrozenTrial], sweep: Sweep) -> bool:
    """Whether a trial has reached the metric's target."""
    if sweep.target is None:
        return False
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    return any(value >= sweep.target if sweep.maximize else value <= sweep.target for value in values)


def give_up(trial: optuna.Trial) -> None:
    """Mark a trial that another worker's haste made superfluous."""
    trial.set_user_attr(_SURPLUS, True)


def sign(trial: optuna.Trial, worker: str) -> None:
    """Note which worker runs the trial."""
    trial.set_user_attr(_WORKER, worker)


def running(study: optuna.Study, worker: str) -> list[FrozenTrial]:
    """The trials that a worker has not ended."""
    return running_by_worker(study).get(worker, [])


def running_by_worker(study: optuna.Study) -> dict[str, list[FrozenTrial]]:
    """The trials that are not ended, by the worker that began them."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _WORKER in trial.user_attrs:
            found.setdefault(trial.user_attrs[_WORKER], []).append(trial)
    return found


def unsigned(study: optuna.Study, seconds: float = GRACE) -> list[FrozenTrial]:
    """The trials begun so many seconds ago that no worker has signed: it died first, maybe before a first heartbeat."""
    long_ago = datetime.now() - timedelta(seconds=seconds)
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if _WORKER not in trial.user_attrs and trial.datetime_start and trial.datetime_start < long_ago
    ]


def repeat(study: optuna.Study, trial: FrozenTrial) -> None:
    """End the trial of a dead worker and have it repeated, unless somebody else has done so."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except ValueError:  # the trial is ended
        return
    RetryHeartbeatStaleTrialCallback(_MOST_RETRIES)(study, copy.deepcopy(trial))  # it changes what the study has cached
