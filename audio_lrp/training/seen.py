"""The recordings that a run has really seen: how many, of how many speakers, and which part of the corpus they are."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import lightning as L
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from audio_lrp.data import Batch, CorpusDataModule, Recording
from audio_lrp.data.identity import TRAINED_ON, identities, speakers_among, trained_on
from audio_lrp.data.loading.dataset import ClipDataset
from audio_lrp.data.loading.joined import JoinedDataset
from audio_lrp.data.splits import choose_folds

_STAGES: Final = {
    "train": ("trained on", "training split", "limit_train_batches"),
    "validate": ("validated", "validation split", "limit_val_batches"),
    "test": ("tested", "test split", "limit_test_batches"),
    "predict": ("predicted", "test split", "limit_predict_batches"),
}
"""What a stage of Lightning's does to recordings, which part of a fold it takes, and the option that limits it."""


class SeenRecordings(Callback):
    """Counts the recordings that a run trains on, validates, tests and predicts, over all of its processes.

    Checkpoints get the identities of the recordings that their network was trained on, so that a later test of the same
    speakers, from whatever folder, can say so.

    Args:
        command: what runs, e.g. ``"test"``.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._from_checkpoint = False
        self._trained_on: Tensor | None = None  # before this run; None: nobody knows
        self._data: CorpusDataModule | None = None
        self._marks: dict[str, Tensor] = {}  # by stage, int32 [3, recordings]: seen, labelled, predicted rightly
        self._first_step = 0

    def begin_with(self, checkpoint: dict[str, Any]) -> None:
        """Learn what the network of a checkpoint was trained on."""
        self._from_checkpoint = True
        self._trained_on = trained_on(checkpoint.get("audio_lrp"))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the data."""
        data = getattr(trainer, "datamodule", None)
        self._data = data if isinstance(data, CorpusDataModule) else None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what this run trains on to what is known from before."""
        if self._data is not None and not (self._from_checkpoint and self._trained_on is None):
            checkpoint.setdefault("audio_lrp", {})[TRAINED_ON] = self._all_trained_on

    @cached_property
    def _all_trained_on(self) -> Tensor:
        assert self._data is not None
        clips = self._data.training_clips
        parts = [identities(part) for part in (clips.parts if isinstance(clips, JoinedDataset) else [clips])]
        known: Tensor = torch.unique(torch.cat([*parts, *([] if self._trained_on is None else [self._trained_on])]))
        return known

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the step that a resumed training begins at."""
        self._first_step = trainer.global_step

    def _mark(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Mark a batch's recordings, on its device so that a GPU need not be waited for."""
        stage = trainer.state.stage
        if self._data is None or stage not in _STAGES or not isinstance(batch, Batch):  # not in a sanity check
            return
        if stage not in self._marks:
            self._marks[stage] = self._no_marks(batch.index.device)
        seen, labelled, correct = self._marks[stage]
        seen[batch.index] = 1
        if stage == "predict" and isinstance(outputs, Tensor):
            labelled[batch.index] = (batch.label >= 0).int()
            correct[batch.index] = (outputs.argmax(dim=1).to(batch.label.device) == batch.label).int()

    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _mark

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an earlier validation, test or prediction."""
        self._marks.pop(str(trainer.state.stage), None)

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _begin

    def _join(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Join the marks of all processes."""
        stage = trainer.state.stage
        if self._data is not None and stage in _STAGES:
            marks = self._marks.get(stage, self._no_marks(pl_module.device))  # a process may have had no batch
            joined: Any = trainer.strategy.reduce(marks.to(pl_module.device), reduce_op="sum")
            self._marks[stage] = joined.clamp(max=1).cpu()
            labelled, correct = (int(row.sum()) for row in self._marks[stage][1:])
            for logger in trainer.loggers if labelled else []:  # of predictions, which Lightning lets nobody log
                logger.log_metrics({"predict/accuracy": correct / labelled}, trainer.global_step)

    on_train_end = on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = _join

    def _no_marks(self, device: torch.device) -> Tensor:
        assert self._data is not None
        return torch.zeros(3, sum(len(corpus.recordings) for corpus in self._data.corpora), dtype=torch.int32).to(
            device
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put what was seen into the summaries of W&B's runs."""
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, WandbLogger):  # a text that is logged becomes the summary's
                logger.log_metrics(dict[str, Any](self.lines(trainer)), trainer.global_step)

    def lines(self, trainer: L.Trainer) -> list[tuple[str, str]]:
        """What was seen, for the run's summary: a name and a text for each stage; in the first process, at the end."""
        if self._data is None:
            return []
        lines = []
        for stage, (verb, _, _) in _STAGES.items():
            if stage in self._marks or stage == self.command:
                marks = self._marks.get(stage, self._no_marks(torch.device("cpu")))
                labelled, correct = int(marks[1].sum()), int(marks[2].sum())
                if labelled:
                    of = (
                        "" if labelled == int(marks[0].sum()) else f" of the {labelled} recordings whose label is known"
                    )
                    lines.append(("accuracy", f"{100 * correct / labelled:.1f} %{of}"))
                lines.append((verb, self._text(trainer, stage, marks[0].nonzero()[:, 0].tolist())))
        return lines

    def _text(self, trainer: L.Trainer, stage: str, seen: Sequence[int]) -> str:
        """How many of how many recordings and speakers, and in parentheses which."""
        data = self._data
        assert data is not None
        every = [(number, item) for number, corpus in enumerate(data.corpora) for item in corpus.recordings]
        speakers = {(number, item.speaker) for number, item in (every[index] for index in seen)}
        total = len(self._part(stage))
        count = _plural(total, "recording") if len(seen) == total else f"{len(seen)} of {_plural(total, 'recording')},"
        facts = [self._which(stage), *self._reservations(trainer, stage, len(seen), total)]
        if stage != "train":
            facts += _class_gaps(data, [every[index][1] for index in seen])
            facts += self._voices([every[index][1] for index in seen])
        return f"{count} of {_plural(len(speakers), 'speaker')} ({'; '.join(facts)})"

    def _part(self, stage: str) -> ClipDataset | JoinedDataset:
        assert self._data is not None
        if stage == "train":
            return self._data.training_clips
        return self._data.splits["validate" if stage == "validate" else "test"]

    def _which(self, stage: str) -> str:
        data = self._data
        assert data is not None
        if data.split == "all":
            return "all"
        folds = len(choose_folds(data.corpus, data.task, data.num_folds))
        further = [f" and all of {corpus.name}" for corpus in data.training_corpora if stage == "train"]
        return f"{_STAGES[stage][1]} of fold {data.fold} of {folds}{''.join(further)}"

    def _reservations(self, trainer: L.Trainer, stage: str, seen: int, total: int) -> Iterator[str]:
        """Why recordings were not seen."""
        data, option = self._data, _STAGES[stage][2]
        assert data is not None
        limit = getattr(trainer, option)
        if seen < total and (isinstance(limit, int) or limit < 1):
            yield f"limited by trainer.{option}"
        if stage == "train" and self._first_step:
            yield f"counted from step {self._first_step} on"
        for corpus in data.corpora if stage == "train" else [data.corpus]:
            if corpus.excluded:
                yield f"{corpus.excluded} excluded by data.exclude"
        if data.split == "all" and total < len(data.corpus.recordings):
            yield f"{len(data.corpus.recordings) - total} left out, whose {data.task.name} is not known"

    @cached_property
    def _known_speakers(self) -> set[str]:
        """The corpus's speakers that the network was trained on before this run."""
        assert self._data is not None
        assert self._trained_on is not None
        splits = self._data.splits.values()
        return set[str]().union(*(speakers_among(self._trained_on, self._data.corpus, split) for split in splits))

    def _voices(self, seen: Sequence[Recording]) -> Iterator[str]:
        """Whether the network knows the voices; of another corpus than it was trained on, that there are more."""
        data = self._data
        assert data is not None
        if self._trained_on is None:
            if self._from_checkpoint and data.split == "all":
                yield "whether it was trained on some of them is not known"
            return
        heard = [item.speaker for item in seen if item.speaker in self._known_speakers]
        if heard:
            yield f"trained on {len(set(heard))} of these speakers, {_plural(len(heard), 'recording')}"
        elif data.split == "fold" and not self._known_speakers:
            speakers = len({item.speaker for item in data.corpus.recordings})
            yield f"--data.split all: all {len(data.corpus.recordings)} of {_plural(speakers, 'speaker')}"

    def warning(self) -> str | None:
        """What to say where results are not those of new voices."""
        stage = "validate" if self.command == "fit" else self.command
        if self._data is None or self._trained_on is None or stage not in self._marks:
            return None
        seen = self._marks[stage][0].nonzero()[:, 0].tolist()
        heard = sum(self._data.recording(index).speaker in self._known_speakers for index in seen)
        if not heard:
            return None
        count = f"{heard} of the {_plural(len(seen), 'recording')} {_STAGES[stage][0]}"
        return f"{count} are of speakers that the network was trained on: accuracy on them says nothing of new voices"


def _class_gaps(data: CorpusDataModule, seen: Sequence[Recording]) -> Iterator[str]:
    """Which classes there was nothing of."""
    labels = {data.task.label(item) for item in seen} - {None}
    missing = [name for number, name in enumerate(data.task.classes) if number not in labels]
    if seen and not labels:
        yield f"no {data.task.name} is known"
    elif seen and len(missing) > 3:
        yield f"{len(labels)} of {len(data.task.classes)} classes"
    elif seen and missing:
        yield f"none whose {data.task.name} is {' or '.join(missing)}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
