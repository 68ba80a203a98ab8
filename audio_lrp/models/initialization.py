"""Initial weights."""

from typing import Literal

from torch import nn

Initialization = Literal["he", "paper"]


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
