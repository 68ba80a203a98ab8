"""Random numbers that belong to an example, not to the batch or the process that it happens to be in."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from audio_lrp.errors import UserError


def example_generators(count: int, index: Tensor | None, seed: int) -> list[torch.Generator]:
    """A generator for each example of a batch, on the CPU: it gives the same numbers on every device.

    Args:
        count: number of examples B.
        index: what tells an example from all others, integer [B]; None: its place in the batch.
        seed: tells draws for different purposes apart.

    Raises:
        UserError: an index of another shape or type.
    """
    if index is not None and (index.shape != (count,) or index.is_floating_point()):
        raise UserError(f"index has shape {list(index.shape)} and type {index.dtype}: pass an integer for each example")
    numbers = range(count) if index is None else index.tolist()
    states = (np.random.SeedSequence((seed % 2**64, number % 2**64)).generate_state(1, np.uint64) for number in numbers)
    return [torch.Generator().manual_seed(int(state[0]) >> 1) for state in states]


def drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor
) -> Tensor:
    """Random numbers of each example [B, *shape], of another tensor's type and on its device.

    Args:
        draw: ``torch.rand`` or ``torch.randn``.
        shape: of one example's numbers.
        generators: one for each example.
        like: gives type and device.
    """
    parts = [draw(tuple(shape), generator=generator, dtype=like.dtype) for generator in generators]
    return torch.stack(parts).to(like.device)
