"""Studies of tiny networks on tones, which take seconds."""

import json
from pathlib import Path
from typing import Any

import soundfile
import yaml
from command_line import exit_code
from fake_corpus import ToneCorpus
from torch import nn

BUDGET = {
    "steps": {"alexnet_digit": 4, "alexnet_gender": 4, "audionet_digit": 4, "audionet_gender": 4},
    "batch_size": 4,
    "validate_every": 2,
    "generated_folds": 3,
    "explained_clips": 6,
    "fractions": [0, 0.01, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99],
    "random_orders": 1,
    "competitors": ["gradient_times_input"],
    "synthetic": {"speakers": 6, "repetitions": 1},
    "synthetic_voices": 2,
}


def tones_as_audiomnist(root: Path, speakers: int = 6) -> Path:
    """Tones in AudioMNIST's layout: half of the speakers male, half female."""
    tones = ToneCorpus(root, speakers=speakers, repetitions=1)
    genders = {}
    for recording in tones.scan():
        number = f"{int(recording.speaker[1:]) + 1:02d}"
        genders[number] = {"gender": recording.gender}
        path = root / "data" / number / f"{recording.digit}_{number}_0.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones.tone(recording), 8000)
    (root / "data" / "audioMNIST_meta.txt").write_text(json.dumps(genders))
    return root


class TinyPicture(nn.Sequential):
    """A spectrogram network that trains in milliseconds."""

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 15, stride=8), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(144, num_classes)
        )


def in_this_process(arguments: list[str], log: Any, claim: Any) -> int:
    """Stands for the process of its own and the networks of millions of weights, which take seconds to start."""
    path = Path(arguments[1].removeprefix("--config="))
    settings = yaml.safe_load(path.read_text())
    name = "tiny_study.TinyPicture" if "alexnet" in path.parent.name else "command_line.TinyNetwork"
    settings["model"]["init_args"]["network"] = {"class_path": name}
    path.write_text(yaml.safe_dump(settings))
    return exit_code(*arguments, "--trainer.accelerator=cpu")
