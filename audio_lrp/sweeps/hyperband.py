"""W&B's early termination: Hyperband's successive halving, one bracket, decided trial by trial.

W&B's engine (the package ``sweeps``, version 0.3) looks, at fixed numbers of logged values, for the best ``1 / eta``
of all trials that came so far, and stops a trial that is not among them. Optuna's own pruners of that name decide
otherwise.
"""

import math
from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from audio_lrp.errors import UserError

_MOST_RUNGS = 100
_NUMBERS = ("min_iter", "max_iter", "s", "eta")


def make_pruner(settings: Any) -> BasePruner:
    """The pruner that does what a sweep's ``early_terminate`` describes.

    Args:
        settings: ``type: hyperband`` with either ``min_iter`` (trials are compared after ``min_iter``,
            ``min_iter * eta``, ... logged values) or ``max_iter`` and ``s`` (after ``max_iter / eta``,
            ``max_iter / eta ** 2``, ..., ``s`` of them); ``None`` for no early termination. ``eta`` is 3 where it is
            not given, ``strict`` is true, as the engine has it; W&B's documentation says false.

    Raises:
        UserError: a setting is missing, unknown or out of range.

    Example:
        >>> make_pruner({"type": "hyperband", "max_iter": 27, "s": 2}).rungs
        (3, 9)
    """
    if settings is None:
        return NopPruner()
    if not isinstance(settings, Mapping) or settings.get("type") != "hyperband":
        raise UserError("early_terminate of the sweep has the type hyperband or is left out")
    for key in settings:
        if key not in ("type", "strict", *_NUMBERS):
            raise UserError(f"early_terminate of the sweep takes no {key!r}")
        if key in _NUMBERS and not isinstance(settings[key], int | float):
            raise UserError(f"{key} of the sweep's early_terminate is a number, not {settings[key]!r}")
    eta = settings.get("eta", 3)
    if eta <= 1:
        raise UserError(f"eta of the sweep's early_terminate is above 1, not {eta}")
    if "max_iter" in settings:
        if "s" not in settings:
            raise UserError("early_terminate of the sweep has max_iter but lacks s, the number of comparisons")
        candidates = [int(settings["max_iter"] / eta**power) for power in range(int(settings["s"]), 0, -1)]
        rungs = [rung for rung in candidates if rung >= 1]
    elif "min_iter" in settings:
        rungs = [int(settings["min_iter"] * eta**power) for power in range(_MOST_RUNGS)]
    else:
        raise UserError("early_terminate of the sweep needs min_iter, or max_iter and s")
    if not rungs or rungs[0] < 1:
        raise UserError("early_terminate of the sweep never compares: its first comparison is before the first value")
    return HyperbandPruner(tuple(rungs), eta, settings.get("strict", True) is True)


class HyperbandPruner(BasePruner):
    """Decides as W&B's server does, from the values that all trials of the study have reported.

    Args:
        rungs: numbers of logged values at which trials are compared, rising.
        eta: one in so many continues.
        strict: whether a trial is judged by its value at the last rung, not by its best value so far.
    """

    def __init__(self, rungs: tuple[int, ...], eta: float, strict: bool) -> None:
        self.rungs = rungs
        self.eta = eta
        self.strict = strict

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, which reports its n-th value as step n, should stop."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        own = _history(trial, sign)
        reached = [rung for rung in self.rungs if rung <= len(own)]
        if not reached:
            return False
        rung = reached[-1]
        histories = [_history(other, sign) for other in study.get_trials(deepcopy=False)]
        at_rung = sorted(history[rung - 1] for history in histories if len(history) >= rung)
        threshold = at_rung[math.floor(len(at_rung) / self.eta)]
        return (own[rung - 1] if self.strict else min(own)) > threshold


def _history(trial: FrozenTrial, sign: float) -> list[float]:
    """Logged values in their order; the smaller, the better."""
    return [sign * value for _, value in sorted(trial.intermediate_values.items())]
