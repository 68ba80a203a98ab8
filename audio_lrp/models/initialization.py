"""Initial weights."""

from typing import Literal, get_args

from torch import nn

from audio_lrp.errors import UserError

Initialization = Literal["he", "paper"]


def initialize(network: nn.Module, initialization: Initialization, *, convolution_std: float, dense_std: float) -> None:
    """Draw a network's initial weights.

    Args:
        network: changed in place.
        initialization: ``"he"``, see :func:`he_initialization`, or ``"paper"``, see :func:`gaussian_initialization`.
        convolution_std: standard deviation of the paper's convolutions.
        dense_std: standard deviation of the paper's dense layers.

    Raises:
        UserError: there is no such initialization.
    """
    if initialization not in get_args(Initialization):
        raise UserError(
            f"unknown initialization {initialization!r}: it is one of {', '.join(get_args(Initialization))}"
        )
    if initialization == "he":
        he_initialization(network)
    else:
        gaussian_initialization(network, convolution_std=convolution_std, dense_std=dense_std)


def he_initialization(network: nn.Module) -> None:
    """Draw all weights so that ReLU layers keep the variance of their inputs (He et al. 2015), biases zero.

    Deep networks without normalisation layers hardly begin to learn from PyTorch's own, smaller weights.

    Args:
        network: changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def gaussian_initialization(network: nn.Module, *, convolution_std: float, dense_std: float) -> None:
    """Draw all weights from centred normal distributions and set all biases to zero.

    Args:
        network: changed in place.
        convolution_std: standard deviation of the convolutions' weights.
        dense_std: standard deviation of the dense layers' weights.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=dense_std if isinstance(module, nn.Linear) else convolution_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
