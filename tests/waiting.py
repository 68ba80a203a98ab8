"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_until(happened: Callable[[], Result], seconds: float = 120) -> Result:
    """Return what is true as soon as it has happened, and fail if it has not after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result
