"""The average of the weights during a training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor

from audio_lrp.callbacks import WeightAveragingCallback
from audio_lrp.errors import UserError


def weights_of(module: L.LightningModule) -> Tensor:
    return module.layer.weight.detach().double().clone()


class Weights(Callback):
    """Remembers the weights after every step, and those that are validated and tested."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.validated: list[Tensor] = []
        self.tested: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        self.steps.append(weights_of(pl_module))

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        self.validated.append(weights_of(pl_module))

    def on_test_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        self.tested.append(weights_of(pl_module))


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    return L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", limit_val_batches=1, limit_test_batches=1, num_sanity_val_steps=0,
        logger=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


def running_average(weights: list[Tensor], decay: float) -> Iterator[Tensor]:
    """The formula of the docstring, by hand."""
    average = weights[0]
    yield average
    for updates, current in enumerate(weights[1:], start=1):
        share = min(decay, (1 + updates) / (10 + updates))
        average = share * average + (1 - share) * current
        yield average


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_validation_has_the_average(tmp_path: Path, decay: float) -> None:
    weights = Weights()
    callbacks = [WeightAveragingCallback(decay, update_every_n_steps=2), weights]
    module = BoringModel()
    options = {"max_epochs": 3, "limit_train_batches": 8, "enable_checkpointing": False}
    trainer(tmp_path, callbacks=callbacks, **options).fit(module)
    averages = list(running_average(weights.steps[::2], decay))
    for epoch, validated in enumerate(weights.validated):
        torch.testing.assert_close(validated, averages[4 * epoch + 3], rtol=1e-6, atol=1e-7)
    # after the training the module has the average, too
    torch.testing.assert_close(weights_of(module), averages[-1], rtol=1e-6, atol=1e-7)


def test_a_test_after_the_training_has_the_average(tmp_path: Path) -> None:
    weights, kept = Weights(), ModelCheckpoint(tmp_path, filename="last")
    callbacks = [WeightAveragingCallback(0.9, update_every_n_steps=1), kept, weights]
    training = trainer(tmp_path, callbacks=callbacks, max_epochs=2, limit_train_batches=4)
    module = BoringModel()
    training.fit(module)
    path = kept.best_model_path
    checkpoint = torch.load(path, weights_only=True)
    average, last = (checkpoint[name]["layer.weight"].double() for name in ("state_dict", "current_model_state"))
    assert not torch.equal(average, last)
    training.test(module, ckpt_path=path, verbose=False)
    trainer(tmp_path, callbacks=[weights]).test(BoringModel(), ckpt_path=path, verbose=False)
    assert len(weights.tested) == 2
    for tested in weights.tested:
        assert torch.equal(tested, average)


class Beginning(Callback):
    """Remembers the weights that a training begins with, and their average."""

    def __init__(self, averaging: WeightAveragingCallback) -> None:
        self.averaging = averaging

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.weights, self.average = weights_of(pl_module), weights_of(self.averaging._average_model.module)


def test_a_training_taken_up_again_has_its_weights_and_their_average(tmp_path: Path) -> None:
    weights, kept = Weights(), ModelCheckpoint(tmp_path, filename="last")
    callbacks = [WeightAveragingCallback(0.9, update_every_n_steps=1), kept, weights]
    trainer(tmp_path, callbacks=callbacks, max_epochs=1, limit_train_batches=4).fit(BoringModel())
    averaging = WeightAveragingCallback(0.9, update_every_n_steps=1)
    beginning = Beginning(averaging)
    again = trainer(tmp_path, callbacks=[averaging, beginning], max_epochs=2, limit_train_batches=4)
    again.fit(BoringModel(), ckpt_path=kept.best_model_path)
    assert torch.equal(beginning.weights, weights.steps[-1])
    assert torch.equal(beginning.average, weights.validated[-1])
    assert not torch.equal(beginning.weights, beginning.average)


def test_beginnings_are_forgotten() -> None:
    callback = WeightAveragingCallback(decay=0.98)
    share = torch.tensor(1.0)
    for updates in range(1, 40):
        share = callback.average(share, torch.tensor(0.0), updates)
    assert share < 1e-6  # with a constant decay 0.45


def test_counts_are_not_averaged() -> None:
    assert WeightAveragingCallback().average(torch.tensor(3), torch.tensor(8), 5) == 8


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"update_every_n_steps": 0}])
def test_ranges(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="needs a decay from 0 to below 1"):
        WeightAveragingCallback(**arguments)


def test_the_average_lies_where_the_weights_are(tmp_path: Path) -> None:
    callback, module = WeightAveragingCallback(), BoringModel()
    training = trainer(tmp_path, callbacks=[callback])
    callback.setup(training, module, "fit")  # Lightning moves the module after that
    callback.on_fit_start(training, module.to("meta"))
    average = callback._average_model
    assert average is not None
    assert {value.device.type for value in (*average.parameters(), *average.buffers())} == {"meta"}
