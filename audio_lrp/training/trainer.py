"""Lightning's Trainer with option types that a command line reads correctly, and checkpoints that are whole."""

import signal
import threading
from typing import Any

import lightning as L
from lightning.pytorch.plugins.io import TorchCheckpointIO

from audio_lrp.errors import UserError
from audio_lrp.tracking import WholeCheckpointIO
from audio_lrp.utils.signals import end_if_terminated


class _NextEpoch(L.Callback):
    """Lets a training that goes on after an epoch's last batch count the next epoch as begun.

    Lightning takes itself to be in the middle of an epoch then and counts the finished one as processed, but not the
    next one as ready. A checkpoint of that next epoch claims to lie between two epochs, and a training that is
    interrupted a second time would repeat batches.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the counts that the checkpoint left."""
        loop = trainer.fit_loop
        epoch: Any = loop.epoch_progress.current  # of a type that Lightning does not tell
        if loop.restarted_mid_epoch and epoch.processed == epoch.ready:
            loop.reset_restart_stage()


class _EndAfterSignal(L.Callback):
    """Ends a run whose process was asked to end by a signal, but in a place where the exception for it got lost."""

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Look for a signal."""
        end_if_terminated()

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start


class Trainer(L.Trainer):
    """Lightning's Trainer; an integer limit is a number of batches, a fraction a share of them.

    Lightning annotates them with ``typing.Union``, which Python caches without regard to order: ``1`` may then be
    read as ``1.0``, all batches instead of one. ``int | float`` keeps its order.

    Args:
        limit_train_batches: how many batches, or which share, of the training data is used in an epoch.
        limit_val_batches: the same for validation.
        limit_test_batches: the same for test.
        limit_predict_batches: the same for prediction.
        overfit_batches: how many batches, or which share, of the training data to overfit.
        enable_autolog_hparams: whether to log what models and data modules save as hyperparameters; not by default,
            since the command line logs the whole configuration.
        val_check_interval: validate after so many batches, this share of an epoch, or this time (``"DD:HH:MM:SS"``).
        **kwargs: see :class:`lightning.pytorch.Trainer`.

    Raises:
        UserError: an interval is none.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | dict[str, int] | None = None,
        enable_autolog_hparams: bool = False,
        **kwargs: Any,
    ) -> None:
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):  # by which Lightning would divide
            if kwargs.get(name) is not None and kwargs[name] < 1:
                raise UserError(f"{name} of the trainer is 1 or more, not {kwargs[name]}")
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            enable_autolog_hparams=enable_autolog_hparams,
            **kwargs,
        )
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:  # else the user has chosen another, or the strategy
            self.strategy.checkpoint_io = WholeCheckpointIO()
        self.callbacks += [_NextEpoch(), _EndAfterSignal()]  # type: ignore[attr-defined]
        self._sigterm_handler = signal.getsignal(signal.SIGTERM)

    def _run_stage(self) -> Any:
        """Leave SIGTERM to whoever handled it before.

        Lightning's handler has the process end at some later batch with exit code 0. Where several share a training
        it waits for the others in a collective operation, in the midst of theirs: none of them ends.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm_handler)
        return super()._run_stage()
