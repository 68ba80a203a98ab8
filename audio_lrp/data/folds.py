"""Speaker-disjoint folds for cross-validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from audio_lrp.errors import UserError

Gender = Literal["male", "female"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of a corpus's speakers; no speaker is in two of its parts.

    Attributes:
        train: names of the speakers to train on.
        validate: names of the speakers to choose checkpoints and settings by.
        test: names of the speakers to report accuracy on.
    """

    train: tuple[str, ...]
    validate: tuple[str, ...]
    test: tuple[str, ...]


def rotate_groups(groups: Sequence[Sequence[str]]) -> tuple[Fold, ...]:
    """Folds in which every group of speakers is the test set once.

    Fold i tests on group i, validates on the group before it (for fold 0 the last one) and trains on the others.

    Args:
        groups: disjoint groups of speakers' names, at least three.

    Returns:
        As many folds as groups.

    Example:
        >>> rotate_groups([["ann"], ["bob"], ["cyd"]])[0]
        Fold(train=('bob',), validate=('cyd',), test=('ann',))
    """
    count = len(groups)
    return tuple(
        Fold(
            train=tuple(chain.from_iterable(groups[(i + step) % count] for step in range(1, count - 1))),
            validate=tuple(groups[i - 1]),
            test=tuple(groups[i]),
        )
        for i in range(count)
    )


def speaker_folds(speakers: Mapping[str, Gender | None], num_folds: int) -> tuple[Fold, ...]:
    """Folds whose groups of speakers differ by at most one in size and in the number of each gender.

    Deterministic: the folds depend on names and genders alone, not on their order in ``speakers``.

    Args:
        speakers: gender by speaker's name, ``None`` where unknown; the unknown are spread evenly like a third gender.
        num_folds: number of folds, from 3 (train, validate and test need a group each) to the number of speakers.

    Returns:
        ``num_folds`` folds, see :func:`rotate_groups`.

    Raises:
        UserError: fewer than 3 folds, or more folds than speakers.

    Example:
        >>> folds = speaker_folds({"ann": "female", "bob": "male", "cyd": "female", "dan": "male"}, num_folds=3)
        >>> [fold.test for fold in folds]
        [('ann', 'dan'), ('cyd',), ('bob',)]
    """
    if num_folds < 3:
        raise UserError(
            f"{num_folds} folds are too few: training, validation and test need one group of speakers each; "
            "set num_folds to 3 or more"
        )
    if num_folds > len(speakers):
        fix = (
            f"set num_folds to {len(speakers)} at most" if len(speakers) >= 3 else "use a corpus of 3 or more speakers"
        )
        raise UserError(
            f"{num_folds} folds are too many for {len(speakers)} speakers, of whom each fold tests at least one; {fix}"
        )
    # Dealing the speakers like cards, one gender after the other without starting anew, balances gender and size.
    by_gender = sorted(speakers, key=lambda name: (speakers[name] or "unknown", name))
    return rotate_groups([by_gender[i::num_folds] for i in range(num_folds)])
