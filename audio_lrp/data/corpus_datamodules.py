"""The data modules of the shipped corpora: what they add to the base is the corpus."""

from typing import Any

from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.fsdd import FSDD
from audio_lrp.data.corpora.synthetic import SyntheticDigits
from audio_lrp.data.datamodule import CorpusDataModule


class AudioMNISTDataModule(CorpusDataModule):
    """AudioMNIST, or any corpus in its folder layout.

    Args:
        root: the corpus's folder, which holds ``data/NN/{digit}_{NN}_{repetition}.wav``.
        download: download AudioMNIST to ``root`` where there is no corpus yet (1 GB; twice as much unpacked).
        exclude: recordings to leave out: a YAML file of places and reasons, which ``audio-lrp data check`` writes, or
            ``"audiomnist"`` for the shipped list of AudioMNIST's known faults.
        **kwargs: see :class:`~audio_lrp.data.CorpusDataModule`.
    """

    def __init__(self, root: str, download: bool = False, exclude: str | None = None, **kwargs: Any) -> None:
        super().__init__(corpus=AudioMNIST(root, download, exclude), **kwargs)


class FSDDDataModule(CorpusDataModule):
    """The Free Spoken Digit Dataset.

    Args:
        root: the corpus's folder, which holds ``recordings/{digit}_{speaker}_{repetition}.wav``.
        exclude: recordings to leave out: a YAML file of places and reasons, which ``audio-lrp data check`` writes.
        **kwargs: see :class:`~audio_lrp.data.CorpusDataModule`.
    """

    def __init__(self, root: str, exclude: str | None = None, **kwargs: Any) -> None:
        super().__init__(corpus=FSDD(root, exclude), **kwargs)


class SyntheticDigitsDataModule(CorpusDataModule):
    """Digits spoken by espeak-ng: the corpus that needs no download.

    Args:
        root: where the recordings are generated; ``None`` for the user's cache folder.
        speakers: number of speakers, half of them female.
        repetitions: utterances of each digit by each speaker.
        corpus_seed: seeds the speakers and the variations between repetitions.
        **kwargs: see :class:`~audio_lrp.data.CorpusDataModule`.
    """

    def __init__(
        self,
        root: str | None = None,
        speakers: int = 12,
        repetitions: int = 10,
        corpus_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        corpus = SyntheticDigits(root, speakers=speakers, repetitions=repetitions, seed=corpus_seed)
        super().__init__(corpus=corpus, **kwargs)
