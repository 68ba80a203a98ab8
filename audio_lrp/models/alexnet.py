"""AlexNet on spectrograms, without normalisation layers."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from audio_lrp.models.initialization import Initialization, initialize


class AlexNet(nn.Module):
    """The paper's spectrogram network (arXiv 1807.03418v2): AlexNet with one input channel and narrower dense layers.

    Args:
        num_classes: number of classes; with 10 the network has 12.81 M parameters.
        dropout: probability of dropping a unit before each of the last two dense layers.
        initialization: ``"he"`` keeps the variance through ReLU layers; ``"unit_variance"``, weights that sum to zero
            and, for noise from 0 to 1, outputs of variance 1 in every layer but the last; ``"paper"`` is Gaussian with
            standard deviation 0.01 (convolutions) and 0.005 (dense layers).

    Example:
        >>> AlexNet(num_classes=2)(torch.zeros(3, 1, 227, 227)).shape
        torch.Size([3, 2])
    """

    representation: ClassVar[str] = "spectrogram"
    input_shape: ClassVar[tuple[int, ...]] = (1, 227, 227)

    def __init__(self, num_classes: int = 10, dropout: float = 0.5, initialization: Initialization = "he") -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 96, 11, stride=4),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(9216, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, num_classes),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs and tensor cores
        initialize(self, initialization, noise=_noise, convolution_std=0.01, dense_std=0.005)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's own name for it)
        """Logits [B, num_classes] of spectrograms [B, 1, 227, 227]."""
        logits: Tensor = self.classifier(self.features(input))
        return logits


def _noise() -> Tensor:
    """A few spectrograms [B, 1, 227, 227] of uniform noise from 0 to 1."""
    return torch.rand(4, *AlexNet.input_shape, dtype=torch.float32)
