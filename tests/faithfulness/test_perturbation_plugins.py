"""Units, baselines and orders of the perturbation test, shipped and of one's own, each against an obvious loop."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    Bands,
    Baseline,
    Frames,
    Interpolation,
    LoudestFirst,
    MatchedNoise,
    Order,
    Partition,
    Patches,
    RandomOrder,
    Silence,
    Units,
    Windows,
    perturbation_curves,
)
from audio_lrp.faithfulness.draws import drawn, example_generators
from audio_lrp.timefrequency.stft import STFT


class Recorder:
    """A network that remembers every input it was given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, inputs):
        self.seen.append(inputs.clone())
        return inputs.flatten(1)[:, :3]

    def inputs(self):
        return torch.cat(self.seen)


def spectrograms(batch=3, shape=(1, 6, 8)):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, *shape, generator=generator) + 0.1, torch.arange(batch) % 3


# --- units ---


@pytest.mark.parametrize(
    ("units", "height", "width"),
    [(Patches(2, 3), 2, 3), (Patches(), 1, 1), (Frames(), 6, 1), (Frames(3), 6, 3), (Bands(), 1, 8), (Bands(4), 4, 8)],
)
def test_units_of_spectrograms_are_rectangles(units, height, width):
    expected = np.full((6, 8), -1)
    number = 0
    for top in range(0, 6, height):
        for left in range(0, 8, width):
            expected[top : top + height, left : left + width] = number
            number += 1
    assert units.numbers([6, 8]).tolist() == expected.tolist()
    values = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    partition = Partition(units, [6, 8], values.device)
    sums = partition.sum(values).numpy()
    for index in range(partition.count):
        inside = values.numpy()[:, :, expected == index].astype(np.float64)
        np.testing.assert_allclose(sums[:, index], inside.sum(axis=(1, 2)), rtol=1e-6)
    flags = torch.arange(partition.count)[None] % 2 == 0
    assert partition.spread(flags)[0, 0].tolist() == (expected % 2 == 0).tolist()


@pytest.mark.parametrize(
    ("units", "shape", "message"),
    [
        (Windows(), [6, 8], "Windows divide waveforms"),
        (Bands(), [8], r"Bands divide spectrograms \[F, T\], not inputs \[8\]"),
        (Patches(), [8], "Patches divide spectrograms"),
        (Frames(), [8], "Frames divide spectrograms"),
    ],
)
def test_units_refuse_other_inputs(units, shape, message):
    with pytest.raises(UserError, match=message):
        units.numbers(shape)


@pytest.mark.parametrize(("units", "name"), [(Windows, "length"), (Patches, "bins"), (Frames, "frames")])
def test_units_have_a_size(units, name):
    with pytest.raises(UserError, match=f"{name} of {units.__name__} is 0: pass 1 or more"):
        units(0)


def test_random_order_is_followed_at_least_once():
    with pytest.raises(UserError, match="repetitions of RandomOrder is 0: pass 1 or more"):
        RandomOrder(repetitions=0)


@pytest.mark.parametrize("index", [torch.arange(2), torch.arange(3.0), torch.zeros(3, 1, dtype=torch.long)])
def test_generators_need_an_integer_for_each_example(index):
    with pytest.raises(UserError, match="pass an integer for each example"):
        example_generators(3, index, seed=0)


def test_whole_frames_are_removed():
    inputs, target = spectrograms()
    relevance = torch.zeros_like(inputs)
    relevance[..., 5] = 1
    predict = Recorder()
    perturbation_curves(predict, inputs, target, relevance, orders=["morf"], fractions=(0, 1 / 8), unit=Frames())
    expected = inputs.clone()
    expected[..., 5] = 0
    assert torch.equal(predict.inputs()[3:], expected)


# --- baselines ---


def interpolated(row, removed):
    """One row by NumPy's interpolation; silence where nothing is left."""
    kept = np.flatnonzero(~removed)
    return np.interp(np.arange(len(row)), kept, row[kept]) if len(kept) else np.zeros_like(row)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_interpolation_equals_numpys(dtype, tolerance):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(40, 2, 3, 15, generator=generator, dtype=dtype)
    removed = (
        torch.rand(40, 1, 3, 15, generator=generator).expand_as(inputs) < torch.linspace(0, 1, 40)[:, None, None, None]
    )
    baseline = Interpolation()
    filled = baseline.fill(inputs, removed, baseline.reference(inputs, removed, [])).reshape(-1, 15)
    rows = zip(inputs.reshape(-1, 15).numpy(), removed.reshape(-1, 15).numpy(), strict=True)
    np.testing.assert_allclose(filled.numpy(), [interpolated(*row) for row in rows], rtol=0, atol=tolerance)
    assert torch.equal(filled[~removed.reshape(-1, 15)], inputs[~removed])


def test_noise_has_mean_and_variance_of_what_may_be_removed():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(3, 1, 40000, generator=generator) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 2
    candidates = torch.zeros_like(inputs, dtype=torch.bool)
    candidates[..., 10000:] = True
    inputs[..., :10000] = 1000
    noise = MatchedNoise().reference(inputs, candidates, example_generators(3, None, seed=0))
    chosen = inputs[..., 10000:]
    torch.testing.assert_close(noise.mean(dim=-1), chosen.mean(dim=-1), rtol=0, atol=0.1)
    torch.testing.assert_close(noise.std(dim=-1), chosen.std(dim=-1), rtol=0.03, atol=0)


def test_noise_of_spectra_has_their_mean_and_power():
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(2, 1, 5, 40, dtype=torch.complex128, generator=generator) + 1 - 2j
    candidates = torch.rand(values.shape, generator=generator) < 0.7
    noise = MatchedNoise().reference(values, candidates, example_generators(2, None, seed=0))
    standard = drawn(torch.randn, values.shape[1:], example_generators(2, None, seed=0), like=values)
    for example in range(2):
        chosen = values[example][candidates[example]].numpy()
        expected = chosen.mean() + chosen.std() * standard[example].numpy()  # NumPy's takes the distance's square
        np.testing.assert_allclose(noise[example].numpy(), expected, rtol=1e-12)


def test_noise_is_the_same_along_a_curve_and_for_any_chunk():
    signals, target = (
        torch.randn(4, 1, 50, generator=torch.Generator().manual_seed(4)),
        torch.zeros(4, dtype=torch.long),
    )
    given = {"orders": ["random"], "fractions": (0, 0.5, 1), "baseline": MatchedNoise(), "seed": 9}
    recorders = [Recorder() for _ in range(3)]
    for predict, chunk_size in zip(recorders, (1000, 3, 1000), strict=True):
        perturbation_curves(predict, signals, target, signals, chunk_size=chunk_size, **given)
    first, chunked, again = (predict.inputs() for predict in recorders)
    assert torch.equal(first, chunked)
    assert torch.equal(first, again)
    clean, half, all_removed = first.reshape(3, 4, 1, 50)
    assert torch.equal(clean, signals)
    assert ((half == signals) | (half == all_removed)).all()
    assert not (all_removed == signals).any()


def test_number_means_silence_of_that_value():
    inputs, target = spectrograms()
    by_number, by_object = Recorder(), Recorder()
    perturbation_curves(by_number, inputs, target, inputs, baseline=-0.5)
    perturbation_curves(by_object, inputs, target, inputs, baseline=Silence(-0.5))
    assert torch.equal(by_number.inputs(), by_object.inputs())


# --- orders ---


def test_random_order_is_repeated():
    inputs, target = spectrograms()
    inputs[:, 0, 0, :3] = torch.rand(3, 3, generator=torch.Generator().manual_seed(6)) * 9
    given = {"fractions": (0, 0.3, 0.7, 1)}
    curves = perturbation_curves(Recorder(), inputs, target, inputs, orders=["morf", RandomOrder(4)], **given)
    assert curves.orders == ("morf", "random")
    assert curves.repetitions == (1, 4)
    singles = [
        perturbation_curves(Recorder(), inputs, target, inputs, orders=["random"], seed=seed, **given).outcomes
        for seed in range(4)
    ]
    assert torch.equal(curves.outcomes[:, 1:], torch.cat(singles, dim=1))
    spread = curves.spread("random")
    assert spread[0] == 0  # the clean point
    assert (spread[1:3] > 0).all()


class LastFirst(Order):
    """From the end, as a user would write it."""

    name = "last"

    def scores(self, removable, generators):
        return torch.arange(removable.partition.count, dtype=torch.float64).expand(len(removable.input), -1)


class Halves(Units):
    def numbers(self, shape):
        return (torch.arange(shape[0]) >= shape[0] // 2).long()


class Negated(Baseline):
    def reference(self, input, candidates, generators):  # noqa: A002
        return -input


class Numbered(Units):
    """A user's own units, with the numbers they are given."""

    def __init__(self, numbers: Tensor) -> None:
        self._given = numbers

    def numbers(self, shape):
        return self._given


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), r"torch\.int64 of shape \[5\]: return one int64 for each value"),
        (torch.zeros(8), r"torch\.float32 of shape \[8\]: return one int64 for each value of an input \[8\]"),
        (torch.arange(8) - 1, "Numbered lie between -1 and 6 and not each is some value's: count units from 0"),
        (2 * torch.arange(8), "Numbered lie between 0 and 14 and not each is some value's: count units from 0"),
        (10**15 * torch.arange(8), "Numbered lie between 0 and 7000000000000000 and not each is some value's: count"),
    ],
)
def test_own_units_are_numbered_without_gaps(numbers, message):
    with pytest.raises(UserError, match=message):
        Partition(Numbered(numbers), [8], torch.device("cpu"))


def test_own_units_baseline_and_order_plug_in():
    signals, target = torch.arange(1.0, 7.0).reshape(1, 1, 6), torch.tensor([0])
    predict = Recorder()
    perturbation_curves(
        *(predict, signals, target, signals),
        orders=[LastFirst(), LoudestFirst()],
        fractions=(0, 0.5),
        unit=Halves(),
        baseline=Negated(),
    )
    assert predict.inputs()[1:, 0].tolist() == [[1, 2, 3, -4, -5, -6]] * 2


def test_own_order_with_scores_of_another_shape_is_refused():
    class Wrong(LastFirst):
        def scores(self, removable, generators):
            return torch.zeros(3)

    with pytest.raises(UserError, match=r"order 'last' gave scores of shape \[3\]"):
        perturbation_curves(Recorder(), torch.ones(1, 1, 6), torch.tensor([0]), torch.ones(1, 1, 6), orders=[Wrong()])


def test_everything_can_be_named_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--unit", type=int | Units)
    parser.add_argument("--baseline", type=Baseline)
    parser.add_argument("--orders", type=list[str | Order])
    here = "audio_lrp.faithfulness"
    config = parser.parse_object(
        {
            "unit": {"class_path": f"{here}.Patches", "init_args": {"bins": 4, "frames": 2}},
            "baseline": {"class_path": f"{here}.Interpolation"},
            "orders": ["morf", {"class_path": f"{here}.RandomOrder", "init_args": {"repetitions": 3}}],
        }
    )
    made = parser.instantiate_classes(config)
    assert (made.unit.bins, made.unit.frames) == (4, 2)
    assert isinstance(made.baseline, Interpolation)
    assert made.orders[1].repetitions == 3
    assert parser.parse_object({"unit": 5}).unit == 5


# --- waveforms in time and frequency ---


def test_bands_of_waveforms_are_removed_through_the_stft():
    """Of two tones, the one said to be relevant is gone after the first band."""
    stft = STFT(1000, torch.hann_window(100, periodic=True), hop_length=25)
    time = torch.arange(1000.0)
    low, high = (torch.sin(2 * torch.pi * frequency * time) for frequency in (0.05, 0.2))
    signals, target = (low + high)[None, None], torch.tensor([0])
    relevance = torch.zeros(1, 1, stft.num_bins, stft.num_frames)
    relevance[:, :, 15:25] = 1  # bin 20 of 50 is the high tone
    predict = Recorder()
    perturbation_curves(
        *(predict, signals, target, relevance),
        orders=["morf"],
        fractions=(0, 10 / 51, 1),
        unit=Bands(),
        transform=stft,
    )
    clean, without, nothing = predict.inputs()[:, 0]
    torch.testing.assert_close(clean, low + high, atol=1e-5, rtol=0)
    torch.testing.assert_close(without[100:-100], low[100:-100], atol=0.02, rtol=0)
    torch.testing.assert_close(nothing, torch.zeros(1000), atol=1e-5, rtol=0)


@pytest.mark.parametrize("baseline", [Silence(), MatchedNoise(), Interpolation()])
def test_every_baseline_serves_spectra(baseline):
    stft = STFT(400, torch.hann_window(40, periodic=True), hop_length=10)
    signals = torch.randn(2, 1, 400, generator=torch.Generator().manual_seed(8))
    relevance = stft.spectrum(signals).abs()
    predict = Recorder()
    curves = perturbation_curves(
        predict, signals, torch.tensor([0, 1]), relevance, baseline=baseline, unit=Patches(3, 4), transform=stft
    )
    assert predict.inputs().isfinite().all()
    assert predict.inputs().shape[1:] == (1, 400)
    assert curves.logit.isfinite().all()
