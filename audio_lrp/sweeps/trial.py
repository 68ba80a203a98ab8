"""One trial of a sweep: a run of the command line in this process, watched and stopped by the sweep.

Trials run in the worker's own process, one after the other: importing PyTorch, Lightning and W&B again would take ten
seconds each, which a short trial does not last.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from optuna import Trial, TrialPruned

from audio_lrp.errors import UserError
from audio_lrp.sweeps.sweep_file import Sweep
from audio_lrp.tracking import discard_empty_folders, wandb_session
from audio_lrp.training.from_checkpoint import with_stored_configuration
from audio_lrp.training.lightning_cli import AudioLRPCLI


class MetricWatch(Logger):
    """Tells the sweep every logged value of its metric.

    A logger rather than a callback, since it sees the metric under the name, and as often, as W&B's server would,
    whoever logs it: the model at a validation, or a callback at any other time.

    Args:
        trial: the trial that runs.
        metric: name of the metric.

    Attributes:
        values: the metric's finite values in their order.
        pruned: whether the sweep wants the trial to stop.
    """

    def __init__(self, trial: Trial, metric: str) -> None:
        super().__init__()
        self.values: list[float] = []
        self.pruned = False
        self._trial = trial
        self._metric = metric
        self._names: set[str] = set()

    @property
    def name(self) -> None:
        """None: it writes no files."""

    @property
    def version(self) -> None:
        """None, see `name`."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the trial has its parameters from the sweep."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Report the metric where it is among those logged."""
        self._names |= metrics.keys()
        value = float(metrics.get(self._metric, math.nan))
        if math.isfinite(value):
            self.values.append(value)
            self._trial.report(value, len(self.values))
            self.pruned = self._trial.should_prune()

    def best(self, maximize: bool) -> float:
        """The best value.

        Raises:
            UserError: there is none.
        """
        if self.values:
            return max(self.values) if maximize else min(self.values)
        if self._metric in self._names:
            raise UserError(f"no value of {self._metric} was finite: the training has diverged")
        near = get_close_matches(self._metric, self._names, n=3) or sorted(self._names)
        raise UserError(f"the sweep's metric {self._metric} was never logged; there is {', '.join(near)}")


class _PruningCallback(Callback):
    """Stops the training before its next batch where the sweep wants it."""

    def __init__(self, watch: MetricWatch) -> None:
        self._watch = watch

    def on_train_batch_start(self, *_: Any) -> None:
        # Not where the metric is logged: that may be inside a callback that takes no exception seriously.
        if self._watch.pruned:
            raise TrialPruned


class _TrialCLI(AudioLRPCLI):
    """The command line with the sweep looking on."""

    def __init__(self, args: Sequence[str], watch: MetricWatch) -> None:
        self._watch = watch
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.num_devices * trainer.num_nodes > 1:
            raise UserError(
                "a trial of a sweep runs in one process on one device: set trainer.devices to 1 in the sweep's command "
                "and let --workers use the others"
            )
        trainer.loggers = [*trainer.loggers, self._watch]
        trainer.callbacks.append(_PruningCallback(self._watch))  # type: ignore[attr-defined]
        return trainer


def run_trial(trial: Trial, sweep: Sweep, point: Mapping[str, Any], folder: Path) -> float:
    """Run one trial.

    Args:
        trial: Optuna's, running.
        sweep: what the trial is part of.
        point: a value for every parameter.
        folder: the sweep's folder, in which the trial gets one of its own.

    Returns:
        The best value of the metric that was logged.

    Raises:
        TrialPruned: the sweep stopped it early.
        Exception: whatever ended the run.
    """
    place = [f"--run.root={folder}", f"--run.experiment={trial_name(trial.number)}"]
    options = [*sweep.arguments(point), *place, "--trainer.enable_progress_bar=false"]
    watch = MetricWatch(trial, sweep.metric)
    pruned = False
    try:
        # A pruned trial's W&B run has not failed: its end is caught inside the session.
        with wandb_session(), with_stored_configuration(options) as complete:
            try:
                _TrialCLI(complete, watch)
            except TrialPruned:
                pruned = True
    finally:
        discard_empty_folders()
    if pruned:
        for checkpoints in (folder / trial_name(trial.number)).glob("*/checkpoints"):
            shutil.rmtree(checkpoints)  # nobody resumes it, and networks are large
        raise TrialPruned
    return watch.best(sweep.maximize)


def trial_name(number: int) -> str:
    """The name of a trial's folder and of its W&B run."""
    return f"trial-{number:03d}"
