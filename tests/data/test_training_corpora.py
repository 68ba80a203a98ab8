"""Training on further corpora than the one that validates and tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_corpus import ToneCorpus

from audio_lrp.data.corpora.synthetic import SyntheticDigits
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.loading.batch import Batch
from audio_lrp.errors import UserError


@pytest.fixture
def corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ToneCorpus]:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    sizes = [(6, 2), (3, 1), (2, 3)]
    return [ToneCorpus(tmp_path / f"tones{number}", *size) for number, size in enumerate(sizes)]


def ready(corpora: list[ToneCorpus]) -> CorpusDataModule:
    datamodule = CorpusDataModule(corpora[0], num_folds=3, training_corpora=list(corpora[1:]))
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def all_of(datamodule: CorpusDataModule, split: str) -> Batch:
    parts = list(getattr(datamodule, f"{split}_dataloader")())
    return Batch(*(torch.cat([getattr(part, name) for part in parts]) for name in Batch.__dataclass_fields__))


def test_training_has_all_of_them_and_evaluation_none(corpora: list[ToneCorpus]) -> None:
    datamodule = ready(corpora)
    sizes = [len(corpus.recordings) for corpus in corpora]
    own = len(datamodule.splits["train"])
    assert len(datamodule.training_clips) == own + sizes[1] + sizes[2]
    trained = all_of(datamodule, "train").index.tolist()
    assert sorted(trained)[own:] == list(range(sizes[0], sum(sizes)))
    for split in ("val", "test"):
        assert all_of(datamodule, split).index.max() < sizes[0]


def test_indices_name_recordings(corpora: list[ToneCorpus]) -> None:
    datamodule = ready(corpora)
    batch = all_of(datamodule, "train")
    recordings = [datamodule.recording(index) for index in batch.index.tolist()]
    assert {recording.path.parent for recording in recordings} == {corpus.root for corpus in corpora}
    assert [recording.digit for recording in recordings] == batch.label.tolist()
    # speakers keep apart: as many as all corpora have together, but for those of validation and test
    assert len(set(batch.speaker.tolist())) == 2 + 3 + 2
    with pytest.raises(IndexError, match="so many"):
        datamodule.recording(sum(len(corpus.recordings) for corpus in corpora))


def test_batches_are_those_of_single_clips(corpora: list[ToneCorpus]) -> None:
    clips = ready(corpora).training_clips
    positions = np.random.default_rng(0).permutation(len(clips)).tolist()
    together = clips.__getitems__(positions)
    one_by_one = [clips[position] for position in positions]
    for name in Batch.__dataclass_fields__:
        assert torch.equal(getattr(together, name), torch.cat([getattr(batch, name) for batch in one_by_one]))


def test_speakers_of_the_test_are_refused(corpora: list[ToneCorpus], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training_corpora: ToneCorpus at .*tones0 may have speakers of the"):
        CorpusDataModule(corpora[0], training_corpora=[ToneCorpus(corpora[0].root)])
    synthetic = SyntheticDigits(tmp_path / "a", speakers=2)
    assert synthetic.shares_speakers(SyntheticDigits(tmp_path / "b", seed=5))
    assert not synthetic.shares_speakers(corpora[0])


def test_missing_labels_are_told(corpora: list[ToneCorpus], tmp_path: Path) -> None:
    nameless = ToneCorpus(tmp_path / "nameless", labelled=False)
    datamodule = CorpusDataModule(corpora[0], task="gender", num_folds=3, training_corpora=[nameless])
    with pytest.raises(UserError, match=r"nameless does not say the gender of speakers s0"):
        datamodule.prepare_data()
