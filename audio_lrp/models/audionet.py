"""AudioNet on raw waveforms."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from audio_lrp.models.initialization import Initialization, initialize

_CHANNELS = (1, 100, 64, 128, 128, 128, 128)


class AudioNet(nn.Module):
    """The paper's waveform network (arXiv 1807.03418v2): six convolutions of width 3, three dense layers.

    Between the dense layers there is dropout but no ReLU. The one-dimensional convolutions are written as
    two-dimensional ones of height 1 with channels last in memory, and pooling comes before the ReLU, with which it
    commutes: the same function as with ``nn.Conv1d``, in a fraction of the time on CPUs. State dicts are those of a
    network written with ``nn.Conv1d``, for either to load the other's; ``torch.func.functional_call``, which takes
    parameters as they are, wants ``named_parameters``.

    Args:
        num_classes: number of classes; with 10 the network has 17.11 M parameters.
        dropout: probability of dropping a unit before each of the last two dense layers.
        initialization: ``"unit_variance"``, weights that sum to zero and, for noise like speech, outputs of variance 1
            in every layer but the last; ``"he"`` keeps the variance through ReLU layers; ``"paper"`` is Gaussian with
            standard deviation 0.1.

    Example:
        >>> AudioNet(num_classes=2)(torch.zeros(3, 1, 8000)).shape
        torch.Size([3, 2])
    """

    representation: ClassVar[str] = "waveform"
    input_shape: ClassVar[tuple[int, ...]] = (1, 8000)

    def __init__(
        self, num_classes: int = 10, dropout: float = 0.5, initialization: Initialization = "unit_variance"
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block, (inputs, outputs) in enumerate(pairwise(_CHANNELS)):
            pooling = nn.MaxPool2d((1, 3), (1, 2), ceil_mode=True) if block == 0 else nn.MaxPool2d((1, 2))
            layers += [nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1)), pooling, nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(16000, 1024),
            nn.Dropout(dropout),
            nn.Linear(1024, 512),
            nn.Dropout(dropout),
            nn.Linear(512, num_classes),
        )
        initialize(self, initialization, noise=_speech_like_noise, convolution_std=0.1, dense_std=0.1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_state_dict_post_hook(_narrow_kernels)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_widen_kernels)  # type: ignore[no-untyped-call]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's own name for it)
        """Logits [B, num_classes] of waveforms [B, 1, 8000]."""
        logits: Tensor = self.classifier(self.features(input.unsqueeze(2)))
        return logits


def _speech_like_noise() -> Tensor:
    """A few waveforms [B, 1, 8000] whose spectra fall by 6 dB an octave above 100 Hz, their 95th percentile 1."""
    spectrum = torch.fft.rfft(torch.randn(4, *AudioNet.input_shape, dtype=torch.float32))
    frequency = torch.arange(spectrum.shape[-1])  # in Hz, for 8,000 samples are a second
    noise: Tensor = torch.fft.irfft(spectrum / frequency.clamp(min=100), n=8000)
    return noise / (1.645 * noise.std())


def _narrow_kernels(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take the height 1 from kernels [C, C', 1, 3], which those of ``nn.Conv1d`` have not."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 4:
            state_dict[prefix + name] = state_dict[prefix + name].squeeze(2)


def _widen_kernels(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give kernels [C, C', 3] the height 1 that this network's have; earlier checkpoints hold it."""
    for name, parameter in module.named_parameters():
        stored = state_dict.get(prefix + name)
        if stored is not None and parameter.dim() == 4 and stored.dim() == 3:
            state_dict[prefix + name] = stored.unsqueeze(2)
