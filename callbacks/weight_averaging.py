"""The mean of a training's last weights."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from audio_lrp.errors import UserError

_WARMUP = 10
"""After n updates the average reaches back over at most n / 9 of them: beginnings are soon forgotten."""


class WeightAveragingCallback(WeightAveraging):
    """Validates, tests, explains and saves an exponential moving average of the weights (Polyak and Juditsky, 1992).

    The decay rises to its final value: after n updates it is at most ``(1 + n) / (10 + n)``. With a constant one, as of
    Lightning's ``EMAWeightAveraging``, a training of a few hundred steps would keep much of its random initial weights.

    Args:
        decay: weight of the average so far in each update, 0 to below 1.
        update_every_n_steps: optimizer steps from one update to the next.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> callback = WeightAveragingCallback(decay=0.5)
        >>> callback.average(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(1000))
        tensor(2.)
    """

    def __init__(self, decay: float = 0.98, update_every_n_steps: int = 10) -> None:
        if not 0 <= decay < 1 or update_every_n_steps < 1:
            raise UserError(
                "WeightAveragingCallback needs a decay from 0 to below 1 and update_every_n_steps of at least 1, got "
                f"{decay} and {update_every_n_steps}"
            )
        super().__init__(avg_fn=self.average)
        self.decay = decay
        self.update_every_n_steps = update_every_n_steps

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have the average where the weights are: Lightning makes it before they are moved to a GPU.

        Every update would otherwise wait for a copy of all weights to the main memory, and average them there.
        """
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the average takes in the weights after this step, counted from 0."""
        return step_idx is not None and step_idx % self.update_every_n_steps == 0

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take weights and average up where a training is resumed; in a test the checkpoint's weights are the average.

        Lightning's own takes up the weights also in a test after a training, by the same trainer.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def average(self, averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        """The average of one parameter after another update."""
        updates = int(num_averaged)
        decay = min(self.decay, (1 + updates) / (_WARMUP + updates))
        # counts, of batches seen say, have no mean
        return torch.lerp(averaged, current, 1 - decay) if averaged.is_floating_point() else current
