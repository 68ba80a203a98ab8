"""A plugin: buzzes of different pitch as a corpus, and a network, a composite and a callback of its own."""

from pathlib import Path

import numpy as np
import soundfile
from lightning.pytorch import Callback
from torch import nn
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon
from zennit.types import Convolution, Linear

from audio_lrp.data import Corpus, Recording

__all__ = ["Buzzes", "EverywhereEpsilon", "ShortNetwork", "StepCounter"]


class Buzzes(Corpus):
    """Digit d is a buzz of 100 + 50 d Hz."""

    name = "Buzzes"

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for recording in self.scan():
            time = np.arange(4000) / 8000
            pitch = (100 + 50 * recording.digit) * (1 + 0.05 * int(recording.speaker))
            soundfile.write(recording.path, 0.2 * np.sign(np.sin(2 * np.pi * pitch * time)), 8000)

    def scan(self) -> list[Recording]:
        return [
            Recording(self.root / f"{digit}-{speaker}.wav", digit, str(speaker), "female" if speaker % 2 else "male", 0)
            for speaker in range(6)
            for digit in range(10)
        ]


class ShortNetwork(nn.Sequential):
    """One convolution and one dense layer."""

    representation = "waveform"

    def __init__(self, num_classes: int, channels: int = 4) -> None:
        super().__init__(
            nn.Conv1d(1, channels, 64, stride=32), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 249, num_classes)
        )


class EverywhereEpsilon(LayerMapComposite):
    """Epsilon in every layer."""

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__([(Convolution | Linear, Epsilon(epsilon))])


class StepCounter(Callback):
    """Writes down after how many steps a training ended."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_end(self, trainer, pl_module) -> None:
        self.path.write_text(str(trainer.global_step))
