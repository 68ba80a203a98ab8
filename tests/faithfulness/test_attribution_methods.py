"""Attribution methods under one call, each against an obvious loop."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from audio_lrp.attribution import attribute
from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    LRP,
    METHODS,
    Amplitude,
    AttributionMethod,
    Captum,
    Occlusion,
    RandomRelevance,
    method_by_name,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 30, 3)
    ).double()


def setting(batch=5):
    inputs = torch.randn(batch, 1, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return inputs, torch.arange(batch) % 3


def gradient(model, value, chosen):
    """Gradient of one example's logit."""
    value = value[None].clone().requires_grad_()
    model(value)[0, chosen].backward()
    return value.grad[0]


def references(model, inputs, target):
    """Each method, example by example and step by step."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    expected = {name: [] for name in ("gradient_times_input", "integrated_gradients", "saliency")}
    for value, chosen in zip(inputs, target.tolist(), strict=True):
        slope = gradient(model, value, chosen)
        expected["saliency"].append(slope.abs())
        expected["gradient_times_input"].append(slope * value)
        path = sum(
            weight / 2 * gradient(model, (node + 1) / 2 * value, chosen)
            for node, weight in zip(nodes, weights, strict=True)
        )
        expected["integrated_gradients"].append(path * value)
    return {name: torch.stack(values) for name, values in expected.items()}


@pytest.mark.parametrize("name", ["gradient_times_input", "integrated_gradients", "saliency"])
def test_gradient_methods_equal_the_loop(name):
    model, (inputs, target) = network(), setting()
    expected = references(network().eval(), inputs, target)[name]
    method = method_by_name(name)
    method.chunk_size = 2
    # Captum keeps the path's nodes in float32.
    atol = 1e-7 if name == "integrated_gradients" else 1e-12
    torch.testing.assert_close(method(model, inputs, target), expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("silence", [0.0, -0.5])
def test_occlusion_equals_the_loop(silence):
    model, (inputs, target) = network().eval(), setting()
    expected = torch.zeros_like(inputs)
    for example, chosen in enumerate(target.tolist()):
        for begin in range(0, 30, 7):
            occluded = inputs[example].clone()
            occluded[:, begin : begin + 7] = silence
            with torch.no_grad():
                fall = model(inputs[example][None])[0, chosen] - model(occluded[None])[0, chosen]
            expected[example, :, begin : begin + 7] = fall
    found = Occlusion(samples=7, silence=silence)(model, inputs, target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # captum sums in float32


def test_occlusion_of_spectrograms_takes_squares():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False)).double()
    inputs = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    target = torch.tensor([1, 0])
    contributions = inputs * model[1].weight.detach()[target].reshape(2, 1, 6, 6)
    squares = nn.functional.avg_pool2d(contributions, 3) * 9
    expected = squares.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    torch.testing.assert_close(Occlusion(side=3)(model, inputs, target), expected, rtol=1e-5, atol=1e-6)


def test_lrp_is_one_of_them():
    model, (inputs, target) = network(), setting()
    expected = attribute(model, inputs, target, "epsilon").relevance
    torch.testing.assert_close(LRP("epsilon", chunk_size=2)(model, inputs, target), expected)


def test_random_and_amplitude_know_nothing_of_the_network():
    inputs, target = setting()
    before = torch.get_rng_state()
    random = RandomRelevance(3)(nn.Identity(), inputs, target)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(random, RandomRelevance(3)(nn.Identity(), inputs, target))
    assert not torch.equal(random, RandomRelevance(4)(nn.Identity(), inputs, target))
    assert torch.equal(Amplitude(silence=1)(nn.Identity(), inputs, target), (inputs - 1).abs())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("surroundings", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_every_method_leaves_the_network_as_it_was(name, surroundings):
    model, (inputs, target) = network().float().train(), setting(3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = list(model.parameters())
    state = torch.get_rng_state()
    with surroundings():
        relevance = method_by_name(name)(model, inputs.float(), target)
    assert relevance.shape == inputs.shape
    assert not relevance.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(left is right for left, right in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="unknown attribution method 'lpr': choose one of lrp, gradient_times_input"):
        method_by_name("lpr")
    with pytest.raises(UserError, match="no method 'IntegratedGradient': did you mean 'IntegratedGradients'"):
        Captum("IntegratedGradient")


def test_methods_can_be_named_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=AttributionMethod)
    here = "audio_lrp.faithfulness"
    captum = {"class_path": f"{here}.Captum", "init_args": {"method": "DeepLift", "chunk_size": 4}}
    lrp = {"class_path": f"{here}.LRP", "init_args": {"composite": "epsilon_plus"}}
    made = [parser.instantiate_classes(parser.parse_object({"method": value})).method for value in (captum, lrp)]
    assert (made[0].method, made[0].chunk_size) == ("DeepLift", 4)
    assert made[1].composite == "epsilon_plus"
    inputs, target = setting(2)
    assert made[0](network().float(), inputs.float(), target).shape == inputs.shape
