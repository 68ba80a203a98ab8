"""Agreement with Quantus, measure by measure, on maps and a network of our own.

Where the two differ on purpose, the test says how: Quantus adds 1e-7 before the Gini index and 1e-12 inside the
entropy's logarithm, removes all inputs' values where we leave padding alone, and sums mass over values of either sign.
"""

import numpy as np
import pytest
import torch
from torch import nn

from audio_lrp.faithfulness import (
    Captum,
    complexity,
    max_sensitivity,
    parameter_randomization,
    perturbation_curves,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sparseness,
)
from audio_lrp.faithfulness.draws import drawn, example_generators

quantus = pytest.importorskip("quantus", reason="Quantus comes with the extra 'test'")


class Layer(nn.Linear):
    """A dense layer that always restarts from the same parameters, whatever the generator's state."""

    def reset_parameters(self):
        generator = torch.Generator().manual_seed(self.in_features)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = Layer(48, 8)
        self.output = Layer(8, 3)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, values):
        return self.output(torch.tanh(self.hidden(values.flatten(1))))


def setting():
    generator = torch.Generator().manual_seed(1)
    inputs, relevance = (torch.randn(5, 1, 6, 8, generator=generator) for _ in range(2))
    return Network().eval(), inputs, torch.tensor([0, 1, 2, 0, 1]), relevance


def explain(model, inputs, targets, **_):
    """Gradient times input, as Quantus calls it."""
    return Captum("InputXGradient")(model, torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()


def evaluate(metric, model, inputs, target, relevance, **options):
    return metric(
        model=model,
        x_batch=inputs.numpy(),
        y_batch=target.numpy(),
        a_batch=None if relevance is None else relevance.numpy(),
        device="cpu",
        **options,
    )


def quiet(**options):
    """Options that let Quantus compute on the maps as they are."""
    return {"disable_warnings": True, "normalise": False, "abs": False, **options}


@pytest.mark.parametrize("step", [1, 6])
def test_morf_is_pixel_flipping(step):
    model, inputs, target, relevance = setting()
    metric = quantus.PixelFlipping(features_in_step=step, perturb_baseline=0.0, **quiet())
    theirs = np.array(evaluate(metric, model, inputs, target, relevance, softmax=True))
    fractions = np.arange(0, 48 + step, step) / 48
    ours = perturbation_curves(model, inputs, target, relevance, orders=["morf"], fractions=fractions.tolist())
    np.testing.assert_allclose(ours.of_examples("morf")[:, 1:].numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_localisation():
    model, inputs, target, relevance = setting()
    mask = inputs > 0.2
    mass = quantus.RelevanceMassAccuracy(**quiet())
    theirs = evaluate(mass, model, inputs, target, relevance.clamp(min=0), s_batch=mask.numpy())
    np.testing.assert_allclose(relevance_mass_accuracy(relevance, mask).numpy(), theirs, rtol=1e-5)
    rank = quantus.RelevanceRankAccuracy(**quiet())
    theirs = evaluate(rank, model, inputs, target, relevance, s_batch=mask.numpy())
    np.testing.assert_allclose(relevance_rank_accuracy(relevance, mask).numpy(), theirs, rtol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(sparseness, "Sparseness"), (complexity, "Complexity")])
def test_complexity(ours, theirs):
    model, inputs, target, relevance = setting()
    metric = getattr(quantus, theirs)(**quiet(abs=True))
    expected = evaluate(metric, model, inputs, target, relevance)
    np.testing.assert_allclose(ours(relevance).numpy(), expected, rtol=2e-6)


def test_max_sensitivity():
    model, inputs, target, _ = setting()
    generators = example_generators(len(inputs), None, seed=4)

    def noise(arr, **_):
        numbers = drawn(torch.rand, inputs.shape[1:], generators, like=inputs).numpy().reshape(arr.shape)
        return arr + np.float32(0.1) * (2 * numbers - 1)

    metric = quantus.MaxSensitivity(nr_samples=6, perturb_func=noise, **quiet())
    expected = evaluate(metric, model, inputs, target, None, explain_func=explain)
    ours = max_sensitivity(Captum("InputXGradient"), model, inputs, target, radius=0.1, num_samples=6, seed=4)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4)


def test_parameter_randomization():
    model, inputs, target, _ = setting()
    metric = quantus.MPRT(
        layer_order="top_down", similarity_func=quantus.similarity_func.correlation_spearman, **quiet()
    )
    theirs = evaluate(metric, model, inputs, target, None, explain_func=explain)
    ours = parameter_randomization(Captum("InputXGradient"), model, inputs, target)
    assert [*theirs] == ["original", *ours.layers] == ["original", "output", "hidden"]
    for layer, correlation in zip(ours.layers, ours.correlation, strict=True):
        np.testing.assert_allclose(correlation.numpy(), theirs[layer], rtol=1e-6)
