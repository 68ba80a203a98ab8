"""The end of a training whose loss is no number any more."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from audio_lrp.data.loading.batch import Batch
from audio_lrp.errors import UserError
from audio_lrp.tracking import best_checkpoint

_MOST_NAMED = 3


class FiniteLossCallback(Callback):
    """Stops a training at the first loss that is NaN or infinite, before it reaches the weights.

    The weights and the checkpoints stay those of the step before. Of several processes (DDP) all stop, for the others
    would wait for gradients that never come, with NCCL for half an hour. The command line always adds this callback.

    Raises:
        UserError: names the step, the recordings of the batch and the checkpoint to resume from.
    """

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch until its loss is known."""
        self._batch = batch

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Look at the loss before its gradient is computed."""
        finite = bool(loss.isfinite())
        if not trainer.strategy.reduce_boolean_decision(finite):
            if finite:
                raise UserError(
                    f"the loss of another process is no number at step {trainer.global_step}: see what that one says"
                )
            keeper = best_checkpoint(trainer)
            checkpoint = keeper.best_model_path if keeper is not None else ""
            kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was saved yet"
            raise UserError(
                f"the loss is {loss.item()} at step {trainer.global_step}, for {self._recordings(trainer)}: look at "
                f"these recordings with audio-lrp data check, or lower the optimizer's lr; {kept}"
            )
        self._batch = None

    def _recordings(self, trainer: L.Trainer) -> str:
        """The batch's recordings, those first whose input is not finite."""
        recording = getattr(getattr(trainer, "datamodule", None), "recording", None)
        if recording is None or not isinstance(self._batch, Batch):
            return "a batch of unknown recordings"
        finite = self._batch.input.flatten(start_dim=1).isfinite().all(dim=1)
        index = self._batch.index if finite.all() else self._batch.index[~finite]
        names = [recording(position).path.name for position in index.tolist()]
        rest = f" and {len(names) - _MOST_NAMED} others" if len(names) > _MOST_NAMED else ""
        fault = "the batch of" if finite.all() else "inputs that are no numbers, of"
        return f"{fault} {', '.join(names[:_MOST_NAMED])}{rest}"
