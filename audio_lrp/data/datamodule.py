"""The LightningDataModule of every corpus: task, fold, representation, placement."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from audio_lrp.constants import TaskName
from audio_lrp.data.augmentation import Augmentation
from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.loading.dataset import ClipDataset
from audio_lrp.data.loading.device_clips import DeviceClips
from audio_lrp.data.loading.joined import JoinedDataset
from audio_lrp.data.loading.shares import UnrepeatedBatches
from audio_lrp.data.loading.training_loader import ResumableLoader, seed_batch
from audio_lrp.data.loading.workers import WorkerLoader, answer_with_errors
from audio_lrp.data.packing.cache import LongClipPolicy, PackedClips
from audio_lrp.data.placement import (
    Placement,
    centered_offsets,
    part_within_second,
    place,
    random_offsets,
    random_shifts,
)
from audio_lrp.data.representation import (
    NUM_SAMPLES,
    RepresentationName,
    SpectrogramScale,
    make_representation,
    refuse_rounding,
)
from audio_lrp.data.splits import SplitName, SplitOption, all_recordings, require_labels, split_recordings
from audio_lrp.data.tasks import TASKS
from audio_lrp.errors import UserError

_EVALUATION_EPOCH = -1
"""Stands for the epoch in placements that never change."""


class CorpusDataModule(L.LightningDataModule):
    """Batches of any corpus for one task and one fold.

    Several processes (DDP) share the clips: training repeats some in each epoch so that all get equally many,
    validation and test see every clip once (see `audio_lrp.data.loading.shares.UnrepeatedBatches`).

    Args:
        corpus: the corpus; in a configuration the class path of any :class:`~audio_lrp.data.corpora.corpus.Corpus`.
        task: ``"digit"`` (10 classes) or ``"gender"`` (2 classes).
        fold: which fold, counted from 0.
        split: which recordings are validated, tested and predicted: those of the ``"fold"``, or ``"all"`` of the
            corpus, whoever speaks, for a network that was trained on other voices. A training needs the former.
        num_folds: number of speaker-disjoint folds; ``None`` takes the folds published for the corpus and task, or 5
            where none are.
        representation: what the network sees: ``"waveform"`` [1, 8000] or ``"spectrogram"`` [1, 227, 227].
        spectrogram_scale: ``"unit"`` maps -80..0 dB to 0..1, ``"decibel"`` keeps the decibels.
        batch_size: clips in a batch, per process.
        num_workers: worker processes of each data loader; 0 reads in the main process.
        seed: seeds the order of training clips and all placements.
        placement: where a clip lies within its second. ``"random"``: in training elsewhere in every epoch.
            ``"fixed"``, as in the paper: always at the same share, once drawn, of the space left around it; with
            ``"random"``, validation and test are placed like this. ``"centered"``: the centroid of its amplitude, in
            training after augmentation, lies in the middle, see
            :func:`~audio_lrp.data.placement.centered_offsets`, in training up to ``jitter`` samples away; what does not
            fit into the second is cut off.
        jitter: samples by which centered clips are moved at most in training, elsewhere in every epoch.
        long_clips: clips longer than a second: ``"energy"`` keeps their loudest second, ``"center"`` the middle one,
            ``"error"`` refuses them.
        cache_dir: where the packed recordings are kept: a folder, ``"beside"`` the corpus, or ``None`` for the
            user's cache folder.
        augmentations: random changes to training clips, applied in this order.
        training_corpora: further corpora, all of whose recordings are trained on as well, for example
            :class:`~audio_lrp.data.SyntheticDigits`, whose many voices help where a corpus has few; validation and
            test are of ``corpus`` alone.
        preload_to_device: keep all recordings in the memory of the device that trains, where batches are put together:
            a GPU then waits for neither the reading nor the copying of clips, and ``num_workers`` may stay 0.
    """

    def __init__(
        self,
        corpus: Corpus,
        task: TaskName = "digit",
        fold: int = 0,
        num_folds: int | None = None,
        representation: RepresentationName = "waveform",
        spectrogram_scale: SpectrogramScale = "unit",
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        placement: Placement = "random",
        jitter: int = 400,
        long_clips: LongClipPolicy = "energy",
        cache_dir: str | None = None,
        augmentations: list[Augmentation] | None = None,
        training_corpora: list[Corpus] | None = None,
        preload_to_device: bool = False,
        split: SplitOption = "fold",
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("task", task, TaskName),
            ("representation", representation, RepresentationName),
            ("spectrogram_scale", spectrogram_scale, SpectrogramScale),
            ("placement", placement, Placement),
            ("long_clips", long_clips, LongClipPolicy),
            ("split", split, SplitOption),
        ):
            if value not in get_args(choices):
                raise UserError(f"unknown {name} {value!r}: data.{name} is one of {', '.join(get_args(choices))}")
        if not 0 <= jitter < NUM_SAMPLES // 2:
            raise UserError(f"data.jitter is a number of samples from 0 to {NUM_SAMPLES // 2 - 1}, got {jitter}")
        if batch_size < 1 or num_workers < 0:
            raise UserError(
                "data.batch_size must be at least 1 and data.num_workers at least 0, "
                f"got {batch_size} and {num_workers}"
            )
        self.corpus = corpus
        self.task = TASKS[task]
        self.fold = fold
        self.split: SplitOption = split
        self.num_folds = num_folds
        self.representation: RepresentationName = representation
        self.input_representation = make_representation(representation, spectrogram_scale)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.placement: Placement = placement
        self.jitter = jitter
        self.long_clips: LongClipPolicy = long_clips
        self.cache_dir = cache_dir
        self.augmentations = augmentations or []
        self.training_corpora = training_corpora or []
        self.preload_to_device = preload_to_device
        for further in self.training_corpora:
            if further.shares_speakers(corpus):
                raise UserError(
                    f"data.training_corpora: {further.name} at {further.root} may have speakers of the validation and "
                    f"test of {corpus.name} at {corpus.root}, whose accuracy would mean nothing then: take it out"
                )
        self._clips: list[PackedClips] = []
        self._preloaded: dict[torch.device, DeviceClips] = {}
        self.splits: dict[SplitName, ClipDataset] = {}
        self._joined: JoinedDataset | None = None
        self._without_labels = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names in the order of their indices."""
        return self.task.classes

    @property
    def num_classes(self) -> int:
        """Number of classes of the task."""
        return len(self.task.classes)

    def prepare_data(self) -> None:
        """Generate or find the corpus, check task and fold, and pack the recordings, in one process.

        Raises:
            UserError: the corpus has no labels for the task, the fold does not exist, there are longer clips than
                ``long_clips`` allows, or the trainer computes in 16 bits alone, to which Lightning rounds clips before
                they come here; told here because loggers start their runs before :meth:`setup`.
        """
        refuse_rounding(None if self.trainer is None else self.trainer.precision)
        self.corpus.prepare()
        self._split(None if self.trainer is None else self.trainer.state.fn)
        for further in self.training_corpora:
            further.prepare()
            require_labels(further, self.task, further.recordings)
        self._clips = self._open_clips()
        for clips in self._clips:
            clips.window(self.long_clips)

    def _split(self, stage: str | None) -> dict[SplitName, list[int]]:
        """Positions of the clips of every split; predictions need no labels, and only a training clips to train on."""
        labelled = stage != TrainerFn.PREDICTING
        if self.split == "fold":
            to_train = stage in (None, TrainerFn.FITTING)
            return split_recordings(
                self.corpus, self.task, self.fold, self.num_folds, to_train=to_train, labelled=labelled
            )
        if stage == TrainerFn.FITTING:
            raise UserError(
                "data.split is all, which leaves no recordings to train on: it is for validate, test and predict; "
                "train with data.split fold"
            )
        return all_recordings(self.corpus, self.task, labelled=labelled)

    @property
    def corpora(self) -> list[Corpus]:
        """The corpus, then the further ones trained on: the order that indices of recordings count in."""
        return [self.corpus, *self.training_corpora]

    def _open_clips(self) -> list[PackedClips]:
        return [
            PackedClips.open(
                corpus.name, corpus.root, [item.path for item in corpus.recordings], cache_dir=self.cache_dir
            )
            for corpus in self.corpora
        ]

    def setup(self, stage: str) -> None:
        """Choose the clips of every split."""
        without_labels = stage == TrainerFn.PREDICTING
        if self.splits and without_labels == self._without_labels:
            return
        self._without_labels = without_labels
        chosen = self._split(stage)
        self._clips = self._clips or self._open_clips()  # opened before where this process prepared the data
        # Files lie in the order of speakers and digits; a few training batches alone should hold all classes.
        np.random.default_rng(self.seed).shuffle(chosen["train"])
        for name, index in chosen.items():
            self.splits[name] = self._dataset(self.corpus, self._clips[0], index)
        if self.training_corpora:
            self._joined = JoinedDataset(
                self.corpora,
                [self.splits["train"]]
                + [
                    self._dataset(corpus, clips, range(len(corpus.recordings)))
                    for corpus, clips in zip(self.training_corpora, self._clips[1:], strict=True)
                ],
            )

    def _dataset(self, corpus: Corpus, clips: PackedClips, index: Sequence[int]) -> ClipDataset:
        return ClipDataset.of(corpus, self.task, clips, index, self.long_clips, read=not self.preload_to_device)

    @property
    def training_clips(self) -> ClipDataset | JoinedDataset:
        """All clips that are trained on: those of the split, and those of the further corpora."""
        return self._joined or self.splits["train"]

    def recording(self, index: int) -> Recording:
        """The recording that a batch names by ``index``: of the corpus, or of the further ones trained on."""
        for corpus in self.corpora:
            if index < len(corpus.recordings):
                return corpus.recordings[index]
            index -= len(corpus.recordings)
        raise IndexError("no corpus of this data module has so many recordings")

    def _loader(self, split: SplitName, **changed: Any) -> DataLoader[Batch]:
        settings: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "collate_fn": _already_a_batch,
            "worker_init_fn": answer_with_errors,
            # Elsewhere page-locked memory would only start CUDA, in every process.
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        }
        if split != "train":
            return WorkerLoader(self.splits[split], **(settings | changed))
        order = self._training_order()
        return ResumableLoader(self.training_clips, sampler=order, first_batch=self._batches_done, **settings)

    def _batches_done(self) -> int:
        """How many batches of the epoch training has behind it: more than 0 when it begins in the middle of one."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _training_order(self) -> DistributedSampler[Batch]:
        """An order that depends on seed and epoch alone, also in a training that was resumed."""
        return DistributedSampler(self.training_clips, *self._processes(), shuffle=True, seed=self.seed)

    def _processes(self) -> tuple[int, int]:
        """Number of processes that share the clips, and which of them this one is."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _evaluation_loader(self, split: SplitName) -> DataLoader[Batch]:
        """This process's share of a split."""
        processes, rank = self._processes()
        if processes == 1:
            return self._loader(split)
        share = UnrepeatedBatches(self.splits[split], processes, rank, self.batch_size)
        return self._loader(split, batch_size=None, sampler=share)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Copy from page-locked memory without waiting; Apple's GPUs may copy what has been freed by then."""
        if isinstance(batch, Batch):
            return batch.to(device, non_blocking=device.type == "cuda")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training clips in random order."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation clips."""
        return self._evaluation_loader("validate")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test clips."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Test clips; Lightning shares them out itself."""
        return self._loader("test")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let the random numbers of a training batch depend on its place in the training and on the seed alone.

        Those of augmentation, mixup and dropout follow: a training that is resumed in the middle of an epoch
        draws what it would have drawn, and no two processes draw the same. Without ``seed_everything`` they are left
        to chance.
        """
        seed = os.environ.get("PL_GLOBAL_SEED")
        if seed is not None and self.trainer is not None and self.trainer.training:
            seed_batch(int(seed), self.trainer.current_epoch, self._batches_done(), self.trainer.global_rank)
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Place the clips and compute their representation on the batch's device."""
        if not isinstance(batch, Batch):
            return batch
        if self.trainer is not None and self.trainer.training:
            return self._augmented(batch, self.trainer.current_epoch)
        return self.represent(batch)

    def represent(self, batch: Batch, epoch: int = _EVALUATION_EPOCH) -> Batch:
        """Place clips from sample 0 in the second and compute the network's inputs."""
        batch = self._filled(batch)
        offset = self._offsets(batch, epoch)
        signal = place(batch.input, offset)
        network_input = self.input_representation.to(signal.device)(signal)
        first, length = part_within_second(offset, batch.length)
        return Batch(network_input, batch.label, batch.speaker, first, length, batch.index)

    def _offsets(self, batch: Batch, epoch: int) -> Tensor:
        """Where in the second each clip begins [B], negative where its beginning is cut off."""
        if self.placement != "centered":
            epoch = epoch if self.placement == "random" else _EVALUATION_EPOCH
            return random_offsets(batch.index, batch.length, seed=self.seed, epoch=epoch)
        offset = centered_offsets(batch.input)
        if epoch != _EVALUATION_EPOCH:
            offset += random_shifts(batch.index, self.jitter, seed=self.seed, epoch=epoch)
        return offset

    def _filled(self, batch: Batch) -> Batch:
        """The batch with its clips, out of the memory of its device where it came without."""
        if batch.input.shape[1]:
            return batch
        device = batch.index.device
        if device not in self._preloaded:
            self._preloaded[device] = DeviceClips(self._clips, self.long_clips, device)
        return replace(batch, input=self._preloaded[device].gather(batch.index, batch.length))

    def _augmented(self, batch: Batch, epoch: int) -> Batch:
        batch = self._filled(batch)
        clip, length = batch.input, batch.length
        for augmentation in self.augmentations:
            clip, length = augmentation.change_clip(clip, length)
        changed = Batch(clip, batch.label, batch.speaker, batch.offset, length, batch.index)
        changed = self.represent(changed, epoch)
        for augmentation in self.augmentations:
            changed.input = augmentation.change_input(changed.input, self.input_representation.silence)
        return changed

    def examples(self, split: Literal["validate", "test"], count: int, seed: int) -> Batch:
        """A fixed choice of clips, spread evenly over the classes, as network inputs on the CPU.

        Args:
            split: where to choose from.
            count: how many clips; all of the split if it holds fewer.
            seed: chooses.

        Returns:
            The same batch for the same arguments, in every process; drawn without touching global random numbers.
        """
        dataset = self.splits[split]
        with torch.inference_mode(False), torch.no_grad():
            batch = dataset.__getitems__(dataset.spread(count, seed))
            if self.preload_to_device:  # so few are read from the file: no copy of all in main memory for them
                batch = replace(batch, input=self._read(batch.index))
            return self.represent(batch)

    def signals(self, batch: Batch) -> torch.Tensor:
        """The signals behind the network inputs of `examples`: placed clips in int16 scale, on the CPU [B, 8000]."""
        clips = replace(batch.to("cpu"), input=self._read(batch.index.cpu()))
        return place(clips.input, self._offsets(clips, _EVALUATION_EPOCH))

    def _read(self, index: torch.Tensor) -> torch.Tensor:
        """Clips of the corpus in int16 scale, from sample 0 on, on the CPU [B, 8000]."""
        return torch.from_numpy(self._clips[0].gather(index.numpy(), self.long_clips)[0])


def _already_a_batch(batch: Any) -> Any:
    return batch
