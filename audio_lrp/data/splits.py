"""Which recordings of a corpus train, validate and test, for one task and one fold."""

from collections.abc import Sequence
from typing import Literal

from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.folds import Fold, speaker_folds
from audio_lrp.data.tasks import Task
from audio_lrp.errors import UserError

SplitName = Literal["train", "validate", "test"]

SplitOption = Literal["fold", "all"]
"""Which recordings are validated, tested and predicted: those of a fold, or all."""

DEFAULT_NUM_FOLDS = 5
"""Number of folds of corpora for which none are published."""


def choose_folds(corpus: Corpus, task: Task, num_folds: int | None) -> tuple[Fold, ...]:
    """The folds of a corpus: the published ones where there are any of this number, else generated ones.

    Args:
        corpus: the corpus.
        task: the task.
        num_folds: number of folds, or ``None`` for the published ones, or 5 where none are.

    Raises:
        UserError: the corpus has fewer speakers than folds.
    """
    published = corpus.published_folds(task.name)
    if published is not None and num_folds in (None, len(published)):
        return published
    genders = {recording.speaker: recording.gender for recording in corpus.recordings}
    return speaker_folds(genders, DEFAULT_NUM_FOLDS if num_folds is None else num_folds)


def split_recordings(
    corpus: Corpus, task: Task, fold: int, num_folds: int | None, *, to_train: bool = True, labelled: bool = True
) -> dict[SplitName, list[int]]:
    """Positions in ``corpus.recordings`` of the training, validation and test clips.

    Args:
        corpus: the corpus.
        task: the task.
        fold: which fold, from 0.
        num_folds: see :func:`choose_folds`.
        to_train: the training clips are needed, and not only those to validate or test on.
        labelled: the recordings must have the task's labels; predictions need none.

    Raises:
        UserError: no recording has a label for the task, a speaker of the fold lacks one, the fold does not exist,
            or a class has no training clip.
    """
    recordings = corpus.recordings
    if labelled:
        _require_any_label(corpus, task)
    folds = choose_folds(corpus, task, num_folds)
    if not 0 <= fold < len(folds):
        raise UserError(
            f"fold {fold} does not exist: {corpus.name} has folds 0 to {len(folds) - 1} for the task {task.name!r}; "
            "choose one with --data.fold, or another number of folds with --data.num_folds"
        )
    members: dict[SplitName, tuple[str, ...]] = {
        "train": folds[fold].train,
        "validate": folds[fold].validate,
        "test": folds[fold].test,
    }
    splits = {
        name: [position for position, recording in enumerate(recordings) if recording.speaker in speakers]
        for name, speakers in members.items()
    }
    if not labelled:
        return splits
    require_labels(corpus, task, [recordings[position] for index in splits.values() for position in index])
    for name, index in splits.items():
        if name == "train" and not to_train:
            continue
        _check_classes(corpus, task, fold, name, [recordings[position] for position in index])
    return splits


def all_recordings(corpus: Corpus, task: Task, *, labelled: bool = True) -> dict[SplitName, list[int]]:
    """Positions of every recording of a corpus, to validate and test on alike; there are none to train on.

    Args:
        corpus: the corpus.
        task: the task.
        labelled: leave out recordings without a label for the task; predictions need none.

    Raises:
        UserError: no recording has a label for the task.
    """
    if labelled:
        _require_any_label(corpus, task)
    index = [
        position for position, item in enumerate(corpus.recordings) if not labelled or task.label(item) is not None
    ]
    return {"train": [], "validate": index, "test": index}


def _require_any_label(corpus: Corpus, task: Task) -> None:
    if all(task.label(recording) is None for recording in corpus.recordings):
        raise UserError(
            f"the corpus {corpus.name} at {corpus.root} has no labels for the task {task.name!r}: "
            "choose another corpus or task; audio-lrp predict needs no labels"
        )


def require_labels(corpus: Corpus, task: Task, used: Sequence[Recording]) -> None:
    """Make sure that the recordings used have the task's labels.

    Raises:
        UserError: some have none; it names their speakers.
    """
    unlabelled = sorted({recording.speaker for recording in used if task.label(recording) is None})
    if unlabelled:
        raise UserError(
            f"the corpus {corpus.name} at {corpus.root} does not say the {task.name} of "
            f"{'speaker' if len(unlabelled) == 1 else 'speakers'} {', '.join(unlabelled[:5])}"
            f"{' and others' if len(unlabelled) > 5 else ''}: complete its metadata or remove their recordings"
        )


def _check_classes(corpus: Corpus, task: Task, fold: int, name: SplitName, used: list[Recording]) -> None:
    present = {task.label(recording) for recording in used}
    missing = [label for number, label in enumerate(task.classes) if number not in present]
    # A held-out split may lack a digit (it does in small corpora), but not a whole gender: its accuracy would mislead.
    if missing and (name == "train" or task.name == "gender"):
        raise UserError(
            f"fold {fold} of {corpus.name} has no {'/'.join(missing)} recording to {name} on: "
            "choose fewer folds with --data.num_folds or another fold"
        )
