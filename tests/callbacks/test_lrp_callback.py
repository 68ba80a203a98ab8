"""The LRP callback: what it logs and where, and that training does not notice it."""

import copy
import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
import yaml
from command_line import tests_path
from fake_corpus import ToneCorpus
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.image import imread
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from zennit.composites import EpsilonPlus, EpsilonPlusFlat

import audio_lrp.callbacks.lrp as lrp_module
from audio_lrp.attribution.attribute import attribute
from audio_lrp.callbacks import LRPCallback
from audio_lrp.callbacks.isolation import isolated_random_state
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.loading.batch import Batch
from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    Bands,
    Interpolation,
    MatchedNoise,
    PerturbationCurves,
    RandomOrder,
    Windows,
    aopc,
    perturbation_curves,
    srg,
)
from audio_lrp.models import AlexNet, AudioNet, Classifier
from audio_lrp.timefrequency.audible import audible_explanations
from audio_lrp.timefrequency.stft import STABILIZER, STFT

FRACTIONS = (0.0, 0.5, 1.0)
SMALL: dict[str, Any] = {"num_pictures": 1, "num_examples": 4, "fractions": FRACTIONS}


class TinyNet(nn.Sequential):
    """A waveform network with dropout that trains in milliseconds."""

    representation = "waveform"

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv1d(1, 4, 16, stride=8), nn.ReLU(), nn.MaxPool1d(8), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(496, num_classes),
        )  # fmt: skip


class DrawingDataModule(CorpusDataModule):
    """Draws from every global random generator whenever it gives examples, which training must not notice."""

    def examples(self, split: Any, count: int, seed: int) -> Batch:
        torch.rand(3), np.random.rand(3), random.random()
        return super().examples(split, count, seed)


class Snapshot(Callback):
    """Notes the module's state at the end of every training epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.states.append(state_of(pl_module))


def state_of(module: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "parameters": [id(parameter) for parameter in module.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "gradients": [parameter.grad is None for parameter in module.parameters()],
        "modes": [submodule.training for submodule in module.modules()],
        "hooks": [len(getattr(submodule, name)) for submodule in module.modules() for name in hooks],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
    }


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the callback writes its files in these tests."""
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    for module in ("publishing", "lrp"):
        monkeypatch.setattr(f"audio_lrp.callbacks.{module}.run_folder", lambda trainer: folder)
    return folder


@pytest.fixture
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DrawingDataModule]:
    root = tmp_path_factory.getbasetemp() / "tones"

    def make(**options: Any) -> DrawingDataModule:
        corpus = ToneCorpus(root, repetitions=1)
        return DrawingDataModule(corpus, num_folds=3, batch_size=8, cache_dir=str(root.parent / "cache"), **options)

    return make


def make_trainer(*callbacks: Callback, **options: Any) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"logger": False, "max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 1} | quiet | options
    return L.Trainer(callbacks=list(callbacks), **options)


def train(data: CorpusDataModule, *callbacks: Callback, **options: Any) -> tuple[L.Trainer, Classifier]:
    L.seed_everything(1)
    module = Classifier(TinyNet, data.num_classes, "waveform")
    trainer = make_trainer(*callbacks, **options)
    trainer.fit(module, data)
    return trainer, module


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_is_bit_identical_with_and_without(make_data, run_folder, precision):
    watched, without = Snapshot(), Snapshot()
    trainer, module = train(make_data(), LRPCallback(**SMALL), watched, precision=precision)
    plain_trainer, plain = train(make_data(), without, precision=precision)
    assert len(list(run_folder.rglob("*.png"))) == 6  # it did work: two pictures and a chart in each of two epochs
    assert len(list(run_folder.rglob("*.wav"))) == 6
    for name, value in plain.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    moments, plain_moments = (list(t.optimizers[0].state.values()) for t in (trainer, plain_trainer))
    for with_callback, reference in zip(moments, plain_moments, strict=True):
        assert all(torch.equal(with_callback[name], reference[name]) for name in reference)
    same = ("requires_grad", "gradients", "modes", "hooks", "torch", "numpy", "python", "grad_mode")
    for state, reference in zip(watched.states, without.states, strict=True):
        assert {name: state[name] for name in same} == {name: reference[name] for name in same}


def test_nothing_is_left_behind_not_even_by_an_exception(make_data, run_folder, monkeypatch):
    def fail(*arguments: Any) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(lrp_module, "publish", fail)
    before = Snapshot()
    L.seed_everything(1)
    module = Classifier(TinyNet, 10, "waveform")
    with pytest.raises(RuntimeError, match="the disk is full"):
        make_trainer(before, LRPCallback(**SMALL, on_error="raise")).fit(module, make_data())
    assert state_of(module) == before.states[0]


def test_a_failure_costs_the_pictures_not_the_training(make_data, run_folder, monkeypatch):
    def fail(*arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(lrp_module, "publish", fail)
    with pytest.warns(UserWarning, match=r"shows nothing at step \d+ \(OSError: the disk is full\); the run goes on"):
        trainer, module = train(make_data(), LRPCallback(**SMALL))
    _, plain = train(make_data())
    assert trainer.current_epoch == 2
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("part", "loss"), [("explained_clips", "draws nothing"), ("save_relevance", "keeps no arrays")]
)
def test_a_failure_costs_no_more_than_it_must(make_data, run_folder, monkeypatch, part, loss):
    def fail(*arguments: Any) -> None:
        raise ValueError("cannot be drawn")

    monkeypatch.setattr(lrp_module, part, fail)
    with pytest.warns(UserWarning, match=rf"LRPCallback {loss} at step \d+ \(ValueError: cannot be drawn\)"):
        train(make_data(), LRPCallback(**SMALL), max_epochs=1)
    names = {path.name.partition("-")[2].partition("-")[2] for path in (run_folder / "lrp").iterdir()}
    assert names >= {"scores.csv", "perturbation.csv", "perturbation.png"}
    assert ("map-0.png" in names) == (part == "save_relevance")
    assert (run_folder / "relevance-validation.npz").exists() == (part == "explained_clips")
    with pytest.raises(ValueError, match="cannot be drawn"):
        train(make_data(), LRPCallback(**SMALL, on_error="raise"), max_epochs=1)


@pytest.mark.parametrize("order", [1, -1])
def test_averaged_weights_are_explained_where_validation_uses_them(make_data, run_folder, monkeypatch, order):
    explained: list[nn.Module] = []

    def spy(network: nn.Module, *arguments: Any, **options: Any) -> Any:
        explained.append(copy.deepcopy(network))
        return attribute(network, *arguments, **options)

    monkeypatch.setattr(lrp_module, "attribute", spy)
    averaging = EMAWeightAveraging(decay=0.5)
    callbacks = [averaging, LRPCallback(every_n_epochs=2, **SMALL)][::order]
    trainer, module = train(make_data(), *callbacks, Snapshot(), max_epochs=3)
    assert len(explained) == 2
    averaged = averaging._average_model.module.network.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in explained[-1].state_dict().items())
    assert not torch.equal(next(explained[0].parameters()), next(explained[1].parameters()))
    with torch.no_grad():  # a test explains the weights that it tests, not the average that training left behind
        next(module.network.parameters()).zero_()
    trainer.test(module, datamodule=trainer.datamodule)
    assert not next(explained[-1].parameters()).any()


def test_an_average_kept_on_another_device_is_brought_to_the_trainings_own():
    module = Classifier(TinyNet, 10, "waveform")
    averaging = EMAWeightAveraging()
    averaging._average_model = AveragedModel(module)
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    training = SimpleNamespace(state=state, callbacks=[averaging])
    found = lrp_module._validated_network(training, module, torch.device("meta"))
    assert {parameter.device.type for parameter in found.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in averaging._average_model.parameters()} == {"cpu"}


def test_what_an_apple_gpu_trains_is_explained_on_the_cpu(make_data, run_folder, monkeypatch):
    """It has no float64, in which relevance is accounted for."""
    callback = LRPCallback(**SMALL)
    trainer, module = train(make_data(), callback)
    monkeypatch.setattr(module, "_device", torch.device("mps"))
    callback.on_test_end(trainer, module)
    assert (run_folder / "relevance-test.npz").is_file()


def test_it_works_only_in_every_nth_epoch_and_never_in_sanity_checks(make_data, run_folder, monkeypatch):
    calls: list[tuple[str, int]] = []

    def counted(name: str) -> None:
        original = getattr(lrp_module, name)

        def spy(*arguments: Any, **options: Any) -> Any:
            calls.append((name, trainer.current_epoch))
            return original(*arguments, **options)

        monkeypatch.setattr(lrp_module, name, spy)

    for name in ("attribute", "perturbation_curves", "explained_clips", "publish"):
        counted(name)
    trainer = make_trainer(LRPCallback(every_n_epochs=3, **SMALL), max_epochs=4, val_check_interval=0.5)
    trainer.fit(Classifier(TinyNet, 10, "waveform"), make_data())
    once = ("attribute", "perturbation_curves", "explained_clips", "publish")
    assert [name for name, _ in calls] == [*once, *once]  # the third epoch, and the last
    assert [epoch for _, epoch in calls[:4]] == [2] * 4

    calls.clear()
    callback = LRPCallback(every_n_epochs=2, **SMALL)
    for _ in range(2):  # a callback may serve two trainings; their last epoch is an n-th one and explained once
        trainer = make_trainer(callback, max_epochs=2)
        trainer.fit(Classifier(TinyNet, 10, "waveform"), make_data())
        assert [name for name, _ in calls] == [*once]
        calls.clear()


def test_a_diverged_network_costs_the_pictures_not_the_training(make_data, run_folder):
    module = Classifier(TinyNet, 10, "waveform")
    torch.nn.init.constant_(next(module.network.parameters()), float("nan"))
    trainer = make_trainer(LRPCallback(**SMALL), max_epochs=1)
    with pytest.warns(UserWarning, match="the network has diverged"):
        trainer.fit(module, make_data())
    assert trainer.global_step > 0
    assert not (run_folder / "lrp").exists()


class Alarm(L.LightningModule):
    """Somebody's own module, whose single output tells whether a digit is 5 or more."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyNet(1)

    def training_step(self, batch: Batch) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.network(batch.input)[:, 0], (batch.label > 4) * 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("predicted", "10 classes, but the network's output the size 1"), ("label", "a single output, whose")],
)
def test_a_network_of_other_outputs_than_classes_is_told(make_data, run_folder, target, reason):
    trainer = make_trainer(LRPCallback(**SMALL, target=target), max_epochs=1)
    with pytest.warns(UserWarning, match=f"LRPCallback shows nothing at step .*: .*{reason}"):
        trainer.fit(Alarm(), make_data())
    assert not (run_folder / "lrp").exists()


def test_files_hold_the_maps_the_curves_and_the_areas(make_data, run_folder):
    trainer, module = train(make_data(), LRPCallback(**SMALL | {"num_pictures": 2}), max_epochs=1)
    stem = f"step-{trainer.global_step:08d}"
    of_all = ("perturbation.png", "perturbation.csv", "scores.csv", "conservation.csv")
    sounds = ("original", "positive", "negative")
    of_each = ("map-{}.png", "time_frequency-{}.png", *(f"audio-{{}}-{name}.wav" for name in sounds))
    names = {*of_all, *(name.format(number) for name in of_each for number in range(2))}
    assert {path.name for path in (run_folder / "lrp").iterdir()} == {f"{stem}-{name}" for name in names}
    for picture in ("map-0.png", "time_frequency-1.png"):
        assert imread(run_folder / "lrp" / f"{stem}-{picture}").shape[:2] == (420, 1000)

    # The same curves, computed by hand.
    data = make_data_ready(make_data())
    batch = data.examples("validate", 4, 0)
    explanation = attribute(module.network, batch.input, batch.label)
    curves = perturbation_curves(
        *(module.network, batch.input, batch.label, explanation.relevance),
        orders=("morf", "lerf", "random", "amplitude"),
        fractions=FRACTIONS,
        seed=0,
        index=batch.index,
    )
    with (run_folder / "lrp" / f"{stem}-perturbation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["order"], float(row["fraction"])) for row in rows] == [
        (order, fraction) for order in ("morf", "lerf", "random", "amplitude") for fraction in FRACTIONS
    ]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], curves.probability.flatten(), rtol=1e-5)
    with (run_folder / "lrp" / f"{stem}-scores.csv").open() as file:
        scores = {row["score"]: float(row["value"]) for row in csv.DictReader(file)}
    assert scores == {
        **{f"aopc_{order}": pytest.approx(aopc(curves, order).mean().item(), rel=1e-5) for order in curves.orders},
        "srg": pytest.approx(srg(curves).mean().item(), rel=1e-4),
        "relevance_mass": pytest.approx(1, rel=1e-6),  # padding of zeros has no relevance by this composite
    }

    # The same ledger, and the same sounds.
    with (run_folder / "lrp" / f"{stem}-conservation.csv").open() as file:
        ledger = list(csv.DictReader(file))
    expected = explanation.conservation.rows()
    assert [row["layer"] for row in ledger] == [row["layer"] for row in expected]
    np.testing.assert_allclose([float(row["lower"]) for row in ledger], [row["lower"] for row in expected], rtol=1e-4)
    representation = data.input_representation
    plane = representation.in_plane(batch.input, explanation.relevance, explanation.modified_gradient)
    begin, length = int(batch.offset[1]), int(batch.length[1])
    expected_sounds = audible_explanations(data.signals(batch)[1] / 32768, plane[1], (begin, begin + length))
    for name in sounds:
        sound, rate = soundfile.read(run_folder / "lrp" / f"{stem}-audio-1-{name}.wav")
        assert (rate, len(sound)) == (8000, length)
        np.testing.assert_allclose(sound, expected_sounds[name], atol=2e-4)


def test_curves_follow_the_class_that_is_explained(make_data, run_folder):
    _, module = train(make_data(), LRPCallback(**SMALL, target="predicted"), max_epochs=1)
    batch = make_data_ready(make_data()).examples("validate", 4, 0)
    assert (module.eval()(batch.input).argmax(dim=1) != batch.label).any()
    with next((run_folder / "lrp").glob("*-perturbation.csv")).open() as file:
        clean = [row["accuracy"] for row in csv.DictReader(file) if float(row["fraction"]) == 0]
    assert clean == ["1.0"] * 4


@pytest.mark.parametrize("required", [0.0, 1.0])
def test_gain_at_constrained_accuracy(make_data, tmp_path, required):
    callback = LRPCallback(**SMALL, required_accuracy=required)
    trainer, _ = train(make_data(), callback, max_epochs=1, logger=CSVLogger(tmp_path, name="", version=""))
    accuracy = float(trainer.callback_metrics["val/accuracy"])
    assert accuracy < 1
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["lrp/srg"])
    expected = float(row["lrp/srg"]) if required == 0 else -1 - (1 - accuracy)
    assert float(row["lrp/srg_constrained"]) == pytest.approx(expected)


def test_gain_at_the_accuracy_of_the_test(make_data, run_folder):
    data = make_data()
    trainer, module = train(data, LRPCallback(**SMALL, required_accuracy=1.0), max_epochs=1)
    trainer.test(module, data, verbose=False)
    accuracy = float(trainer.callback_metrics["test/accuracy"])
    assert accuracy < 1
    with next((run_folder / "lrp" / "test").glob("*-scores.csv")).open() as file:
        scores = {row["score"]: float(row["value"]) for row in csv.DictReader(file)}
    assert scores["srg_constrained"] == pytest.approx(-1 - (1 - accuracy), rel=1e-6)


def test_loggers_of_every_kind_get_the_scores(make_data, tmp_path):
    train(make_data(), LRPCallback(**SMALL), max_epochs=1, logger=CSVLogger(tmp_path, name="", version=""))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lrp/aopc_morf"]]
    with next(tmp_path.rglob("*-scores.csv")).open() as file:
        scores = {f"lrp/{row['score']}": float(row["value"]) for row in csv.DictReader(file)}
    assert [{name: float(row[name]) for name in scores} for row in rows] == [scores]


def make_data_ready(data: CorpusDataModule) -> CorpusDataModule:
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize(("network", "representation"), [(AudioNet, "waveform"), (AlexNet, "spectrogram")])
def test_both_networks_are_explained_in_validate_and_test(make_data, run_folder, network, representation):
    module = Classifier(network, 2, representation)
    data = make_data(task="gender", representation=representation)
    options = {"num_pictures": 1, "num_examples": 2, "fractions": (0.0, 1.0), "target": "predicted"}
    trainer = make_trainer(LRPCallback(**options), logger=CSVLogger(run_folder.parent), precision="bf16-mixed")
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    for folder in ("lrp", "lrp/test"):
        written = {path.name.removeprefix("step-00000000-") for path in (run_folder / folder).glob("*.*")}
        of_all = {"perturbation.png", "perturbation.csv", "scores.csv", "conservation.csv"}
        sounds = {f"audio-0-{name}.wav" for name in ("original", "positive", "negative")}
        pictures = {"map-0.png", "time_frequency-0.png"} if representation == "waveform" else {"map-0.png"}
        assert written == of_all | sounds | pictures
        with (run_folder / folder / "step-00000000-scores.csv").open() as file:
            scores = {row["score"]: float(row["value"]) for row in csv.DictReader(file)}
        assert {"srg", "aopc_morf"} < scores.keys()
        assert scores["relevance_mass"] == pytest.approx(1, abs=1e-6)  # silence has no relevance


@pytest.mark.parametrize(("scale", "silence"), [("unit", 0.0), ("decibel", -80.0)])
def test_what_is_removed_becomes_silence(make_data, run_folder, monkeypatch, scale, silence):
    """Without a baseline of the user's: the representation's silence, which is not 0 in decibels."""
    data = make_data(task="gender", representation="spectrogram", spectrogram_scale=scale)
    seen: list[Tensor] = []
    module = Classifier(AlexNet, 2, "spectrogram")
    module.network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().clone()))
    callback = LRPCallback(num_pictures=0, num_examples=1, fractions=(0.0, 1.0), orders=["morf"])
    make_trainer(callback).validate(module, data, verbose=False)
    assert any(torch.equal(batch[-1], torch.full_like(batch[-1], silence)) for batch in seen)


def test_the_history_of_curves_goes_on_after_an_interruption(make_data, run_folder, tmp_path, monkeypatch):
    logged: list[Any] = []
    monkeypatch.setattr(lrp_module, "publish", lambda _, __, results: logged.append(results))
    for epochs, path in ((1, None), (2, tmp_path / "first.ckpt")):
        data = make_data()
        trainer = make_trainer(LRPCallback(**SMALL), max_epochs=epochs)
        trainer.fit(Classifier(TinyNet, 10, "waveform"), data, ckpt_path=path)
        trainer.save_checkpoint(tmp_path / "first.ckpt")
    first, second = logged
    assert [row["trained"] for row in second.history] == ["step 3"] * 3 + ["step 6"] * 3
    assert second.history[:3] == first.history
    assert [row["probability"] for row in second.history[3:]] == second.curves.probability[0].tolist()


def test_files_lie_where_the_logger_or_else_the_trainer_keeps_its_own(make_data, tmp_path):
    logger = CSVLogger(tmp_path, name="csv", version="one")
    for options, folder in (({"logger": logger}, "csv/one"), ({"default_root_dir": tmp_path / "root"}, "root")):
        trainer = make_trainer(LRPCallback(**SMALL), **options)
        trainer.validate(Classifier(TinyNet, 10, "waveform"), make_data(), verbose=False)
        assert (tmp_path / folder / "lrp" / "step-00000000-map-0.png").is_file()


def test_it_can_be_written_in_yaml():
    parser = ArgumentParser()
    parser.add_subclass_arguments(Callback, "callback")
    text = """
    class_path: audio_lrp.callbacks.LRPCallback
    init_args: {every_n_epochs: 5, fractions: [0, 0.5, 1], composite: {class_path: zennit.composites.EpsilonPlusFlat}}
    """
    callback = parser.instantiate_classes(parser.parse_object({"callback": yaml.safe_load(text)})).callback
    assert (callback.every_n_epochs, callback.fractions) == (5, (0.0, 0.5, 1.0))
    assert isinstance(callback.composite, EpsilonPlusFlat)
    mapping = """
    class_path: audio_lrp.callbacks.LRPCallback
    init_args:
      composite:
        class_path: audio_lrp.attribution.RuleMap
        init_args: {types: {Linear: {class_path: audio_lrp.attribution.Epsilon, init_args: {epsilon: 0.5}}}}
    """
    own = parser.instantiate_classes(parser.parse_object({"callback": yaml.safe_load(mapping)})).callback
    assert own.composite.rule_of({}, "dense", nn.Linear(1, 1)).epsilon == 0.5
    named = parser.parse_args(["--callback=audio_lrp.callbacks.LRPCallback", "--callback.composite=epsilon"])
    assert parser.instantiate_classes(named).callback.composite == "epsilon"


def from_yaml(text: str) -> LRPCallback:
    parser = ArgumentParser()
    parser.add_subclass_arguments(Callback, "callback")
    return parser.instantiate_classes(parser.parse_object({"callback": yaml.safe_load(text)})).callback


def assert_written(run_folder: Path, trainer: L.Trainer, curves: PerturbationCurves, columns: Sequence[str]) -> None:
    """The callback's table of curves has these values."""
    with (run_folder / "lrp" / f"step-{trainer.global_step:08d}-perturbation.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in columns:
        expected = [row[name] for row in curves.rows()]
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, rtol=1e-4, atol=1e-6)


def test_the_perturbations_can_be_written_in_yaml(make_data, run_folder):
    text = """
    class_path: audio_lrp.callbacks.LRPCallback
    init_args:
      num_pictures: 0
      num_examples: 4
      fractions: [0, 0.5, 1]
      unit: {class_path: audio_lrp.faithfulness.Windows, init_args: {length: 40}}
      baseline: {class_path: audio_lrp.faithfulness.MatchedNoise}
      orders: [morf, {class_path: audio_lrp.faithfulness.RandomOrder, init_args: {repetitions: 2}}]
    """
    callback = from_yaml(text)
    trainer, module = train(make_data(), callback, max_epochs=1)

    batch = make_data_ready(make_data()).examples("validate", 4, 0)
    curves = perturbation_curves(
        *(module.network, batch.input, batch.label),
        attribute(module.network, batch.input, batch.label).relevance,
        orders=["morf", RandomOrder(2)],
        fractions=FRACTIONS,
        unit=Windows(40),
        baseline=MatchedNoise(),
        index=batch.index,
    )
    assert_written(run_folder, trainer, curves, ("probability", "logit_std"))


def test_time_frequency_units_of_waveforms_can_be_written_in_yaml(make_data, run_folder):
    text = """
    class_path: audio_lrp.callbacks.LRPCallback
    init_args:
      num_pictures: 0
      num_examples: 4
      fractions: [0, 0.5, 1]
      unit: {class_path: audio_lrp.faithfulness.Bands, init_args: {bins: 8}}
      transform: {class_path: audio_lrp.timefrequency.HannSTFT, init_args: {window_length: 256, hop_length: 64}}
    """
    callback = from_yaml(text)
    trainer, module = train(make_data(), callback, max_epochs=1)

    batch = make_data_ready(make_data()).examples("validate", 4, 0)
    stft = STFT(8000, torch.hann_window(256, periodic=True), hop_length=64)
    explanation = attribute(module.network, batch.input, batch.label)
    relevance = stft.relevance(batch.input, modified_gradient=explanation.modified_gradient, stabilizer=STABILIZER)
    curves = perturbation_curves(
        *(module.network, batch.input, batch.label, relevance),
        orders=callback.orders,
        fractions=FRACTIONS,
        unit=Bands(8),
        transform=stft,
        index=batch.index,
    )
    assert_written(run_folder, trainer, curves, ("probability",))
    with pytest.raises(UserError, match=r"STFT of 8000 samples, but the network's inputs are of shape \[227, 227\]"):
        make_trainer(callback).validate(
            Classifier(AlexNet, 10, "spectrogram"), make_data(representation="spectrogram"), verbose=False
        )


def test_units_of_another_representation_are_told_before_training(make_data):
    with pytest.raises(UserError, match="Bands divide spectrograms"):
        train(make_data(), LRPCallback(unit=Bands(), baseline=Interpolation()))


def test_compiled_networks_are_explained_like_plain_ones(make_data, run_folder, monkeypatch):
    seen: list[Tensor] = []
    monkeypatch.setattr(
        lrp_module, "explained_clips", lambda explanation, *rest: seen.append(explanation.relevance) or []
    )
    data = make_data()
    module = Classifier(TinyNet, 10, "waveform")
    make_trainer(LRPCallback(**SMALL)).test(module, data, verbose=False)
    module.network = torch.compile(module.network, backend="eager")
    make_trainer(LRPCallback(**SMALL)).test(module, data, verbose=False)
    assert torch.equal(seen[0], seen[1])
    assert seen[0].abs().sum() > 0


def test_picture_titles_name_classes_and_composite(make_data, run_folder, monkeypatch):
    captions: list[str] = []
    monkeypatch.setattr(lrp_module, "publish", lambda _, __, results: captions.append(results.clips[0].caption))
    data = make_data(task="gender")
    module = Classifier(TinyNet, 2, "waveform")
    with torch.no_grad():
        module.network[-1].weight.zero_()
        module.network[-1].bias.copy_(torch.tensor([0.0, np.log(3.0)]))  # always female with 75 %
    for target in ("label", "predicted"):
        callback = LRPCallback(**SMALL | {"target": target, "composite": "epsilon_plus"})
        make_trainer(callback).validate(module, data, verbose=False)
    assert captions == [
        "true male, predicted female (75%) | relevance for male | epsilon_plus",
        "true male, predicted female (75%) | relevance for female | epsilon_plus",
    ]


def test_wandb_gets_pictures_chart_and_areas_over_the_global_step(make_data, tmp_path, monkeypatch):
    import wandb

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="audio-lrp-tests", save_dir=tmp_path, offline=True)
    trainer, _ = train(make_data(), LRPCallback(**SMALL), max_epochs=1, logger=logger)
    wandb.finish()
    wandb.teardown()  # the file is complete only now

    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", log]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    (numbers,) = (item for item in items if "lrp/aopc_morf" in item)
    (item,) = (item for item in items if "lrp/maps.count" in item)
    assert numbers["trainer/global_step"] == item["trainer/global_step"] == trainer.global_step == 3
    areas = {order: numbers[f"lrp/aopc_{order}"] for order in ("morf", "lerf", "random", "amplitude")}
    under = dict.fromkeys(areas, 0.0)

    assert item["lrp/maps.count"] == 1
    assert item["lrp/maps.captions"][0].endswith("| relevance for 0 | epsilon_alpha2_beta1")
    for key in ("lrp/maps", "lrp/time_frequency"):
        assert imread(log.parent / "files" / item[f"{key}.filenames"][0]).shape[:2] == (420, 1000)
    assert 0 <= numbers["lrp/conservation_error"] < 1e-4
    caption = item["lrp/maps.captions"][0]
    assert item["lrp/audio.captions"] == [f"{name} | {caption}" for name in ("original", "positive", "negative")]
    assert item["lrp/audio.count"] == len(list((log.parent / "files" / "media" / "audio" / "lrp").glob("*.wav"))) == 3

    table = json.loads((log.parent / "files" / item["lrp/perturbation_table.path"]).read_text())
    assert table["columns"] == ["order", "fraction", "accuracy", "probability", "logit"]
    for order, area in areas.items():
        clean, half, removed = (row[3] for row in table["data"] if row[0] == order)
        under[order] = (clean / 2 + half + removed / 2) / 2
        assert area == pytest.approx(clean - under[order], rel=1e-6)
    assert numbers["lrp/srg"] == pytest.approx(under["lerf"] - under["morf"], rel=1e-6)
    assert numbers["lrp/relevance_mass"] == pytest.approx(1)
    history = json.loads((log.parent / "files" / item["lrp/perturbation_history_table.path"]).read_text())
    assert history["columns"] == ["trained", *table["columns"]]
    assert history["data"] == [["step 3", *row] for row in table["data"] if row[0] == "morf"]
    charts = [record["config"]["update"] for record in records if record["type"] == "config"]
    assert any("_wandb.visualize.lrp/perturbation" in update for update in charts)


DDP_SCRIPT = """
from pathlib import Path

import test_lrp_callback as tests
from audio_lrp.callbacks import LRPCallback, publishing

folder = Path({folder!r})
publishing.run_folder = lambda trainer: folder / f"rank-{{trainer.global_rank}}"
corpus = tests.ToneCorpus(folder / "tones", repetitions=1)
for name, callbacks in {{"with.pt": [LRPCallback(**tests.SMALL)], "without.pt": []}}.items():
    data = tests.DrawingDataModule(corpus, num_folds=3, batch_size=4, cache_dir=str(folder / "cache"))
    trainer, module = tests.train(data, *callbacks, strategy="ddp", devices=2)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        tests.torch.save(module.state_dict(), folder / name)
tests.torch.distributed.destroy_process_group()
"""


def test_two_processes_train_alike_and_rank_zero_writes(tmp_path):
    """Distributed data parallel over gloo: no deadlock, one process writes, weights to the bit as without."""
    script = tmp_path / "train.py"
    script.write_text(DDP_SCRIPT.format(folder=str(tmp_path)))
    found = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": tests_path()}}
    done = subprocess.run([sys.executable, script], timeout=400, cwd=tmp_path, **found)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "rank-0").rglob("*.png"))) == 9  # two pictures and a chart in two epochs and the test
    assert not (tmp_path / "rank-1").exists()
    weights, plain_weights = (torch.load(tmp_path / name) for name in ("with.pt", "without.pt"))
    assert all(torch.equal(weights[name], value) for name, value in plain_weights.items())


def test_zennit_composites_are_taken_as_they_are(make_data, run_folder):
    trainer, _ = train(make_data(), LRPCallback(composite=EpsilonPlus(), **SMALL))
    assert len(list(run_folder.rglob("*map*.png"))) == 2
    assert len(list(run_folder.rglob("*time_frequency*.png"))) == 2
    assert not list(run_folder.rglob("*conservation*"))  # its rules keep no accounts
    assert trainer.current_epoch == 2


def test_relevance_of_silence_has_maps_but_no_time_frequency_form(make_data, run_folder):
    with pytest.warns(
        UserWarning, match="shows maps alone, without time, frequency and sounds of relevance: samples of"
    ):
        train(make_data(), LRPCallback(composite="epsilon_alpha2_beta1_flat", **SMALL), max_epochs=1)
    assert len(list(run_folder.rglob("*map*.png"))) == 1
    assert not list(run_folder.rglob("*time_frequency*"))
    assert [path.name for path in run_folder.rglob("*.wav")] == [
        *(path.name for path in run_folder.rglob("*original.wav"))
    ]


def test_without_pictures_there_are_curves_alone(make_data, run_folder):
    train(make_data(), LRPCallback(**SMALL | {"num_pictures": 0}), max_epochs=1)
    assert {path.suffix for path in run_folder.rglob("*.*")} == {".csv", ".npz", ".png"}
    assert len(list(run_folder.rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs of LRPCallback must be at least 1, not 0"),
        ({"num_examples": 0, "num_pictures": 0}, "num_examples of LRPCallback must be at least 1"),
        ({"num_pictures": -1}, "num_pictures of LRPCallback must be at least 0"),
        ({"num_pictures": 5, "num_examples": 4}, r"num_pictures \(5\) must not exceed num_examples \(4\)"),
        ({"unit": 0}, "unit of LRPCallback must be at least 1"),
        ({"orders": ["morf", "best"]}, "choose from morf, lerf, random, amplitude"),
        ({"target": "speaker"}, "'label' or 'predicted', not 'speaker'"),
        ({"composite": "epsilon_pluss"}, "did you mean 'epsilon_plus'"),
        ({"fractions": (0.1, 1.0)}, "begin with 0 and rise strictly"),
        ({"fractions": (0.0, 0.5, 0.5)}, "begin with 0 and rise strictly"),
        ({"fractions": (0.0, 1.5)}, "begin with 0 and rise strictly"),
    ],
)
def test_bad_options_are_told_before_training(options, message):
    with pytest.raises(UserError, match=message):
        LRPCallback(**options)


def test_a_data_module_without_examples_is_refused_at_setup(make_data):
    data = make_data_ready(make_data())
    module = Classifier(TinyNet, 10, "waveform")
    with pytest.raises(UserError, match="takes its examples from a CorpusDataModule, but there is none"):
        make_trainer(LRPCallback()).validate(module, data.val_dataloader())
    with pytest.raises(UserError, match="but LightningDataModule is none"):
        make_trainer(LRPCallback()).fit(module, L.LightningDataModule())


def test_random_state_survives_an_exception():
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    def draw_and_fail() -> None:
        with isolated_random_state(torch.device("cpu")):
            torch.rand(1), np.random.rand(), random.random()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
