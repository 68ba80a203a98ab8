"""The shipped configurations by which a study trains."""

from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

import audio_lrp.configs
from audio_lrp.data.tasks import TASKS

RECIPES: Final = tuple(f"{network}_{task}" for network, task in product(("alexnet", "audionet"), TASKS))


def read_recipe(name: str) -> dict[str, Any]:
    """The shipped configuration of that name, one of `RECIPES`."""
    recipe: dict[str, Any] = yaml.safe_load((Path(audio_lrp.configs.__path__[0]) / f"{name}.yaml").read_text())
    return recipe
