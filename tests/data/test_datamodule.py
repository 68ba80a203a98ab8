"""Splits, labels, placement and reproducibility of the data module."""

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from fake_corpus import ToneCorpus

from audio_lrp.data.augmentation import (
    AdditiveNoise,
    Augmentation,
    PolarityInversion,
    RandomEqualizer,
    SpeedPerturbation,
)
from audio_lrp.data.corpora.corpus import Recording
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.folds import Fold, rotate_groups
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.loading.shares import UnrepeatedBatches
from audio_lrp.errors import UserError, lost_worker


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToneCorpus:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    return ToneCorpus(tmp_path / "tones")


def ready(corpus: ToneCorpus, **options: object) -> CorpusDataModule:
    datamodule = CorpusDataModule(corpus, num_folds=3, **options)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def batches(loader: torch.utils.data.DataLoader[Batch]) -> Batch:
    """All batches of a loader as one, in the order of the recordings."""
    parts = list(loader)
    joined = Batch(*(torch.cat([getattr(part, name) for part in parts]) for name in Batch.__dataclass_fields__))
    order = joined.index.argsort()
    return Batch(*(getattr(joined, name)[order] for name in Batch.__dataclass_fields__))


def test_splits_are_disjoint_by_speaker_and_whole(corpus: ToneCorpus) -> None:
    datamodule = ready(corpus)
    speakers = [set(datamodule.splits[name].speaker) for name in ("train", "validate", "test")]
    assert set.union(*speakers) == set(range(6))
    assert sum(map(len, speakers)) == 6
    index = np.concatenate([split.index for split in datamodule.splits.values()])
    assert sorted(index) == list(range(len(corpus.recordings)))


@pytest.mark.parametrize(("task", "classes"), [("digit", 10), ("gender", 2)])
def test_labels_are_those_of_the_recordings(corpus: ToneCorpus, task: str, classes: int) -> None:
    datamodule = ready(corpus, task=task)
    assert datamodule.num_classes == len(datamodule.class_names) == classes
    batch = batches(datamodule.test_dataloader())
    for label, index in zip(batch.label.tolist(), batch.index.tolist(), strict=True):
        recording = corpus.recordings[index]
        wanted = str(recording.digit) if task == "digit" else recording.gender
        assert datamodule.class_names[label] == wanted


@pytest.mark.parametrize(("representation", "shape"), [("waveform", (1, 8000)), ("spectrogram", (1, 227, 227))])
def test_representation_of_a_placed_clip(corpus: ToneCorpus, representation: str, shape: tuple[int, ...]) -> None:
    datamodule = ready(corpus, representation=representation)
    batch = datamodule.represent(next(iter(datamodule.val_dataloader())))
    assert batch.input.shape[1:] == shape == datamodule.input_representation.shape
    assert batch.input.dtype == torch.float32
    assert ((batch.offset >= 0) & (batch.offset + batch.length <= 8000)).all()
    if representation == "waveform":
        for row in range(len(batch)):
            start, stop = batch.offset[row], batch.offset[row] + batch.length[row]
            assert (batch.input[row, 0, :start] == 0).all()
            assert (batch.input[row, 0, stop:] == 0).all()
            assert batch.input[row, 0, start:stop].abs().max() > 0.5


@pytest.mark.parametrize("placement", ["random", "centered"])
def test_placement_is_the_same_for_any_batch_size_and_number_of_workers(corpus: ToneCorpus, placement: str) -> None:
    reference = batches(ready(corpus, batch_size=7, placement=placement).test_dataloader())
    for options in ({"batch_size": 64}, {"batch_size": 5, "num_workers": 2}):
        datamodule = ready(corpus, placement=placement, **options)
        other = batches(datamodule.test_dataloader())
        assert torch.equal(other.input, reference.input)
        assert torch.equal(datamodule.represent(other).offset, datamodule.represent(reference).offset)


@pytest.mark.parametrize("placement", ["random", "fixed", "centered"])
def test_placement_in_training_depends_on_the_seed(corpus: ToneCorpus, placement: str) -> None:
    one, other = (ready(corpus, placement=placement, seed=seed) for seed in (0, 1))
    batch = batches(one.test_dataloader())
    assert not torch.equal(one.represent(batch, epoch=3).offset, other.represent(batch, epoch=3).offset)


class Recorder(L.LightningModule):
    """Remembers what the training loop hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, Batch]] = []
        self.validated: list[Batch] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch))
        return self.weight * batch.input.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def offsets_by_epoch(datamodule: CorpusDataModule, tmp_path: Path) -> tuple[list[dict[int, int]], Recorder]:
    module = Recorder()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=datamodule)
    epochs: list[dict[int, int]] = [{}, {}]
    for epoch, batch in module.seen:
        epochs[epoch].update(zip(batch.index.tolist(), batch.offset.tolist(), strict=True))
    return epochs, module


def test_training_places_anew_every_epoch_and_evaluation_never(corpus: ToneCorpus, tmp_path: Path) -> None:
    (first, second), module = offsets_by_epoch(ready(corpus, batch_size=8), tmp_path)
    assert first.keys() == second.keys()
    assert sum(first[index] != second[index] for index in first) > 0.95 * len(first)
    half = len(module.validated) // 2
    for one, other in zip(module.validated[:half], module.validated[half:], strict=True):
        assert torch.equal(one.input, other.input)


@pytest.mark.parametrize(("clips", "processes", "batch_size"), [(7, 2, 3), (20, 3, 4), (9, 2, 4), (9, 2, 1), (4, 4, 8)])
def test_processes_share_clips_in_equally_many_batches(clips: int, processes: int, batch_size: int) -> None:
    shares = [UnrepeatedBatches([None] * clips, processes, rank, batch_size) for rank in range(processes)]
    seen = [position for share in shares for batch in share for position in batch]
    assert sorted(seen) == list(range(clips))
    assert len({len(share) for share in shares}) == 1
    sizes = [len(batch) for share in shares for batch in share]
    assert 1 <= min(sizes) <= max(sizes) <= max(batch_size, 2)
    assert len(shares[0]) <= -(-clips // (processes * batch_size))


def test_fewer_clips_than_processes_are_repeated() -> None:
    shares = [list(UnrepeatedBatches([None] * 2, 3, rank, batch_size=4)) for rank in range(3)]
    assert shares == [[[0]], [[1]], [[0]]]


def test_training_batches_are_the_same_for_any_number_of_workers(
    corpus: ToneCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with random placement and augmentations, whose random numbers follow from the seed alone."""
    seen: list[list[Batch]] = []
    for seed, workers in ((3, 0), (3, 2), (4, 0)):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))  # as seed_everything sets it
        augmentations = [SpeedPerturbation(), RandomEqualizer(), AdditiveNoise(), PolarityInversion()]
        _, module = offsets_by_epoch(
            ready(corpus, batch_size=8, num_workers=workers, augmentations=augmentations), tmp_path
        )
        seen.append([batch for _, batch in module.seen])
    reference, other, otherwise_seeded = seen
    assert len(reference) == len(other) > 8
    for one, two in zip(reference, other, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in Batch.__dataclass_fields__)
    assert not torch.equal(reference[0].input, otherwise_seeded[0].input)


def training_order(datamodule: CorpusDataModule, epoch: int) -> list[int]:
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [index for batch in loader for index in batch.index.tolist()]


def test_training_order_depends_on_seed_and_epoch_alone(corpus: ToneCorpus) -> None:
    """A training taken up again at epoch 3 goes on in the order of epoch 3."""
    reference = training_order(ready(corpus, seed=1), epoch=3)
    assert training_order(ready(corpus, seed=1, num_workers=2), epoch=3) == reference
    others = [training_order(ready(corpus, seed=seed), epoch=epoch) for seed, epoch in ((1, 0), (2, 3))]
    for other in others:
        assert other != reference
        assert sorted(other) == sorted(reference)


def test_first_training_clips_hold_many_classes(corpus: ToneCorpus) -> None:
    """Overfitting a single batch takes them in the split's order."""
    assert len(set(ready(corpus).splits["train"].label[:16])) > 5


def test_long_clips_are_refused_before_training(corpus: ToneCorpus) -> None:
    corpus.prepare()
    corpus.prepare()
    soundfile.write(corpus.recordings[0].path, np.sin(np.arange(9000)), 8000)
    with pytest.raises(UserError, match=r"1 recordings are longer than one second.*1\.1[23] s.*long_clips"):
        CorpusDataModule(corpus, num_folds=3, long_clips="error").prepare_data()


@pytest.mark.parametrize(("long_clips", "placement"), [("energy", "random"), ("center", "centered")])
def test_preloaded_clips_are_those_that_are_read(
    corpus: ToneCorpus, long_clips: str, placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.prepare()
    soundfile.write(corpus.recordings[0].path, np.sin(np.arange(20_000) / 9) * np.linspace(0, 1, 20_000), 8000)
    further = ToneCorpus(tmp_path / "further", speakers=3, repetitions=1)
    options = {"long_clips": long_clips, "training_corpora": [further], "batch_size": 7, "placement": placement}
    reading, preloading = (
        ready(ToneCorpus(corpus.root), **options, preload_to_device=preload) for preload in (False, True)
    )
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for read, preloaded in zip(getattr(reading, loader)(), getattr(preloading, loader)(), strict=True):
            assert preloaded.input.shape[1] == 0  # neither read nor copied
            expected, found = reading.represent(read), preloading.represent(preloaded)
            for name in Batch.__dataclass_fields__:
                assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(preloading.examples("test", 9, seed=0).input, reading.examples("test", 9, seed=0).input)


def test_training_is_the_same_with_preloaded_clips(corpus: ToneCorpus, tmp_path: Path) -> None:
    inputs = []
    for preload in (False, True):
        L.seed_everything(0)
        noise = [SpeedPerturbation(0.8, 1.2), AdditiveNoise(10, 20)]
        datamodule = CorpusDataModule(corpus, num_folds=3, augmentations=noise, preload_to_device=preload)
        _, recorder = offsets_by_epoch(datamodule, tmp_path)
        inputs.append([batch.input for _, batch in recorder.seen])
    assert all(map(torch.equal, *inputs))


def test_fixed_placement_never_moves(corpus: ToneCorpus, tmp_path: Path) -> None:
    (first, second), _ = offsets_by_epoch(ready(corpus, batch_size=8, placement="fixed"), tmp_path)
    assert first == second
    assert len(set(first.values())) > len(first) // 2
    datamodule = ready(corpus)
    evaluated = datamodule.represent(batches(datamodule.train_dataloader()))
    assert first == dict(zip(evaluated.index.tolist(), evaluated.offset.tolist(), strict=True))


def test_centered_clips_move_in_training_by_no_more_than_the_jitter(corpus: ToneCorpus, tmp_path: Path) -> None:
    datamodule = ready(corpus, batch_size=8, placement="centered", jitter=30)
    middle = datamodule.represent(batches(ready(corpus).train_dataloader()))
    epochs, recorder = offsets_by_epoch(datamodule, tmp_path)
    expected = dict(zip(middle.index.tolist(), middle.offset.tolist(), strict=True))
    for _, batch in recorder.seen:
        assert ((batch.offset >= 0) & (batch.offset + batch.length <= 8000)).all()
    for offsets in epochs:
        moved = [offset - expected[index] for index, offset in offsets.items()]
        assert max(map(abs, moved)) <= 30
        assert len(set(moved)) > len(moved) // 4
    assert epochs[0] != epochs[1]
    for batch in recorder.validated:
        sounds = datamodule.signals(batch).abs()
        centroid = (sounds * torch.arange(8000)).sum(dim=1) / sounds.sum(dim=1)
        assert ((centroid - 4000).abs() < 1.1).all()


def test_augmentation_is_for_training_only(corpus: ToneCorpus, tmp_path: Path) -> None:
    plain, faster = ready(corpus), ready(corpus, augmentations=[SpeedPerturbation(1.2, 1.2)])
    _, module = offsets_by_epoch(faster, tmp_path)
    unchanged = batches(plain.train_dataloader())
    lengths = dict(zip(unchanged.index.tolist(), unchanged.length.tolist(), strict=True))
    for _, batch in module.seen:
        for index, length in zip(batch.index.tolist(), batch.length.tolist(), strict=True):
            assert length == lengths[index] * 7560 // 9000  # the speed next to 1.2
    validated = torch.cat([batch.length for batch in module.validated[:1]])
    assert torch.equal(validated, next(iter(plain.val_dataloader())).length)


class Less(Augmentation):
    """Takes 100 samples off the length of clips, and 1 off their inputs."""

    def change_clip(self, clip: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return clip, length - 100

    def change_input(self, network_input: torch.Tensor, silence: float) -> torch.Tensor:
        return network_input - 1


class Half(Augmentation):
    """Halves the length of clips, and the distance of their inputs from silence."""

    def change_clip(self, clip: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return clip, length // 2

    def change_input(self, network_input: torch.Tensor, silence: float) -> torch.Tensor:
        return (network_input + silence) / 2


def test_augmentations_change_clips_and_inputs_in_their_order(corpus: ToneCorpus) -> None:
    options = {"representation": "spectrogram", "spectrogram_scale": "decibel", "augmentations": [Less(), Half()]}
    datamodule = ready(corpus, **options)
    batch = next(iter(datamodule.train_dataloader()))
    expected = datamodule.represent(replace(batch, length=(batch.length - 100) // 2), epoch=4)
    datamodule.trainer = SimpleNamespace(training=True, current_epoch=4)
    changed = datamodule.on_after_batch_transfer(batch, 0)
    assert torch.equal(changed.length, expected.length)
    assert torch.equal(changed.input, (expected.input - 1 - 80) / 2)


def test_random_numbers_of_a_batch_depend_on_seed_epoch_place_and_process(
    corpus: ToneCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    datamodule = ready(corpus)
    drawn = set()
    for seed, epoch, done, rank in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        monkeypatch.setattr(datamodule, "_batches_done", lambda done=done: done)
        datamodule.trainer = SimpleNamespace(training=True, current_epoch=epoch, global_rank=rank)
        datamodule.on_before_batch_transfer(None, 0)
        drawn.add(torch.rand(()).item())
    assert len(drawn) == 5


def test_examples_are_fixed_balanced_and_leave_random_numbers_alone(corpus: ToneCorpus) -> None:
    datamodule = ready(corpus)
    before = torch.get_rng_state()
    first, again, other = (datamodule.examples("validate", 20, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.input, again.input)
    assert not torch.equal(first.index, other.index)
    assert torch.bincount(first.label, minlength=10).tolist() == [2] * 10
    assert len(set(first.index.tolist())) == 20
    with torch.inference_mode():
        assert not datamodule.examples("validate", 3, 0).input.is_inference()


@pytest.mark.parametrize(
    ("representation", "placement", "long_clips"),
    [("waveform", "centered", "energy"), ("spectrogram", "random", "center")],
)
def test_the_signals_behind_examples_are_known(
    corpus: ToneCorpus, representation: str, placement: str, long_clips: str
) -> None:
    corpus.prepare()
    for recording in corpus.recordings[:10]:  # words late in long recordings
        soundfile.write(recording.path, np.sin(np.arange(9000) / 9) * np.linspace(0, 1, 9000) ** 9, 8000)
    options = {"representation": representation, "placement": placement, "long_clips": long_clips}
    datamodule = ready(ToneCorpus(corpus.root), **options)
    batch = datamodule.examples("test", 20, 0)
    assert (batch.length < 8000).all() == (placement == "centered")  # long ones begin in silence, which is cut off
    signals = datamodule.signals(batch)
    assert signals.abs().amax() > 1000  # in int16 scale
    torch.testing.assert_close(datamodule.input_representation(signals), batch.input)


def test_processes_share_what_is_evaluated(corpus: ToneCorpus) -> None:
    datamodule = ready(corpus)
    alone = batches(datamodule.test_dataloader())
    shares = []
    for rank in range(2):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        datamodule.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)
        shares.append(batches(datamodule.test_dataloader()))
    assert min(map(len, shares)) > 0
    together = batches(shares)
    for name in Batch.__dataclass_fields__:
        assert torch.equal(getattr(together, name), getattr(alone, name)), name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_page_locked_memory_is_for_trainings_on_cuda(corpus: ToneCorpus, device: str) -> None:
    datamodule = ready(corpus)
    assert not datamodule.train_dataloader().pin_memory
    strategy = SimpleNamespace(root_device=torch.device(device))
    datamodule.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy)
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        assert loader.pin_memory == (device == "cuda")


def test_batches_of_other_kinds_are_lightnings(corpus: ToneCorpus) -> None:
    datamodule = ready(corpus)
    moved = datamodule.transfer_batch_to_device([torch.ones(2)], torch.device("meta"), 0)
    assert moved[0].device.type == "meta"
    assert datamodule.on_after_batch_transfer(moved, 0) is moved


@pytest.mark.parametrize(("precision", "instead"), [("bf16-true", "bf16-mixed"), ("16-true", "16-mixed")])
def test_recordings_are_not_rounded_to_16_bits(corpus: ToneCorpus, precision: Any, instead: str) -> None:
    datamodule = ready(corpus)
    datamodule.trainer = L.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=f"trainer.precision {precision} would round .*: set it to {instead}"):
        datamodule.prepare_data()


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True), ("cpu", True)])
def test_only_copies_to_cuda_are_not_waited_for(
    corpus: ToneCorpus, monkeypatch: pytest.MonkeyPatch, device: str, waits: bool
) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        Batch, "to", lambda _, device, *, non_blocking=False: asked.append((device.type, not non_blocking))
    )
    datamodule = ready(corpus)
    datamodule.transfer_batch_to_device(next(iter(datamodule.train_dataloader())), torch.device(device), 0)
    assert asked == [(device, waits)]


def test_batch_moves_whole() -> None:
    batch = Batch(*(torch.arange(3) for _ in Batch.__dataclass_fields__))
    moved = batch.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in Batch.__dataclass_fields__)
    assert len(batch) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "accent"}, "unknown task 'accent'.*digit, gender"),
        ({"representation": "wave"}, "unknown representation 'wave': data.representation is one of waveform"),
        ({"placement": "fixd"}, "unknown placement 'fixd'"),
        ({"jitter": -1}, "data.jitter is a number of samples from 0 to 3999, got -1"),
        ({"jitter": 4000}, "data.jitter is a number of samples from 0 to 3999, got 4000"),
        ({"spectrogram_scale": "db"}, "unknown spectrogram_scale 'db'"),
        ({"long_clips": "eror"}, "unknown long_clips 'eror'"),
        ({"fold": 3}, "fold 3 does not exist: ToneCorpus has folds 0 to 2"),
        ({"fold": -1}, "fold -1 does not exist"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": -1}, "num_workers at least 0"),
    ],
)
def test_wrong_options_are_refused(corpus: ToneCorpus, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ready(corpus, **options)


def test_fold_without_one_of_two_genders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"fold 0 of ToneCorpus has no (fe)?male recording to train on: choose fewer"):
        ready(ToneCorpus(tmp_path / "tones", speakers=3), task="gender")


class TwoDigits(ToneCorpus):
    """Too few recordings to train on."""

    def scan(self) -> list[Recording]:
        return [recording for recording in super().scan() if recording.digit < 2]


def test_who_only_predicts_needs_no_recordings_to_train_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    datamodule = CorpusDataModule(TwoDigits(tmp_path / "tones", speakers=3), num_folds=3)
    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    found = trainer.predict(CountClips(), datamodule=datamodule)
    assert sum(found) == len(datamodule.splits["test"]) > 0
    with pytest.raises(UserError, match="fold 0 of ToneCorpus has no 2/3/4/5/6/7/8/9 recording to train on"):
        trainer.fit(CountClips(), datamodule=datamodule)


class CountClips(L.LightningModule):
    """Predicts how many clips a batch has."""

    def predict_step(self, batch: Batch) -> int:
        return len(batch)

    def training_step(self, batch: Batch) -> None:
        pytest.fail("nothing is to be trained")

    def configure_optimizers(self) -> None:
        pass


class PublishedFolds(ToneCorpus):
    """Comes with folds of its own."""

    def published_folds(self, task: str) -> tuple[Fold, ...] | None:
        return rotate_groups([[f"s{speaker}"] for speaker in range(self.speakers)])


def test_published_folds_are_used_unless_others_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    corpus = PublishedFolds(tmp_path / "tones")
    for num_folds, speakers in ((None, 1), (6, 1), (3, 2)):
        datamodule = CorpusDataModule(corpus, num_folds=num_folds)
        datamodule.prepare_data()
        datamodule.setup("fit")
        tested = {corpus.recordings[position].speaker for position in datamodule.splits["test"].index}
        assert len(tested) == speakers, num_folds


def test_task_without_labels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"ToneCorpus at .* has no labels for the task 'gender'"):
        ready(ToneCorpus(tmp_path / "tones", labelled=False), task="gender")


def test_more_folds_than_speakers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="folds"):
        ready(ToneCorpus(tmp_path / "tones", speakers=2))


class TestWorkersThatTheSystemRefuses:
    @pytest.mark.parametrize(
        ("split", "reason", "fix"),
        [
            ("train", "unable to allocate: No space left on device (28)", r"/dev/shm must be .*--shm-size=1g"),
            ("val", "unable to open x: Too many open files (24)\nmore", r"\(24\)\): allow .*, ulimit -n 4096"),
        ],
        ids=["memory", "files"],
    )
    def test_memory_for_a_batch(
        self, corpus: ToneCorpus, split: str, reason: str, fix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: torch.UntypedStorage) -> None:
            raise RuntimeError(reason)

        monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)  # in the workers, being forks, as well
        loader = getattr(ready(corpus, num_workers=1, batch_size=8), f"{split}_dataloader")()
        loader.timeout = 60  # or this would wait for ever where the worker says nothing
        with pytest.raises(UserError, match=rf"a worker process cannot send its batch \(unable to .*{fix}, or read"):
            next(iter(loader))

    def test_life(self, corpus: ToneCorpus) -> None:
        batches = iter(ready(corpus, num_workers=1, batch_size=1).val_dataloader())
        next(batches)
        worker = batches._workers[0]  # type: ignore[attr-defined]

        def lose() -> None:
            worker.kill()  # as the system does when memory runs out
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(RuntimeError) as caught:  # raised wherever this process is when it hears of the death
            lose()
        assert re.match(r"DataLoader worker \(pid.*, or train without workers", str(lost_worker(caught.value)))

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOSYS])
    def test_processes(self, corpus: ToneCorpus, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(torch.multiprocessing, "Queue", refuse)
        loader = ready(corpus, num_workers=1).val_dataloader()
        with pytest.raises(UserError, match=rf"worker processes cannot start .*{os.strerror(number)}.*num_workers 0"):
            next(iter(loader))
