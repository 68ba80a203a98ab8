"""Presets against a slow re-derivation of the rules in NumPy, with every layer written out as a matrix."""

import numpy as np
import pytest
import torch
from torch import nn
from zennit.core import Composite

from audio_lrp.attribution import (
    PRESETS,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    ZBox,
    ZPlus,
    attribute,
    composite_by_name,
)
from audio_lrp.errors import UserError

STABILIZER = 1e-6
BOUNDS = (-3.0, 3.0)


def _stable(z):
    return z + STABILIZER * np.where(z < 0, -1.0, 1.0)


def _epsilon(x, weight, bias, relevance):
    return x * (weight.T @ (relevance / _stable(weight @ x + bias)))


def _alpha_beta(x, weight, bias, relevance, alpha, beta):
    positive = np.maximum(weight * x, 0)  # contribution of input j to output i
    negative = np.minimum(weight * x, 0)
    excite = relevance / _stable(positive.sum(1) + np.maximum(bias, 0))
    inhibit = relevance / _stable(negative.sum(1) + np.minimum(bias, 0))
    return alpha * positive.T @ excite - beta * negative.T @ inhibit


def _gamma(x, weight, bias, relevance, gamma=0.25):
    contributions = weight * x
    output = contributions.sum(1) + bias
    # Contributions and bias of the output's own sign are strengthened.
    sign = np.where(output >= 0, 1.0, -1.0)[:, None]
    strengthened = contributions + gamma * np.where(contributions * sign > 0, contributions, 0)
    strengthened_bias = bias + gamma * np.where(bias * sign[:, 0] > 0, bias, 0)
    return strengthened.T @ (relevance / _stable(strengthened.sum(1) + strengthened_bias))


def _box(x, weight, bias, relevance):
    low, high = BOUNDS
    contributions = weight * x - low * np.maximum(weight, 0) - high * np.minimum(weight, 0)
    return contributions.T @ (relevance / _stable(contributions.sum(1)))


def _flat(x, weight, bias, relevance):
    connected = (weight != 0).astype(float)
    return connected.T @ (relevance / _stable(connected.sum(1)))


def _plus(x, weight, bias, relevance):
    return _alpha_beta(x, weight, bias, relevance, 1, 0)


def _alpha2_beta1(x, weight, bias, relevance):
    return _alpha_beta(x, weight, bias, relevance, 2, 1)


def _lrp0(x, weight, bias, relevance):
    return x * (weight.T @ (relevance / (weight @ x + bias)))


RULES = {  # first convolution, second convolution, dense
    "lrp0": (_lrp0, _lrp0, _lrp0),
    "epsilon": (_epsilon, _epsilon, _epsilon),
    "epsilon_plus": (_plus, _plus, _epsilon),
    "epsilon_alpha2_beta1": (_alpha2_beta1, _alpha2_beta1, _epsilon),
    "epsilon_gamma_box": (_box, _gamma, _epsilon),
    "epsilon_alpha2_beta1_flat": (_flat, _alpha2_beta1, _epsilon),
}


def _as_matrix(layer, shape):
    """The layer's action on flattened input, as a matrix, and its bias."""
    size = int(np.prod(shape))
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
    columns = layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)) - zero
    return columns.flatten(1).T.detach().numpy(), zero.flatten().detach().numpy(), zero.shape[1:]


def _reference(network, rules, sample, target):
    """Relevance of one sample through convolution, ReLU, convolution, ReLU, flatten, dense."""
    layers = [layer for layer in network if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)]
    shape, activation, steps = sample.shape, sample.numpy().ravel(), []
    for index, layer in enumerate(layers):
        shape = (int(np.prod(shape)),) if isinstance(layer, nn.Linear) else shape
        weight, bias, shape = _as_matrix(layer, shape)
        steps.append((activation, weight, bias))
        activation = weight @ activation + bias
        if index < len(layers) - 1:
            activation = np.maximum(activation, 0)
    relevance = np.zeros_like(activation)
    relevance[target] = activation[target]
    for (activation, weight, bias), rule in zip(reversed(steps), reversed(rules), strict=True):
        relevance = rule(activation, weight, bias, relevance)
    return relevance.reshape(sample.shape)


def _waveform_network():
    return nn.Sequential(
        *(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 6, 3, stride=2, groups=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(30, 3)),
    )


def _spectrogram_network():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(54, 3)),
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("build", "shape"), [(_waveform_network, (1, 12)), (_spectrogram_network, (1, 7, 7))])
def test_presets_follow_the_written_out_rules(preset, build, shape):
    torch.manual_seed(0)
    network = build().double()
    inputs = torch.randn(2, *shape, dtype=torch.float64).clamp(*BOUNDS)
    target = torch.tensor([2, 0])
    explanation = attribute(network, inputs, target, preset, bounds=BOUNDS)
    for sample, chosen, relevance in zip(inputs, target.tolist(), explanation.relevance, strict=True):
        expected = _reference(network, RULES[preset], sample, chosen)
        np.testing.assert_allclose(relevance.numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("epsilon", (Epsilon, Epsilon, Epsilon)),
        ("epsilon_plus", (ZPlus, ZPlus, Epsilon)),
        ("epsilon_alpha2_beta1", (AlphaBeta, AlphaBeta, Epsilon)),
        ("epsilon_gamma_box", (ZBox, Gamma, Epsilon)),
        ("epsilon_alpha2_beta1_flat", (Flat, AlphaBeta, Epsilon)),
    ],
)
def test_presets_give_each_layer_its_rule(preset, expected):
    composite = composite_by_name(preset, bounds=(0.0, 1.0))
    assert isinstance(composite, Composite)
    context = {}
    rules = [composite.module_map(context, str(index), layer) for index, layer in enumerate(_waveform_network())]
    assert tuple(type(rules[index]) for index in (0, 2, 5)) == expected
    assert rules[4] is None


def test_presets_are_fresh_objects():
    assert composite_by_name("epsilon") is not composite_by_name("epsilon")


def test_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(UserError, match="did you mean 'epsilon_plus'") as error:
        composite_by_name("epsilon_pluss")
    assert all(name in str(error.value) for name in PRESETS)


@pytest.mark.parametrize("bounds", [None, (1.0, 0.0), (float("nan"), 1.0)])
def test_box_rule_needs_bounds(bounds):
    with pytest.raises(UserError, match="bounds=\\(lowest, highest\\)"):
        composite_by_name("epsilon_gamma_box", bounds)
