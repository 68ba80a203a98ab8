"""Everything that runs on a GPU, on a pretended one: no tensor meets one of the CPU's, and results are the CPU's."""

import copy
from typing import Any

import pytest
import torch
from fake_corpus import ToneCorpus
from pretend_device import Elsewhere, pretended, waits
from torch import Tensor, nn

from audio_lrp.attribution import PRESETS, attribute
from audio_lrp.attribution.guard import guarded
from audio_lrp.data import Batch, CorpusDataModule
from audio_lrp.data.augmentation import (
    AdditiveNoise,
    PolarityInversion,
    RandomEqualizer,
    SpectrogramMasking,
    SpeedPerturbation,
)
from audio_lrp.data.representation import Waveform
from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    LRP,
    Bands,
    Faithfulness,
    Interpolation,
    MatchedNoise,
    MaxSensitivity,
    RelevanceMassAccuracy,
    Sparseness,
    parameter_randomization,
    perturbation_curves,
)
from audio_lrp.faithfulness.band_relevance import band_relevance
from audio_lrp.faithfulness.manipulations import scale_frequency
from audio_lrp.models import Classifier
from audio_lrp.timefrequency import HannSTFT
from audio_lrp.timefrequency.audible import audible_relevance
from audio_lrp.timefrequency.coefficients import coefficient_relevance
from audio_lrp.timefrequency.utterance import utterance_samples

AUGMENTATIONS = [SpeedPerturbation(), RandomEqualizer(), PolarityInversion(), AdditiveNoise()]


def here(tensor: Tensor) -> Tensor:
    """What a tensor of the pretended device holds."""
    assert isinstance(tensor, Elsewhere)
    return tensor.value


def network() -> nn.Sequential:
    """Layers of every kind that has operators of its own, for waveforms of a second."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 16, stride=8), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(4),
        nn.Conv1d(4, 4, 3, padding="same", padding_mode="circular"), nn.ReLU(), nn.MaxPool1d(8), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(124, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ToneCorpus:
    return ToneCorpus(tmp_path_factory.mktemp("tones"), speakers=3, repetitions=1)


def ready(corpus: ToneCorpus, **options: Any) -> CorpusDataModule:
    data = CorpusDataModule(corpus, num_folds=3, batch_size=4, cache_dir="beside", **options)
    data.prepare_data()
    data.setup("fit")
    return data


def clips(data: CorpusDataModule) -> Batch:
    return next(iter(data.train_dataloader()))


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("placement", ["random", "centered"])
@pytest.mark.parametrize("representation", ["waveform", "spectrogram"])
def test_batches(corpus: ToneCorpus, representation: Any, placement: Any, preload: bool) -> None:
    augmentations = [*AUGMENTATIONS, *([SpectrogramMasking()] if representation == "spectrogram" else [])]
    options = {"representation": representation, "placement": placement, "preload_to_device": preload}
    data = ready(corpus, augmentations=augmentations, **options)
    batch = clips(data)
    torch.manual_seed(0)
    expected = data._augmented(batch, epoch=3)
    torch.manual_seed(0)
    with pretended() as device:
        found = data._augmented(batch.to(device), epoch=3)
    for name in Batch.__dataclass_fields__:
        assert torch.equal(here(getattr(found, name)), getattr(expected, name)), name


@pytest.mark.parametrize("composite", [*PRESETS, "zennit_epsilon_plus"])
def test_explanations(composite: str) -> None:
    signal, near = torch.randn(3, 1, 8000), network()
    with pretended() as device:
        far = copy.deepcopy(near).to(device)
        found = attribute(far, signal.to(device), composite=composite, output_relevance="difference")
        every_class = attribute(far, signal.to(device), "all", composite)
        assert isinstance(found.conservation.error, float)
    assert torch.equal(
        here(found.relevance), attribute(near, signal, composite=composite, output_relevance="difference").relevance
    )
    assert torch.equal(here(every_class.relevance), attribute(near, signal, "all", composite).relevance)


def test_time_and_frequency() -> None:
    signal, stft = torch.randn(2, 1, 8000), HannSTFT(256, 64)

    def views(signal: Tensor) -> list[Tensor]:
        relevance = signal.square()
        plane = Waveform().in_plane(signal, relevance, None)
        return [
            plane,
            coefficient_relevance(stft, signal, relevance, signal),
            band_relevance(signal, relevance, [0, 1000, 4000], 8000),
            audible_relevance(signal[:, 0], plane, band=(300, 600)),
            scale_frequency(plane[:, None], torch.full_like(signal[:, 0, 0], 1.5), silence=0.0),
        ]

    with pretended() as device:
        found = views(signal.to(device))
    for values, expected in zip(found, views(signal), strict=True):
        assert torch.equal(here(values), expected)


@pytest.mark.parametrize("baseline", [0.0, MatchedNoise(), Interpolation()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("transform", [None, HannSTFT(256, 64)], ids=["samples", "bands"])
def test_curves(transform: HannSTFT | None, baseline: Any) -> None:
    signal, target, near = torch.randn(2, 1, 8000), torch.tensor([3, 7]), network()

    def outcomes(network: nn.Module, signal: Tensor, target: Tensor) -> Tensor:
        relevance = signal if transform is None else transform.relevance(signal, signal.square())
        options: dict[str, Any] = {"baseline": baseline, "transform": transform, "fractions": (0, 0.5, 1)}
        unit = 80 if transform is None else Bands(16)
        return perturbation_curves(network, signal, target, relevance, unit=unit, index=target, **options).outcomes

    with pretended() as device:
        found = outcomes(copy.deepcopy(near).to(device), signal.to(device), target.to(device))
    assert torch.equal(found, outcomes(near, signal, target))


def test_a_gpu_is_not_waited_for_chunk_by_chunk_nor_layer_by_layer() -> None:
    counts = []
    for chunk_size in (1, 100):
        with pretended() as device:
            signal, target, far = (
                torch.randn(2, 1, 8000).to(device),
                torch.tensor([3, 7]).to(device),
                network().to(device),
            )
            waits.clear()
            perturbation_curves(far, signal, target, signal, orders=["morf"], unit=80, chunk_size=chunk_size)
            counts.append(len(waits))
    assert counts[0] == counts[1]
    counts = []
    for depth in (1, 9):
        with pretended() as device:
            far = nn.Sequential(*(nn.Linear(8, 8) for _ in range(depth))).to(device)
            value = torch.randn(2, 8).to(device)
            waits.clear()
            attribute(far, value, composite="epsilon")
            counts.append(len(waits))
    assert counts[0] == counts[1]


def test_metrics() -> None:
    signal, target, near = torch.randn(2, 1, 8000), torch.tensor([3, 7]), network()

    def values(network: nn.Module, signal: Tensor, target: Tensor) -> list[Tensor]:
        faithfulness, sensitivity = Faithfulness(fractions=(0, 0.5, 1), unit=80), MaxSensitivity(LRP(), num_samples=1)
        mass, sparseness = RelevanceMassAccuracy(), Sparseness()
        for metric in (faithfulness, mass, sparseness, sensitivity):
            metric.to(signal.device)
        faithfulness.update(network, signal, target, signal, index=target)
        mass.update(signal, utterance_samples(10 * target, 1000 * target, 8000))
        sparseness.update(signal)
        sensitivity.update(network, signal, target, index=target)
        assert len(parameter_randomization(LRP(), network, signal, target).rows()) == 4
        return [*faithfulness.compute().values(), mass.compute(), sparseness.compute(), sensitivity.compute()]

    with pretended() as device:
        found = values(copy.deepcopy(near).to(device), signal.to(device), target.to(device))
    for value, expected in zip(found, values(near, signal, target), strict=True):
        assert torch.equal(here(value), expected)


def test_steps(corpus: ToneCorpus) -> None:
    data = ready(corpus)
    module = Classifier(lambda _: network(), 10, "waveform", mixup=0.3)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    with pretended() as device:
        module.to(device)
        batch = data.represent(clips(data).to(device))
        module.training_step(batch, 0).backward()
        assert all(isinstance(parameter.grad, Elsewhere) for parameter in module.parameters())
        with torch.no_grad():
            module.validation_step(batch, 0)
            module.test_step(batch, 0)
            assert module.predict_step(batch, 0).device == device
        assert here(module.confusion_matrix.compute()).sum() == len(batch)


def test_apple_gpus_are_refused() -> None:
    far = network()
    far[0].weight = nn.Parameter(Elsewhere(far[0].weight.detach(), torch.device("mps")))
    with pytest.raises(UserError, match=r"float64, which Apple's GPUs \(MPS\) do not have"), guarded(far):
        pass
