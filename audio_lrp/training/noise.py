"""What other packages say at every start, though nobody who runs a training can do anything about it."""

import logging
import warnings
from typing import Final

_WARNINGS: Final = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # PyTorch to Lightning
    r"Precision bf16-mixed is not supported by the model summary",  # the weights' size is right: they stay float32
    r"You're using the WeightAveraging callback, but loading a checkpoint outside",  # its weights are the average
    r"Checkpoint directory .* exists and is not empty",  # of a resumed training, as it was asked for
    r"The number of training batches .* is smaller than the logging interval",  # which is counted across epochs
)
_WARNINGS_WITHOUT_TRAINING: Final = (
    r"The dirpath has changed from .* to .*",  # a test has a folder of its own, in which it keeps no checkpoints
)
_PRODUCTS: Final = ("litlogger", "litmodels")
"""Advertised by Lightning to everybody who does not use them."""


def leave_out_noise(command: str) -> None:
    """Keep these lines from being printed.

    Args:
        command: what is run, e.g. ``"fit"``.
    """
    for message in _WARNINGS if command == "fit" else _WARNINGS + _WARNINGS_WITHOUT_TRAINING:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not any(product in record.getMessage() for product in _PRODUCTS)
