"""The LightningModule: learning, metrics, recipes, and its refusals."""

import copy
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from fake_corpus import ToneCorpus
from torch import Tensor, nn

from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.errors import UserError
from audio_lrp.models import AlexNet, AudioNet, Classifier, WarmupCosine
from audio_lrp.models import classifier as classifier_module
from audio_lrp.models.classifier import check_network, mix


class Linear(nn.Module):
    """Logistic regression on the magnitude spectrum: enough for tones."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(200, num_classes)

    def forward(self, waveform: Tensor) -> Tensor:
        magnitude = torch.fft.rfft(waveform[:, 0]).abs()[:, 1:4001]
        return self.dense(magnitude.reshape(-1, 200, 20).mean(-1))


@pytest.fixture
def tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusDataModule:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    corpus = ToneCorpus(tmp_path / "tones", speakers=6, repetitions=2)
    return CorpusDataModule(corpus, num_folds=3, batch_size=16)


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, **options,
    )  # fmt: skip


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.03)


def test_learns_and_reports_what_numpy_counts(tones: CorpusDataModule, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(Linear, num_classes=10, representation="waveform", optimizer=adam)
    run = trainer(tmp_path, max_epochs=15)
    run.fit(classifier, datamodule=tones)
    assert {"train/loss", "val/loss", "val/accuracy", "val/f1"} <= run.callback_metrics.keys()
    (metrics,) = run.test(classifier, datamodule=tones, verbose=False)
    probabilities = torch.cat(run.predict(classifier, datamodule=tones)).numpy()
    label = tones.splits["test"].label
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    predicted = probabilities.argmax(axis=1)
    assert metrics["test/accuracy"] == pytest.approx((predicted == label).mean(), abs=1e-6)
    assert metrics["test/accuracy"] > 0.8
    assert metrics["test/loss"] == pytest.approx(-np.log(probabilities[np.arange(len(label)), label]).mean(), rel=1e-4)
    f1 = [
        2 * ((predicted == k) & (label == k)).sum() / max(1, (predicted == k).sum() + (label == k).sum())
        for k in range(10)
    ]
    assert metrics["test/f1"] == pytest.approx(np.mean(f1), abs=1e-6)
    expected = np.zeros((10, 10), dtype=int)
    np.add.at(expected, (label, predicted), 1)
    np.testing.assert_array_equal(classifier.confusion_matrix.compute().numpy(), expected)


@pytest.mark.parametrize(("options", "warmup"), [({}, 0.05), ({"scheduler": partial(WarmupCosine, warmup=0.5)}, 0.5)])
def test_schedule_spans_the_training(
    tones: CorpusDataModule, tmp_path: Path, options: dict[str, Any], warmup: float
) -> None:
    classifier = Classifier(Linear, num_classes=10, representation="waveform", **options)
    rates: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    run = trainer(tmp_path, max_epochs=5, callbacks=[Watch()])
    run.fit(classifier, datamodule=tones)
    total = run.global_step
    schedule = WarmupCosine(torch.optim.AdamW(Linear(10).parameters()), warmup=warmup, total_steps=total)
    assert rates == pytest.approx([1e-3 * schedule.factor(step) for step in range(total)], rel=1e-6)
    assert rates[-1] < 0.1 * max(rates)


def test_schedule_without_an_end_is_refused(tones: CorpusDataModule, tmp_path: Path) -> None:
    classifier = Classifier(Linear, num_classes=10, representation="waveform")
    with pytest.raises(UserError, match=r"WarmupCosine .* trainer\.max_epochs"):
        trainer(tmp_path, max_epochs=-1, max_time="00:00:00:05").fit(classifier, datamodule=tones)


def test_scheduler_by_epoch_and_plateau(tones: CorpusDataModule, tmp_path: Path) -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    classifier = Classifier(
        Linear,
        num_classes=10,
        representation="waveform",
        scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss", patience=0),
        scheduler_interval="epoch",
    )
    run = trainer(tmp_path, max_epochs=2)
    run.fit(classifier, datamodule=tones)
    assert run.lr_scheduler_configs[0].monitor == "val/loss"
    assert run.lr_scheduler_configs[0].scheduler.last_epoch == 2


@pytest.mark.parametrize(("network", "given"), [(AlexNet, "waveform"), (AudioNet, "spectrogram")])
def test_network_of_another_representation_is_refused_at_once(network: type[nn.Module], given: str) -> None:
    with pytest.raises(UserError, match=rf"{network.__name__} takes the representation .* set data"):
        Classifier(network, num_classes=10, representation=given)


def test_misfitting_network_is_refused_before_the_first_batch(tones: CorpusDataModule, tmp_path: Path) -> None:
    def misfit(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))

    classifier = Classifier(misfit, num_classes=10, representation="waveform")
    with pytest.raises(UserError, match=r"Sequential cannot take the data's inputs of shape \(1, 8000\)"):
        trainer(tmp_path, max_epochs=1).fit(classifier, datamodule=tones)


def test_wrong_number_of_logits_is_refused() -> None:
    with pytest.raises(UserError, match=r"must return logits of shape \(batch, 10\) but returned \(1, 3\)"):
        check_network(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), (1, 8), 10)


def test_checking_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    check_network(network, (1, 8), 2)
    assert [module.training for module in network] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_mixing_weights_inputs_and_targets_alike() -> None:
    """The mixed target tells the weights and the partner; the input must be mixed by just these."""
    torch.manual_seed(0)
    network_input, target = torch.randn(50, 1, 30), torch.eye(50)
    mixed, probabilities = mix(network_input, target, 0.4)
    np.testing.assert_allclose(probabilities.sum(dim=1).numpy(), 1, rtol=1e-6)
    assert (probabilities.diagonal() >= 0.5).all()
    assert probabilities.diagonal().std() > 0.1
    expected = np.einsum("ij,jct->ict", probabilities.numpy(), network_input.numpy())
    np.testing.assert_allclose(mixed.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("concentration", [0.2, 1.0, 10.0])
def test_mixing_weights_are_drawn_from_the_beta_distribution(concentration: float) -> None:
    torch.manual_seed(0)
    _, probabilities = mix(torch.zeros(2000, 1), torch.eye(2000), concentration)
    weight = np.random.default_rng(0).beta(concentration, concentration, 100_000)
    expected = np.maximum(weight, 1 - weight).mean()
    assert probabilities.diagonal().mean().item() == pytest.approx(expected, abs=0.015)


class Clips(NamedTuple):
    input: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)


def test_label_smoothing_enters_the_loss() -> None:
    torch.manual_seed(0)
    classifier = Classifier(Linear, num_classes=10, representation="waveform", label_smoothing=0.2)
    batch = Clips(torch.randn(6, 1, 8000), torch.arange(6))
    log_probabilities = classifier(batch.input).log_softmax(dim=1).detach().numpy()
    target = np.full((6, 10), 0.02) + 0.8 * np.eye(10)[:6]
    expected = -(target * log_probabilities).sum(axis=1).mean()
    assert classifier.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-5)


class HalfPrecision(Linear):
    """Answers as a network does under autocast."""

    def forward(self, waveform: Tensor) -> Tensor:
        return super().forward(waveform).bfloat16()


def test_losses_and_probabilities_are_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    classifier = Classifier(HalfPrecision, num_classes=10, representation="waveform")
    for name in ("log", "log_dict"):  # without a trainer
        monkeypatch.setattr(classifier, name, lambda *_, **__: None)
    batch = Clips(torch.randn(6, 1, 8000), torch.arange(6))
    logits = classifier(batch.input).detach().float()
    expected = nn.functional.cross_entropy(logits, batch.label)
    torch.testing.assert_close(classifier.training_step(batch, 0), expected, rtol=1e-6, atol=0)
    classifier.validation_step(batch, 0)
    torch.testing.assert_close(classifier.validation_loss.compute(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(classifier.predict_step(batch, 0), logits.softmax(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_inputs_are_mixed_only_where_asked_for(monkeypatch: pytest.MonkeyPatch, mixup: float) -> None:
    silent = Clips(torch.zeros(4, 1, 8000), torch.arange(4))
    monkeypatch.setattr(classifier_module, "mix", lambda network_input, target, _: (silent.input, target))
    torch.manual_seed(0)
    classifier = Classifier(Linear, num_classes=10, representation="waveform", mixup=mixup)
    loud = Clips(torch.randn(4, 1, 8000), silent.label)
    loss = classifier.training_step(loud, 0)
    expected = nn.functional.cross_entropy(classifier((silent if mixup else loud).input), loud.label)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("option", [{"mixup": -1.0}, {"label_smoothing": 1.5}, {"label_smoothing": -0.1}])
def test_impossible_options_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(option))} of the model"):
        Classifier(Linear, num_classes=10, representation="waveform", **option)


def test_schedule_of_a_longer_training_goes_on_above_zero() -> None:
    """A checkpoint at the end of 10 steps, taken up by a training of 30."""
    networks = Linear(2), Linear(2)
    short, long = (
        WarmupCosine(torch.optim.SGD(network.parameters(), lr=1.0), total_steps=steps)
        for network, steps in zip(networks, (10, 30), strict=True)
    )
    for _ in range(10):
        short.optimizer.step()
        short.step()
    assert short.get_last_lr() == [0.0]
    long.load_state_dict(short.state_dict())
    long.optimizer.step()
    long.step()
    assert long.get_last_lr() == pytest.approx([long.factor(11)])
    assert long.factor(11) > 0.5


def test_default_schedule_by_epoch_is_refused(tones: CorpusDataModule, tmp_path: Path) -> None:
    classifier = Classifier(Linear, num_classes=10, representation="waveform", scheduler_interval="epoch")
    with pytest.raises(UserError, match=r"counted in steps.*scheduler_interval"):
        trainer(tmp_path, max_epochs=1).fit(classifier, datamodule=tones)


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_impossible_warmup_is_refused(warmup: float) -> None:
    with pytest.raises(UserError, match="share of the training"):
        WarmupCosine(torch.optim.SGD(Linear(2).parameters(), lr=1), warmup=warmup)


@pytest.mark.parametrize(("placement", "stored"), [("centered", {"placement": "centered"}), (object(), {})])
def test_placements_go_into_the_checkpoint_by_name(placement: object, stored: dict[str, str]) -> None:
    """Others, of a plugin's data module, would make the checkpoint unreadable."""
    classifier = Classifier(Linear, num_classes=10, representation="waveform")
    classifier._trainer = SimpleNamespace(datamodule=SimpleNamespace(placement=placement))
    checkpoint: dict[str, Any] = {}
    classifier.on_save_checkpoint(checkpoint)
    assert checkpoint["audio_lrp"] == stored


def test_a_copy_shares_what_makes_the_optimizer() -> None:
    """A configuration's hold on to the command line, and so to a trainer that may have started processes."""

    class MakesOptimizer:
        def __init__(self) -> None:
            self.process = threading.Lock()  # cannot be copied, as a process cannot

        def __call__(self, parameters: Any) -> torch.optim.Optimizer:
            return adam(parameters)

    classifier = Classifier(Linear, num_classes=10, representation="waveform", optimizer=MakesOptimizer())
    classifier.eval()
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(classifier.make_optimizer)
    copied = copy.deepcopy(classifier)
    assert copied.make_optimizer is classifier.make_optimizer
    waveform = torch.randn(2, 1, 8000)
    assert torch.equal(copied(waveform), classifier(waveform))
    assert not copied.training
    copied.network.dense.weight.data += 1
    assert not torch.equal(copied(waveform), classifier(waveform))
