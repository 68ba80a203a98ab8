"""Work in the middle of training that leaves its random numbers alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Let the random numbers of PyTorch, NumPy and Python go on afterwards as if nothing had been drawn inside.

    Holds after an exception too.

    Args:
        device: whose generator to restore beside the CPU's.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
