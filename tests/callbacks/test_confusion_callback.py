"""The confusion matrix after a test: what is published, and where."""

import csv
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from fake_corpus import ToneCorpus
from lightning.pytorch.demos.boring_classes import BoringModel
from matplotlib.image import imread

from audio_lrp.callbacks import ConfusionMatrixCallback
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.errors import UserError
from audio_lrp.models import Classifier


class Mean(torch.nn.Module):
    """Logits from the mean level of a waveform; what it predicts does not matter."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(1, num_classes)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.dense(waveform.abs().mean(dim=2))


def trainer(tmp_path: Path) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[ConfusionMatrixCallback()],
    )  # fmt: skip


@pytest.mark.parametrize("task", ["digit", "gender"])
def test_files_hold_what_the_predictions_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    data = CorpusDataModule(ToneCorpus(tmp_path / "tones"), task=task, num_folds=3)
    torch.manual_seed(0)
    module = Classifier(Mean, data.num_classes, "waveform")
    for _ in range(2):  # a second test starts to count anew
        trainer(tmp_path).test(module, datamodule=data, verbose=False)
    predicted = torch.cat(trainer(tmp_path).predict(module, datamodule=data)).argmax(dim=1).numpy()
    expected = np.zeros((data.num_classes, data.num_classes), dtype=int)
    np.add.at(expected, (data.splits["test"].label, predicted), 1)
    with (tmp_path / "test" / "confusion_matrix.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = list(data.class_names)
    counted = np.zeros_like(expected)
    for row in rows:
        counted[names.index(row["true"]), names.index(row["predicted"])] = int(row["count"])
    np.testing.assert_array_equal(counted, expected)
    assert imread(tmp_path / "test" / "confusion_matrix.png").std() > 0.05
    assert {path.name for path in (tmp_path / "test").iterdir()} == {"confusion_matrix.csv", "confusion_matrix.png"}


def test_a_model_that_does_not_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ConfusionMatrixCallback shows the confusion_matrix of a Classifier"):
        trainer(tmp_path).test(BoringModel(), verbose=False)
