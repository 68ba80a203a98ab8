"""Lists of recordings to leave out of a corpus, with the reason for each.

A list is a YAML file of places and reasons, such as ``36/3_36_20.wav: a copy of 3_36_19``. A place is the end of a
recording's path, so that it fits whichever of the corpus's folders is its root.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from audio_lrp.data.corpus import Recording
from audio_lrp.errors import UserError, yaml_problem
from audio_lrp.nearest import did_you_mean, nearest_path

SHIPPED: Final = {"audiomnist": Path(__file__).with_name("audiomnist_exclusions.yaml")}
"""The lists that come with the package, by name."""

logger = logging.getLogger(__name__)


def read_exclusions(name: str | Path) -> dict[str, str]:
    """Reasons by place.

    Args:
        name: a file, or the name of a shipped list.

    Raises:
        UserError: there is no such file, or it is no such list.
    """
    path = SHIPPED.get(str(name), Path(name).expanduser())
    try:
        exclusions = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        choices = f"give a YAML file, or one of the shipped lists: {', '.join(SHIPPED)}"
        hint = did_you_mean(str(name), SHIPPED) or nearest_path(path) or choices
        raise UserError(f"the list of exclusions {path} cannot be read ({error.strerror}); {hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {yaml_problem(error)}") from error
    if exclusions is None:  # nothing but comments
        return {}
    if not isinstance(exclusions, dict) or not all(isinstance(place, str) for place in exclusions):
        raise UserError(f"{path} is no list of exclusions: each line must be 'place: reason', e.g. '36/a.wav: a copy'")
    return {place: str(reason) for place, reason in exclusions.items()}


def write_exclusions(path: Path, exclusions: Mapping[str, str], corpus: str) -> None:
    """Write a list that :func:`read_exclusions` reads."""
    lines = yaml.safe_dump(dict(exclusions), sort_keys=False, allow_unicode=True, width=1000) if exclusions else ""
    path.write_text(f"# Recordings to leave out of {corpus}, and why.\n{lines}", encoding="utf-8")


def exclude(recordings: Sequence[Recording], exclusions: Mapping[str, str]) -> list[Recording]:
    """The recordings that no place of a list names."""
    places = {tuple(place.split("/")) for place in exclusions}
    lengths = {len(place) for place in places}
    names = {place[-1] for place in places}  # most recordings are passed by a look at their name
    kept = [
        recording
        for recording in recordings
        if recording.path.name not in names or places.isdisjoint(recording.path.parts[-n:] for n in lengths)
    ]
    logger.info("%d of %d recordings are excluded", len(recordings) - len(kept), len(recordings))
    return kept
