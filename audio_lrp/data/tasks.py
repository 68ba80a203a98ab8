"""The classification tasks: which classes there are and how a recording's labels name one of them."""

from collections.abc import Callable
from dataclasses import dataclass

from audio_lrp.constants import TaskName
from audio_lrp.data.corpora.corpus import Recording

GENDERS = ("male", "female")
"""Class names of the gender task in the order of the original labels: male 0, female 1."""


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: the task's name.
        classes: the classes' names, in the order of their indices.
        label: maps a recording to its class index, or to ``None`` where the corpus does not say.
    """

    name: TaskName
    classes: tuple[str, ...]
    label: Callable[[Recording], int | None]


def _digit(recording: Recording) -> int | None:
    return recording.digit


def _gender(recording: Recording) -> int | None:
    return None if recording.gender is None else GENDERS.index(recording.gender)


TASKS: dict[str, Task] = {
    "digit": Task("digit", tuple("0123456789"), _digit),
    "gender": Task("gender", GENDERS, _gender),
}
"""Every task by name."""
