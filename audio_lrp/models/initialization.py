"""Initial weights."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError

Initialization = Literal["unit_variance", "he", "paper"]


def initialize(
    network: nn.Module,
    initialization: Initialization,
    *,
    noise: Callable[[], Tensor],
    convolution_std: float,
    dense_std: float,
) -> None:
    """Draw a network's initial weights.

    Args:
        network: changed in place.
        initialization: ``"unit_variance"``, see :func:`unit_variance_initialization`, ``"he"``, see
            :func:`he_initialization`, or ``"paper"``, see :func:`gaussian_initialization`.
        noise: draws inputs [B, ...] for ``"unit_variance"``.
        convolution_std: standard deviation of the paper's convolutions.
        dense_std: standard deviation of the paper's dense layers.

    Raises:
        UserError: there is no such initialization.
    """
    if initialization not in get_args(Initialization):
        raise UserError(
            f"unknown initialization {initialization!r}: it is one of {', '.join(get_args(Initialization))}"
        )
    if initialization == "unit_variance":
        unit_variance_initialization(network, noise())
    elif initialization == "he":
        he_initialization(network)
    else:
        gaussian_initialization(network, convolution_std=convolution_std, dense_std=dense_std)


def unit_variance_initialization(network: nn.Module, noise: Tensor) -> None:
    """Draw weights that sum to zero in every unit and give the outputs of every layer the variance 1, biases zero.

    Layer-sequential unit variance (Mishkin and Matas 2016), with noise in the place of recordings. Weights that sum
    to zero are blind to what all their inputs have in common: the lowest frequencies, where most of speech's energy
    lies, in the first layer, and the means that ReLU and pooling leave in later ones. With others these drown what
    tells sounds apart. The outputs of the last layer are ten times smaller, so that training begins with all classes
    about as likely.

    Args:
        network: changed in place; its last layer is the last of its modules.
        noise: inputs [B, ...].
    """
    he_initialization(network)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]

    def scale(layer: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
        deviation = output.std()
        layer.get_parameter("weight").div_(deviation)
        return output / deviation

    training = network.training
    with torch.no_grad():
        for layer in layers:
            layer.weight -= layer.weight.mean(dim=tuple(range(1, layer.weight.dim())), keepdim=True)
        hooks = [layer.register_forward_hook(scale) for layer in layers]
        network.eval()(noise.to(layers[0].weight.dtype))
        layers[-1].weight /= 10
    network.train(training)
    for hook in hooks:
        hook.remove()


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
