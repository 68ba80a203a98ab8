"""Recordings to explain, and checkpoints of tiny networks that explain them."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from audio_lrp.checkpoints import DESCRIPTION


class WaveformNetwork(nn.Sequential):
    """Sees whether a waveform holds a low or a high tone."""

    def __init__(self, num_classes: int, channels: int = 4) -> None:
        super().__init__(
            nn.Conv1d(1, channels, 16, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 999, num_classes)
        )


class SpectrogramNetwork(nn.Sequential):
    """The same of a spectrogram."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Conv2d(1, 2, 16, stride=16), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, num_classes))


def tone(path: Path, seconds: float, rate: int = 8000, channels: int = 1, frequency: float = 440.0) -> Path:
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.01 * np.sin(2 * np.pi * frequency * time + 0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(sound[:, None], channels, axis=1), rate)
    return path


def checkpoint(path: Path, network: nn.Module, representation: str, num_classes: int, **description: object) -> Path:
    settings = {
        "num_classes": num_classes,
        "representation": representation,
        "network": {"class_path": f"{__name__}.{type(network).__name__}", "init_args": {}},
    }
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"hyper_parameters": settings, "state_dict": weights, DESCRIPTION: description}, path)
    return path
