"""The learning rate schedule of the default recipes."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from audio_lrp.errors import UserError


class WarmupCosine(LambdaLR):
    """Linear warm-up, then a cosine down to zero, over the whole training; stepped after every batch.

    Args:
        optimizer: the optimizer whose learning rates are the peak.
        warmup: share of the training spent warming up, 0 to 1.
        total_steps: optimizer steps of the whole training; :class:`~audio_lrp.models.Classifier` fills it in from the
            trainer where it is ``None``.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, warmup=0.5, total_steps=4)
        >>> [round(schedule.factor(step), 3) for step in range(5)]
        [0.333, 0.667, 1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.05, total_steps: int | None = None) -> None:
        if not 0 <= warmup < 1:
            raise UserError(f"warmup of WarmupCosine is a share of the training, from 0 to below 1, not {warmup}")
        self.warmup = warmup
        self.total_steps = total_steps
        super().__init__(optimizer, self.factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, over the length that this training has: a longer one does not stay at rate 0."""
        super().load_state_dict({**state_dict, "warmup": self.warmup, "total_steps": self.total_steps})

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied by at ``step``, counted from 0."""
        if self.total_steps is None:
            return 1.0
        warmup_steps = round(self.warmup * self.total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, self.total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
