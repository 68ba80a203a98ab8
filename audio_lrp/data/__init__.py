"""Corpora on disk, their packed cache, speaker-disjoint folds, input representations and data modules."""

from audio_lrp.data.augmentation import (
    AdditiveNoise,
    Augmentation,
    PolarityInversion,
    RandomEqualizer,
    SpectrogramMasking,
    SpeedPerturbation,
)
from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.corpus import Corpus, Recording
from audio_lrp.data.corpora.fsdd import FSDD
from audio_lrp.data.corpora.synthetic import SyntheticDigits
from audio_lrp.data.corpus_datamodules import AudioMNISTDataModule, FSDDDataModule, SyntheticDigitsDataModule
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.representation import Spectrogram, Waveform
from audio_lrp.utils.files import exclusively

__all__ = [
    "FSDD",
    "AdditiveNoise",
    "AudioMNIST",
    "AudioMNISTDataModule",
    "Augmentation",
    "Batch",
    "Corpus",
    "CorpusDataModule",
    "FSDDDataModule",
    "PolarityInversion",
    "RandomEqualizer",
    "Recording",
    "Spectrogram",
    "SpectrogramMasking",
    "SpeedPerturbation",
    "SyntheticDigits",
    "SyntheticDigitsDataModule",
    "Waveform",
    "exclusively",
]
