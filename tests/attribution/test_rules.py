"""Each rule against zennit, against a slow re-derivation with matrices in NumPy, and in what it must not do."""

import copy

import numpy as np
import pytest
import torch
import zennit.rules as stock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite

from audio_lrp.attribution import AlphaBeta, Epsilon, Flat, Gamma, Pass, Rule, WSquare, ZBox, ZPlus, attribute
from audio_lrp.attribution.graph import Graph
from audio_lrp.attribution.propagation import Propagation, Term, negative, positive, whole
from audio_lrp.errors import UserError

RULES = {
    "epsilon": (Epsilon(0.1), stock.Epsilon(0.1)),
    "zplus": (ZPlus(), stock.ZPlus()),
    "alpha2_beta1": (AlphaBeta(2, 1), stock.AlphaBeta(2, 1)),
    "alpha3_beta2": (AlphaBeta(3, 2), stock.AlphaBeta(3, 2)),
    "gamma": (Gamma(0.3), stock.Gamma(0.3)),
    "flat": (Flat(), stock.Flat()),
    "wsquare": (WSquare(), stock.WSquare()),
    "zbox": (ZBox(-3.0, 3.0), stock.ZBox(-3.0, 3.0)),
    "zplus_without_bias": (ZPlus(bias="ignore"), stock.ZPlus(zero_params="bias")),
    "epsilon_without_bias": (Epsilon(0.1, bias="ignore"), stock.Epsilon(0.1, zero_params="bias")),
    "alpha2_beta1_without_bias": (AlphaBeta(bias="ignore"), stock.AlphaBeta(zero_params="bias")),
    "gamma_without_bias": (Gamma(0.3, bias="ignore"), stock.Gamma(0.3, zero_params="bias")),
    "wsquare_without_bias": (WSquare(bias="ignore"), stock.WSquare(zero_params="bias")),
}
LAYERS = {  # the layer and the shape of its input, channels first
    "dense": (lambda: nn.Linear(6, 4), (6,)),
    "dense_without_bias": (lambda: nn.Linear(6, 4, bias=False), (6,)),
    "dense_over_time": (lambda: nn.Linear(6, 4), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, padding=1), (2, 9)),
    "conv1d_grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2), (4, 9)),
    "conv1d_strided": (lambda: nn.Conv1d(2, 4, 3, stride=4, padding=1), (2, 12)),
    "conv2d_strided": (lambda: nn.Conv2d(1, 4, (5, 4), stride=(3, 2), padding=(1, 0)), (1, 12, 9)),
    "conv1d_strided_dilated": (lambda: nn.Conv1d(2, 4, 3, stride=2, dilation=2), (2, 12)),
    "conv1d_circular": (lambda: nn.Conv1d(2, 4, 4, padding="same", padding_mode="circular"), (2, 9)),
    "conv1d_valid": (lambda: nn.Conv1d(2, 4, 4, padding="valid", bias=False), (2, 9)),
    "conv2d": (lambda: nn.Conv2d(1, 4, 3), (1, 6, 7)),
    "conv2d_grouped_strided_dilated": (
        lambda: nn.Conv2d(4, 6, (2, 3), stride=(2, 3), padding=(0, 2), dilation=(1, 2), groups=2),
        (4, 5, 8),
    ),
    "conv2d_same": (lambda: nn.Conv2d(2, 4, (2, 3), padding="same"), (2, 5, 6)),
    "conv2d_reflect": (lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, padding_mode="reflect", groups=2), (4, 6, 5)),
}


def layer_and_input(case, dtype=torch.float64):
    torch.manual_seed(0)
    build, shape = LAYERS[case]
    return build().to(dtype), torch.randn(3, *shape, dtype=dtype)


def relevance_of(network, rule, inputs, upper, others=(), kinds=(nn.Linear, nn.Conv1d, nn.Conv2d)):
    """Relevance of the input if the output's relevance is ``upper``."""
    composite = LayerMapComposite([(kinds, rule), *others])
    with Gradient(copy.deepcopy(network), composite) as attributor:
        output, relevance = attributor(inputs.clone(), upper)
    return output, relevance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("name", RULES)
def test_equals_zennit(name, case, dtype, tolerance):
    layer, inputs = layer_and_input(case, dtype)
    upper = torch.randn_like(layer(inputs))
    ours, theirs = RULES[name]
    output, relevance = relevance_of(layer, ours, inputs, upper)
    _, expected = relevance_of(layer, theirs, inputs, upper)
    assert (relevance - expected).abs().max() <= tolerance * expected.abs().max()
    assert torch.equal(output, layer(inputs))


# --- NumPy: contributions written out, one output and one input at a time ---


def stable(value, epsilon=1e-6):
    return value + epsilon * (1 if value >= 0 else -1)


def shares_of(name, x, w, b, z):
    """For one output: pairs of contributions [inputs] and their denominator, with the fraction each hands out."""
    contributions = w * x
    plus, minus = np.maximum(contributions, 0), np.minimum(contributions, 0)
    if name == "epsilon":
        return [(1, contributions, stable(z, 0.1))]
    if name == "zplus":
        return [(1, plus, stable(plus.sum() + max(b, 0)))]
    if name == "zplus_without_bias":
        return [(1, plus, stable(plus.sum()))]
    if name.startswith("alpha"):
        alpha, beta = int(name[5]), int(name[11])
        b = 0 if name.endswith("without_bias") else b
        return [
            (alpha, plus, stable(plus.sum() + max(b, 0))),
            (-beta, minus, stable(minus.sum() + min(b, 0))),
        ]
    if name.startswith("gamma"):
        b = 0 if name.endswith("without_bias") else b
        part, bias = (plus, max(b, 0)) if z >= 0 else (minus, min(b, 0))
        strengthened = contributions + 0.3 * part
        return [(1, strengthened, stable(strengthened.sum() + b + 0.3 * bias))]
    if name.startswith("wsquare"):
        b = 0 if name.endswith("without_bias") else b
        return [(1, w**2, stable((w**2).sum() + b**2))]
    if name == "zbox":
        boxed = contributions + 3 * np.maximum(w, 0) - 3 * np.minimum(w, 0)
        return [(1, boxed, stable(boxed.sum()))]
    assert name == "epsilon_without_bias"
    return [(1, contributions, stable(contributions.sum(), 0.1))]


@pytest.mark.parametrize("case", ["dense", "conv1d", "conv1d_grouped", "conv2d_grouped_strided_dilated", "conv2d_same"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "flat"])
def test_equals_the_written_out_formula(name, case):
    layer, inputs = layer_and_input(case)
    upper = torch.randn_like(layer(inputs))
    _, relevance = relevance_of(layer, RULES[name][0], inputs, upper)
    size = inputs[0].numel()
    bias = layer(torch.zeros_like(inputs[:1])).flatten().detach().numpy()
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *inputs.shape[1:])
    weights = layer(unit).flatten(1).detach().numpy() - bias  # [inputs, outputs]
    for sample, found, above in zip(inputs, relevance, upper, strict=True):
        x, expected = sample.flatten().numpy(), np.zeros(size)
        for j, r in enumerate(above.flatten().numpy()):
            w, b = weights[:, j], bias[j]
            for fraction, contributions, denominator in shares_of(name, x, w, b, w @ x + b):
                expected += fraction * contributions * r / denominator
        np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-9, atol=1e-10)


def test_flat_counts_connections():
    layer, inputs = layer_and_input("conv1d")
    _, relevance = relevance_of(layer, Flat(), inputs, torch.ones(3, 4, 9, dtype=torch.float64))
    # Inside, 4 channels times 3 outputs give a sixth each; at the border one output has only 4 connections.
    expected = torch.tensor(
        [4 * (1 / 4 + 1 / 6), 4 * (1 / 4 + 2 / 6), *[2.0] * 5, 4 * (1 / 4 + 2 / 6), 4 * (1 / 4 + 1 / 6)]
    )
    torch.testing.assert_close(relevance[0, 0], expected.double(), rtol=1e-6, atol=0)


# --- properties ---


@pytest.mark.parametrize("name", RULES)
def test_linear_in_relevance(name):
    layer, inputs = layer_and_input("conv2d_grouped_strided_dilated")
    left, right = torch.randn_like(layer(inputs)), torch.randn_like(layer(inputs))
    found = [relevance_of(layer, RULES[name][0], inputs, upper)[1] for upper in (left, right, 2 * left - 3 * right)]
    torch.testing.assert_close(found[2], 2 * found[0] - 3 * found[1], rtol=1e-9, atol=1e-10)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(inplace=True), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(54, 5), nn.Tanh(), nn.Linear(5, 3)),
    ).double()


OTHERS = [((nn.ReLU, nn.Tanh), Pass()), (nn.AvgPool2d, Epsilon())]
STOCK_OTHERS = [((nn.ReLU, nn.Tanh), stock.Pass()), (nn.AvgPool2d, stock.Norm())]


@pytest.mark.parametrize("others", [OTHERS, STOCK_OTHERS], ids=["ours", "stock"])
@pytest.mark.parametrize("name", RULES)
def test_mixes_with_zennits_rules(name, others):
    network, inputs = small_network(), torch.randn(2, 2, 16, 16, dtype=torch.float64)
    upper = torch.eye(3, dtype=torch.float64)[:2]
    ours, theirs = RULES[name]
    output, relevance = relevance_of(network, ours, inputs, upper, others)
    _, expected = relevance_of(network, theirs, inputs, upper, STOCK_OTHERS)
    assert (relevance - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert torch.equal(output, network(inputs))


@pytest.mark.parametrize("name", RULES)
def test_batched_relevance_equals_a_loop(name):
    network, inputs = small_network(), torch.randn(2, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    composite = LayerMapComposite([((nn.Linear, nn.Conv2d), RULES[name][0]), *OTHERS])
    seeds = torch.eye(3, dtype=torch.float64)[:, None].expand(3, 2, 3)
    with composite.context(network):
        output = network(inputs)
        (batched,) = torch.autograd.grad(output, inputs, seeds, is_grads_batched=True, retain_graph=True)
        looped = [torch.autograd.grad(output, inputs, seed, retain_graph=True)[0] for seed in seeds]
    torch.testing.assert_close(batched, torch.stack(looped), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_parameters_are_left_alone(name):
    network = small_network()
    before = [(parameter, parameter.clone(), parameter._version) for parameter in network.parameters()]
    composite = LayerMapComposite([((nn.Linear, nn.Conv2d), RULES[name][0]), *OTHERS])
    inputs = torch.randn(2, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    with composite.context(network):
        network(inputs).sum().backward()
    for parameter, (same, value, version) in zip(network.parameters(), before, strict=True):
        assert parameter is same
        assert parameter._version == version
        assert torch.equal(parameter, value)
        assert parameter.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_without_anything_to_explain_the_output_is_the_networks():
    network, inputs = small_network(), torch.randn(2, 2, 16, 16, dtype=torch.float64)
    with LayerMapComposite([(nn.Conv2d, AlphaBeta())]).context(network):
        output = network(inputs)
    assert torch.equal(output, network(inputs))


def test_pooling_has_no_bias_to_ignore():
    inputs, upper = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    absorbed, ignored = (
        relevance_of(nn.AvgPool1d(2), Epsilon(0.1, bias=bias), inputs, upper, kinds=nn.AvgPool1d)[1]
        for bias in ("absorb", "ignore")
    )
    torch.testing.assert_close(ignored, absorbed, rtol=1e-12, atol=0)


def test_inactive_rules_give_the_gradient():
    network, inputs = small_network()[:4], torch.randn(2, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    composite = LayerMapComposite([(nn.Conv2d, AlphaBeta())])
    with composite.context(network):
        output = network(inputs)
        with composite.inactive():
            (gradient,) = torch.autograd.grad(output.sum(), inputs)
    (expected,) = torch.autograd.grad(network(inputs).sum(), inputs)
    torch.testing.assert_close(gradient, expected)


# --- what it costs ---


@pytest.mark.parametrize(
    ("rule", "passes"), [(Epsilon(), 2), (ZPlus(), 3), (AlphaBeta(2, 1), 5), (AlphaBeta(1, 0), 3), (Gamma(), 3)]
)
def test_costs_no_more_than_the_floor_after_a_relu(rule, passes):
    """In forward passes of the layer, whose input comes from a ReLU and whose output goes into one."""
    network = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 4, 3), nn.MaxPool1d(2), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(28, 1))
    inputs = torch.randn(2, 4, 32, requires_grad=True)

    def flops(composite):
        with composite.context(network), FlopCounterMode(display=False) as counter:
            output = network(inputs.view_as(inputs))
            Graph(output)
            torch.autograd.grad(output.sum(), inputs)
        return counter.get_flop_counts()["Global"]

    found = flops(LayerMapComposite([(nn.Conv1d, rule), (nn.Linear, Epsilon()), (nn.ReLU, Pass())]))
    dense = 2 * 2 * 2 * 28  # forward and backward
    convolution = 2 * 2 * 4 * 4 * 3 * 14
    assert sum(found.values()) == dense + passes * convolution


@pytest.mark.parametrize(("rule", "passes"), [(ZPlus(), 3), (AlphaBeta(2, 1), 5)])
def test_input_that_is_not_negative_costs_no_more_either(rule, passes):
    """Spectrograms, for example; the relevance is that of the general rule, which a negative sample elsewhere needs."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten())
    inputs = torch.rand(2, 2, 16, dtype=torch.float64)
    network.double()
    upper = torch.randn(2, 56, dtype=torch.float64)

    def relevance_and_flops(value):
        value = value.clone().requires_grad_()
        composite = LayerMapComposite([(nn.Conv1d, rule)])
        with composite.context(network), FlopCounterMode(display=False) as counter:
            (relevance,) = torch.autograd.grad(network(value.view_as(value)), value, upper[: len(value)])
        return relevance, sum(counter.get_flop_counts()["Global"].values())

    forward = 2 * 2 * 2 * 4 * 3 * 14
    cheap, flops = relevance_and_flops(inputs)
    assert flops == passes * forward
    beside_a_negative = torch.stack([inputs[0], -inputs[1]])
    general, flops = relevance_and_flops(beside_a_negative)
    assert flops > passes * forward
    torch.testing.assert_close(cheap[0], general[0], rtol=1e-12, atol=1e-14)


def test_each_forward_pass_remembers_the_sign_of_its_own_input():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3)).double()
    signed, positive = torch.randn(2, 4, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64)
    values = [value.requires_grad_() for value in (signed, positive)]
    with LayerMapComposite([(nn.Linear, ZPlus())]).context(network):
        expected = [torch.autograd.grad(network(value.view_as(value)).sum(), value)[0] for value in values]
        outputs = [network(value.view_as(value)) for value in values]
        found = [torch.autograd.grad(output.sum(), value)[0] for output, value in zip(outputs, values, strict=True)]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_gamma_sees_relevance_of_negative_outputs():
    """Without a ReLU behind it, or with a rule behind the ReLU that gives relevance to zeros, nothing is left out."""
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, dtype=torch.float64)
    upper = torch.randn(2, 2, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()

    def relevance(gamma, flat, others):
        composite = LayerMapComposite([(nn.ReLU, others)])
        composite.module_map = lambda _, name, __: {"0": gamma, "1": others, "2": flat}.get(name)
        value = inputs.clone().requires_grad_()
        with composite.context(network):
            output = network(value)
            Graph(output)
            return torch.autograd.grad(output, value, upper)[0]

    ours = relevance(Gamma(), Flat(), Pass())
    torch.testing.assert_close(ours, relevance(stock.Gamma(), stock.Flat(), stock.Pass()), rtol=1e-9, atol=1e-12)


# --- what it refuses ---


def called(rule, layer):
    with LayerMapComposite([(type(layer), rule)]).context(layer):
        layer(torch.randn(2, 1, 8, requires_grad=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlphaBeta(2, 2), "alpha - beta = 1"),
        (lambda: AlphaBeta(0.5, -0.5), "beta of at least 0"),
        (lambda: Gamma(-1), "gamma is -1"),
        (lambda: Epsilon(-0.1), "stabilizer of Epsilon is -0.1"),
        (lambda: ZBox(1, 0), "low is 1 and high 0"),
        (lambda: ZPlus(bias="keep"), "bias of ZPlus is 'keep'"),
        (lambda: called(Epsilon(), nn.ConvTranspose1d(1, 1, 3)), "no linear call .* give it a rule of zennit's"),
        (lambda: called(ZPlus(), nn.AvgPool1d(2)), "avg_pool1d has no weights: give it the rule Epsilon, not ZPlus"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("parts", [(positive,), (torch.abs, negative), (whole, positive)])
def test_a_rule_of_ones_own_takes_the_input_whole_or_in_its_parts(parts):
    class Own(Rule):
        def propagations(self):
            return (Propagation(tuple(Term(part, whole) for part in parts)),)

    with pytest.raises(UserError, match=r"Own propagates relevance in proportion .* set proportional = False"):
        attribute(nn.Sequential(nn.Linear(3, 2)), torch.randn(1, 3), composite=LayerMapComposite([(nn.Linear, Own())]))
