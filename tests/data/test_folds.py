"""Speaker-disjoint folds."""

import random
from collections import Counter

import pytest

from audio_lrp.data.folds import Fold, Gender, rotate_groups, speaker_folds
from audio_lrp.errors import UserError


def some_speakers(female: int, male: int, unknown: int) -> dict[str, Gender | None]:
    counts: dict[Gender | None, int] = {"female": female, "male": male, None: unknown}
    genders = [gender for gender, count in counts.items() for _ in range(count)]
    random.Random(0).shuffle(genders)
    return {f"{number:02d}": gender for number, gender in enumerate(genders, 1)}


def test_folds_rotate_through_the_groups() -> None:
    assert rotate_groups([["a", "b"], ["c"], ["d"], ["e"]]) == (
        Fold(train=("c", "d"), validate=("e",), test=("a", "b")),
        Fold(train=("d", "e"), validate=("a", "b"), test=("c",)),
        Fold(train=("e", "a", "b"), validate=("c",), test=("d",)),
        Fold(train=("a", "b", "c"), validate=("d",), test=("e",)),
    )


@pytest.mark.parametrize(
    ("female", "male", "unknown", "num_folds"),
    [(11, 10, 0, 5), (12, 48, 0, 5), (0, 6, 0, 3), (0, 0, 6, 6), (3, 4, 5, 4), (1, 1, 1, 3), (7, 30, 2, 10)],
)
class TestSpeakerFolds:
    def test_no_speaker_is_in_two_parts_and_everyone_is_tested_once(
        self, female: int, male: int, unknown: int, num_folds: int
    ) -> None:
        speakers = some_speakers(female, male, unknown)
        folds = speaker_folds(speakers, num_folds)
        assert len(folds) == num_folds
        for fold in folds:
            assert sorted(fold.train + fold.validate + fold.test) == sorted(speakers)
            assert fold.train
            assert fold.validate
            assert fold.test
        assert sorted(name for fold in folds for name in fold.test) == sorted(speakers)
        for i, fold in enumerate(folds):
            assert fold.validate == folds[i - 1].test

    def test_groups_are_balanced_in_size_and_gender(self, female: int, male: int, unknown: int, num_folds: int) -> None:
        speakers = some_speakers(female, male, unknown)
        groups = [fold.test for fold in speaker_folds(speakers, num_folds)]
        sizes = [len(group) for group in groups]
        assert max(sizes) - min(sizes) <= 1
        for gender in ("female", "male", None):
            counts = [Counter(speakers[name] for name in group)[gender] for group in groups]
            assert max(counts) - min(counts) <= 1

    def test_the_order_of_speakers_does_not_matter(self, female: int, male: int, unknown: int, num_folds: int) -> None:
        speakers = some_speakers(female, male, unknown)
        names = list(speakers)
        random.Random(1).shuffle(names)
        assert speaker_folds({name: speakers[name] for name in names}, num_folds) == speaker_folds(speakers, num_folds)


@pytest.mark.parametrize(
    ("speakers", "num_folds", "message"),
    [
        (6, 2, "2 folds are too few.*set num_folds to 3 or more"),
        (6, 0, "0 folds are too few"),
        (6, 7, "7 folds are too many for 6 speakers.*set num_folds to 6 at most"),
        (2, 3, "3 folds are too many for 2 speakers.*use a corpus of 3 or more speakers"),
    ],
)
def test_impossible_numbers_of_folds_are_refused(speakers: int, num_folds: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        speaker_folds(some_speakers(0, speakers, 0), num_folds)
