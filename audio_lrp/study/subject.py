"""A trained cell to be measured: its network and the clips of its test speakers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from audio_lrp.checkpoints import SavedNetwork, load_network
from audio_lrp.constants import TaskName
from audio_lrp.data import Batch, Corpus, CorpusDataModule, Spectrogram
from audio_lrp.data.tasks import TASKS
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

    def explained_batches(self, count: int | None, size: int = CHUNK) -> Iterator[Batch]:
        """Test clips spread evenly over the classes, ``size`` at a time; all with ``count`` None."""
        if count is None:
            yield from self.test_batches()
            return
        dataset = self.data.splits["test"]
        positions = dataset.spread(count, seed=0)
        for first in range(0, len(positions), size):
            yield self.data.represent(dataset.__getitems__(positions[first : first + size]).to(self.device))


def load_subject(study: Study, cell: Cell) -> Subject:
    """The best network of a cell's training, and its data."""
    saved, task = load_network(study.cell_folder(cell) / BEST), TASKS[cell.task].name
    return ready(saved, data_for(saved, study.corpus.corpus, task, fold=cell.fold, num_folds=study.num_folds(task)))


def data_for(saved: SavedNetwork, corpus: Corpus, task: TaskName, **options: Any) -> CorpusDataModule:
    """A corpus as a network was trained to see it: its placement and representation; options are the data module's."""
    spectrogram = saved.representation if isinstance(saved.representation, Spectrogram) else None
    return CorpusDataModule(
        corpus=corpus,
        task=task,
        representation="waveform" if spectrogram is None else "spectrogram",
        spectrogram_scale="unit" if spectrogram is None else spectrogram.scale,
        placement=saved.placement,
        batch_size=CHUNK,
        **options,
    )


def ready(saved: SavedNetwork, data: CorpusDataModule) -> Subject:
    """A network on the device to be used, and its data set up for a test."""
    data.prepare_data()
    data.setup("test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Subject(saved.network.to(device), data, device)
