from pathlib import Path

import numpy as np
import soundfile
from lightning.pytorch import Callback
from torch import nn
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon
from zennit.types import Convolution, Linear

from audio_lrp.data import Corpus, Recording, exclusively
from audio_lrp.faithfulness import Order

__all__ = ["Buzzes", "EverywhereEpsilon", "FromTheEnd", "ShortNetwork", "StepCounter"]


class Buzzes(Corpus):
    name = "Buzzes"

    def prepare(self):  # digit d is a buzz of 100 + 50 d Hz, half a second long
        with exclusively(self.root):  # of trainings that begin at once, one writes and the others wait
            for recording in self.scan():
                pitch = (100 + 50 * recording.digit) * (1 + 0.05 * int(recording.speaker))
                if not recording.path.exists():
                    sound = 0.2 * np.sign(np.sin(2 * np.pi * pitch * np.arange(4000) / 8000))
                    soundfile.write(recording.path, sound, 8000)

    def scan(self):  # six speakers, three of them female
        ids = [(digit, speaker) for digit in range(10) for speaker in range(6)]
        return [Recording(self.root / f"{d}-{s}.wav", d, str(s), ["male", "female"][s % 2], 0) for d, s in ids]


class ShortNetwork(nn.Sequential):  # the first argument is the number of classes; the others are options
    representation = "waveform"

    def __init__(self, num_classes: int, channels: int = 4):
        layers = nn.Conv1d(1, channels, 64, stride=32), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 249, num_classes)
        super().__init__(*layers)


class EverywhereEpsilon(LayerMapComposite):
    def __init__(self, epsilon: float = 1e-6):
        super().__init__([(Convolution | Linear, Epsilon(epsilon))])


class FromTheEnd(Order):  # a perturbation: the last samples go first
    name = "from_the_end"

    def scores(self, removable, generator):
        return removable.partition.sum(removable.candidates).cumsum(dim=1)  # [B, units]


class StepCounter(Callback):
    def __init__(self, path: str):
        self.path = Path(path)

    def on_train_end(self, trainer, pl_module):
        self.path.write_text(str(trainer.global_step))
