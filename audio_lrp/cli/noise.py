"""What other packages say at every start, though nobody who runs a training can do anything about it."""

import logging
import warnings
from typing import Final

_WARNINGS: Final = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # PyTorch to Lightning
    r"Precision bf16-mixed is not supported by the model summary",  # they stay float32
    r"You're using the WeightAveraging callback, but loading a checkpoint outside",  # its weights are the average
    r"The dirpath has changed from .* to .*",  # every run has a folder of its own
)
_PRODUCTS: Final = "litlogger"
"""Advertised by Lightning to everybody who does not use it."""


def leave_out_noise() -> None:
    """Keep these lines from being printed."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    return _PRODUCTS not in record.getMessage()
