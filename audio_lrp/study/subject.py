"""A trained cell to be measured: its network and the clips of its test speakers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from audio_lrp.data import Batch, CorpusDataModule, Spectrogram
from audio_lrp.data.tasks import TASKS
from audio_lrp.saved_network import load_network
from audio_lrp.study.plan import Cell, Study
from audio_lrp.study.training import BEST

CHUNK: Final = 50
"""Clips handled at once; bounds the memory."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network and the clips of its test speakers.

    Attributes:
        network: the network, in eval mode on the device to be used.
        data: the data module, set up.
        device: where the network lies.
    """

    network: nn.Module
    data: CorpusDataModule
    device: torch.device

    def test_batches(self) -> Iterator[Batch]:
        """All test clips as network inputs."""
        for batch in self.data.test_dataloader():
            yield self.data.represent(batch.to(self.device))

    def explained_batches(self, count: int | None) -> Iterator[Batch]:
        """Test clips spread evenly over the classes, a few at a time; all with ``count`` None."""
        if count is None:
            yield from self.test_batches()
            return
        batch = self.data.examples("test", count, seed=0)
        for part in torch.arange(len(batch)).tensor_split(tuple(range(CHUNK, len(batch), CHUNK))):
            chosen = (getattr(batch, name)[part] for name in ("input", "label", "speaker", "offset", "length", "index"))
            yield Batch(*chosen).to(self.device)


def load_subject(study: Study, cell: Cell) -> Subject:
    """The best network of a cell's training, and its data."""
    saved = load_network(study.cell_folder(cell) / BEST)
    spectrogram = saved.representation if isinstance(saved.representation, Spectrogram) else None
    data = CorpusDataModule(
        corpus=study.corpus.corpus,
        task=TASKS[cell.task].name,
        fold=cell.fold,
        num_folds=study.num_folds(cell.task),
        representation="waveform" if spectrogram is None else "spectrogram",
        spectrogram_scale="unit" if spectrogram is None else spectrogram.scale,
        placement=saved.placement,
        batch_size=CHUNK,
    )
    data.prepare_data()
    data.setup("test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Subject(saved.network.to(device), data, device)
