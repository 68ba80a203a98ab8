"""A training whose loss is no number stops before its weights are spoilt, and says where to look."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from command_line import TinyNetwork, exit_code, only_checkpoint, only_folder, tiny_run
from fake_corpus import ToneCorpus

from audio_lrp.callbacks import FiniteLossCallback
from audio_lrp.data.packing.cache import PackedClips
from audio_lrp.errors import UserError


class Exploding(TinyNetwork):
    """Answers with NaN from the third training batch on."""

    batches = 0

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        logits = super().forward(waveform)
        if not self.training:
            return logits
        type(self).batches += 1
        return logits * float("nan") if self.batches > 2 else logits


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Exploding.batches = 0


def test_training_stops_with_the_last_good_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*tiny_run(tmp_path / "corpus"), "--model.network=test_finite_loss.Exploding", "--trainer.max_epochs=9"]
    assert exit_code("fit", *options, "--data.batch_size=20") == 1  # 20 clips of 2 speakers: a batch an epoch
    message = capsys.readouterr().err.strip().splitlines()[-1]
    checkpoint = only_checkpoint(only_folder(Path("runs")))
    assert "the loss is nan at step 2, for the batch of " in message
    assert f"the last good checkpoint is {checkpoint.absolute()}" in message
    assert all(weight.isfinite().all() for weight in torch.load(checkpoint, weights_only=True)["state_dict"].values())


def test_the_recording_at_fault_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [recording.path.name for recording in ToneCorpus(tmp_path / "corpus", repetitions=1).recordings]
    gather = PackedClips.gather

    def spoilt(self: PackedClips, index: np.ndarray, policy: str) -> tuple[np.ndarray, np.ndarray]:
        clips, lengths = gather(self, index, policy)
        clips[[names[position].startswith("7_") for position in index]] = np.nan
        return clips, lengths

    monkeypatch.setattr(PackedClips, "gather", spoilt)
    options = [*tiny_run(tmp_path / "corpus"), "--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0"]
    assert exit_code("fit", *options) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "at step 0, for inputs that are no numbers, of 7_" in message
    assert "no checkpoint was saved yet" in message


def test_processes_with_a_finite_loss_do_not_wait_for_one_without() -> None:
    """Their gradients would never come."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision: False)
    trainer: Any = SimpleNamespace(strategy=strategy, global_step=7)
    with pytest.raises(UserError, match="the loss of another process is no number at step 7"):
        FiniteLossCallback().on_before_backward(trainer, L.LightningModule(), torch.tensor(1.0))
