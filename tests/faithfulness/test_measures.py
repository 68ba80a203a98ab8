"""Localisation, complexity, sensitivity and the randomisation test, each against a slow obvious reference."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    LRP,
    AttributionMethod,
    Captum,
    complexity,
    max_sensitivity,
    parameter_randomization,
    rank_correlation,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sparseness,
)
from audio_lrp.faithfulness.draws import drawn, example_generators
from audio_lrp.timefrequency.stft import STFT, spectrogram_plane
from audio_lrp.timefrequency.utterance import utterance_frames, utterance_samples


def maps(batch=6, shape=(1, 5, 9), seed=0):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- localisation ---


def test_utterance_samples():
    offset, length = torch.tensor([0, 3, 7]), torch.tensor([2, 7, 3])
    mask = utterance_samples(offset, length, 10)
    for example in range(3):
        begin, end = int(offset[example]), int(offset[example] + length[example])
        assert mask[example, 0].nonzero()[:, 0].tolist() == list(range(begin, end))


@pytest.mark.parametrize("stft", [STFT(1000, torch.hann_window(64), 16), spectrogram_plane()])
def test_frames_are_the_utterances_where_a_signal_of_ones_is_seen(stft):
    """A frame outside the mask sees nothing of the utterance; one inside sees something."""
    offset, length = torch.tensor([0, 300, 900]), torch.tensor([150, 400, 100])
    signal = utterance_samples(offset, length, stft.num_samples).double()
    rectangular = STFT(
        stft.num_samples,
        torch.ones(stft.window_length),
        stft.hop_length,
        start=stft.start,
        num_frames=stft.num_frames,
    )
    seen = rectangular.spectrum(signal)[:, :, :1].real > 0.5  # bin 0 counts the utterance's samples
    assert torch.equal(utterance_frames(offset, length, stft), seen)


def test_a_frame_begins_and_ends_with_its_samples():
    stft = STFT(24, torch.hann_window(8), 4)
    offset, length = (grid.flatten() for grid in torch.meshgrid(torch.arange(20), torch.arange(1, 5), indexing="ij"))
    mask = utterance_frames(offset, length, stft)
    for found, begin, size in zip(mask[:, 0, 0].tolist(), offset.tolist(), length.tolist(), strict=True):
        frames = (range(first, first + 8) for first in range(stft.start, 24, 4))
        held = [bool(set(frame) & set(range(begin, begin + size))) for frame in frames]
        assert found == held[: stft.num_frames]


def test_mass_accuracy_equals_the_loop():
    relevance = maps()
    mask = maps(seed=1) > 0.3
    found = relevance_mass_accuracy(relevance, mask)
    for example in range(6):
        inside = total = 0.0
        for value, flag in zip(relevance[example].flatten().tolist(), mask[example].flatten().tolist(), strict=True):
            total += max(value, 0)
            inside += max(value, 0) if flag else 0
        assert found[example].item() == pytest.approx(inside / total, rel=1e-12)
    assert relevance_mass_accuracy(-torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool)).isnan().all()


def test_rank_accuracy_equals_the_loop():
    relevance = maps()
    mask = maps(seed=1) > 0.3
    found = relevance_rank_accuracy(relevance, mask)
    for example in range(6):
        flags = mask[example].flatten().numpy()
        best = sorted(range(flags.size), key=lambda place: -relevance[example].flatten()[place].item())[: flags.sum()]
        assert found[example].item() == pytest.approx(flags[best].mean(), rel=1e-12)
    assert relevance_rank_accuracy(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).isnan().all()


def test_masks_are_broadcast_over_bins():
    relevance = maps()
    mask = maps(shape=(1, 1, 9), seed=1) > 0
    for accuracy in (relevance_mass_accuracy, relevance_rank_accuracy):
        assert torch.equal(accuracy(relevance, mask), accuracy(relevance, mask.expand_as(relevance)))
        with pytest.raises(UserError, match=r"the mask has shape \[6, 9\]"):
            accuracy(relevance, mask[:, 0, 0])
        with pytest.raises(UserError, match="float64"):
            accuracy(relevance, mask.double())


# --- complexity ---


def test_gini_index_is_half_the_relative_mean_difference():
    relevance = maps()
    for found, values in zip(sparseness(relevance), relevance.flatten(1).abs().numpy(), strict=True):
        difference = np.abs(values[:, None] - values).mean()
        assert found.item() == pytest.approx(difference / (2 * values.mean()), rel=1e-12)


def test_complexity_is_scipys_entropy():
    relevance = maps()
    relevance[:, :, 2] = 0
    expected = stats.entropy(relevance.flatten(1).abs().numpy(), axis=1)
    np.testing.assert_allclose(complexity(relevance).numpy(), expected, rtol=1e-12)


def test_maps_without_relevance_have_no_complexity():
    nothing = torch.zeros(2, 1, 4)
    assert sparseness(nothing).isnan().all()
    assert complexity(nothing).isnan().all()


# --- sensitivity ---


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def test_max_sensitivity_equals_the_loop():
    model, inputs, target = network(), maps(4, (1, 12)), torch.tensor([0, 1, 2, 0])
    method = Captum("InputXGradient")
    found = max_sensitivity(method, model, inputs, target, radius=0.1, num_samples=5, seed=7)
    generators = example_generators(4, None, seed=7)
    noises = [0.2 * drawn(torch.rand, (1, 12), generators, like=inputs) - 0.1 for _ in range(5)]
    for example in range(4):
        part = slice(example, example + 1)
        original = method(model, inputs[part], target[part])
        changes = [method(model, inputs[part] + noise[part], target[part]) - original for noise in noises]
        expected = max(math.sqrt((change**2).sum()) for change in changes) / math.sqrt((original**2).sum())
        assert found[example].item() == pytest.approx(expected, rel=1e-9)


class Linear(AttributionMethod):
    """Doubles the input: its sensitivity is known."""

    def __call__(self, network, input, target):  # noqa: A002
        return 2 * input


def test_sensitivity_of_a_linear_map_is_bounded_by_its_radius():
    inputs = torch.ones(3, 1, 1000)
    found = max_sensitivity(Linear(), nn.Identity(), inputs, torch.zeros(3, dtype=torch.long), radius=0.3)
    assert (found < 0.3).all()  # all values at the radius at once
    torch.testing.assert_close(found, torch.full_like(found, 0.3 / math.sqrt(3)), rtol=0.1, atol=0)
    with pytest.raises(UserError, match="must be positive"):
        max_sensitivity(Linear(), nn.Identity(), inputs, torch.zeros(3, dtype=torch.long), radius=0)


# --- randomisation ---


def test_rank_correlation_equals_scipys():
    first, second = maps(), maps(seed=1).round(decimals=0)  # with ties
    mask = maps(seed=2) > -0.5
    found = rank_correlation(first + second, second, mask)
    for example in range(6):
        chosen = mask[example]
        expected = stats.spearmanr((first + second)[example][chosen], second[example][chosen]).statistic
        assert found[example].item() == pytest.approx(expected, rel=1e-10)
    assert rank_correlation(first, torch.zeros_like(first), mask).isnan().all()


class Recorder(AttributionMethod):
    """Explains by gradient times input and remembers the networks' parameters."""

    def __init__(self):
        self.seen = []

    def __call__(self, network, input, target):  # noqa: A002
        self.seen.append({name: value.detach().clone() for name, value in network.named_parameters()})
        return Captum("InputXGradient")(network, input, target)


class Scale(nn.Module):
    """A layer without ``reset_parameters``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 9, 8, dtype=torch.float64))

    def forward(self, values):
        return values * self.weight


def test_layers_are_randomised_from_the_output_down_and_stay_so():
    model = network()
    model.insert(2, Scale())
    inputs, target = maps(4, (1, 12)), torch.tensor([0, 1, 2, 0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    method = Recorder()
    result = parameter_randomization(method, model, inputs, target, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    assert result.layers == ("4", "2", "1")
    original, *steps = method.seen
    assert all(torch.equal(original[name], value) for name, value in before.items())
    changed = [{name for name, value in step.items() if not torch.equal(value, original[name])} for step in steps]
    output, scale = {"4.weight", "4.bias"}, {"2.weight"}
    assert changed == [output, output | scale, output | scale | {"1.weight", "1.bias"}]
    assert torch.equal(steps[0]["4.weight"], steps[2]["4.weight"])  # drawn once
    assert steps[0]["4.weight"].abs().max() <= 1 / math.sqrt(8)  # as before training

    maps_of = [Captum("InputXGradient")(load(model, step), inputs, target).flatten(1) for step in method.seen]
    for layer, relevance in zip(result.correlation, maps_of[1:], strict=True):
        expected = [stats.spearmanr(*pair).statistic for pair in zip(maps_of[0], relevance, strict=True)]
        np.testing.assert_allclose(layer.numpy(), expected, rtol=1e-10)
    assert result.rows()[0] == {
        "layer": "4",
        "mean": pytest.approx(result.correlation[0].mean().item()),
        "std": pytest.approx(result.correlation[0].std(correction=0).item()),
    }


def test_a_single_number_without_a_reset_stays_a_number():
    model = network()
    model.insert(2, Scale())
    model[2].weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    result = parameter_randomization(Recorder(), model, maps(4, (1, 12)), torch.tensor([0, 1, 2, 0]))
    assert result.layers[1] == "2"
    torch.testing.assert_close(result.correlation[1], result.correlation[0])  # its deviation is 0


def load(model, parameters):
    model.load_state_dict(parameters)
    return model


def test_a_map_that_ignores_the_network_does_not_change():
    inputs, target = maps(4, (1, 12)), torch.zeros(4, dtype=torch.long)
    result = parameter_randomization(Linear(), network(), inputs, target)
    torch.testing.assert_close(result.correlation, torch.ones_like(result.correlation))


def test_padding_is_left_out_by_the_mask():
    inputs, target = maps(4, (1, 12)), torch.zeros(4, dtype=torch.long)
    inputs[..., 6:] = 0
    mask = inputs != 0
    both = [
        parameter_randomization(LRP("epsilon"), network(), inputs, target, mask=m).correlation for m in (None, mask)
    ]
    short = nn.Sequential(*network())
    assert not torch.allclose(*both)
    with torch.inference_mode():  # as in a validation hook
        again = parameter_randomization(LRP("epsilon"), short, inputs, target, mask=mask).correlation
    torch.testing.assert_close(again, both[1])


def test_networks_without_parameters_are_refused():
    with pytest.raises(UserError, match="Flatten has no parameters to randomise"):
        parameter_randomization(Linear(), nn.Flatten(), maps(), torch.zeros(6, dtype=torch.long))
