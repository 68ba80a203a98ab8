"""The attribution call against zennit used directly, and what it asks of network, input and target."""

import copy

import pytest
import torch
import zennit.rules as stock
from networks import (
    NETWORKS,
    Function,
    assert_same_relevance,
    inserted,
    random_input,
    spectrogram_network,
    waveform_network,
    zennit_relevance,
)
from torch import nn
from zennit.composites import EpsilonPlus, LayerMapComposite
from zennit.rules import Epsilon, Pass
from zennit.types import Activation

from audio_lrp.attribution import PRESETS, AlphaBeta, Gamma, RuleMap, ZPlus, attribute, composite_by_name
from audio_lrp.errors import UserError


def oracle(preset, bounds):
    """The same rules by zennit."""
    if preset in ("lrp0", "epsilon"):
        rule = Epsilon(0 if preset == "lrp0" else 1e-6)
        return LayerMapComposite([((nn.Conv1d, nn.Conv2d, nn.Linear), rule), (nn.ReLU, Pass())])
    return composite_by_name(f"zennit_{preset}", bounds)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("build", "shape"), NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_zennit(preset, build, shape, dtype, tolerance):
    network, inputs, target = build().to(dtype), random_input(shape).to(dtype), torch.tensor([3, 1, 0, 2, 1])
    explanation = attribute(network, inputs, target, preset)
    bounds = (inputs.min().item(), inputs.max().item())
    assert_same_relevance(
        explanation.relevance, zennit_relevance(network, inputs, target, oracle(preset, bounds)), tolerance
    )
    torch.testing.assert_close(explanation.output, network.eval()(inputs).detach(), rtol=1e-6, atol=1e-6)
    assert explanation.target.tolist() == target.tolist()
    assert explanation.composite == preset


class BesideItsReLU(nn.Module):
    """Values below zero that one consumer drops and another takes."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.activation, self.last = nn.Linear(6, 5), activation, nn.Linear(10, 4)

    def forward(self, value):
        value = self.first(value)
        return self.last(torch.cat([self.activation(value), value], dim=1))


# What looks like a case for leaving out terms that are zero, but is none; and one sign of the input alone.
NOTHING_TO_LEAVE_OUT = {
    "dense_after_dense": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), 0.0),
    "barely_negative": (lambda: nn.Sequential(nn.Linear(6, 4)), -1e-4),
    "beside_a_relu": (lambda: BesideItsReLU(nn.ReLU()), -1.0),
    "leaky": (lambda: nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4)), -1.0),
    "gelu": (lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4)), -1.0),
    "no_last_relu": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 4)), -1.0),
}


RULES = {
    "zplus": (ZPlus(), stock.ZPlus()),
    "alpha2_beta1": (AlphaBeta(), stock.AlphaBeta()),
    "gamma": (Gamma(), stock.Gamma()),
}


@pytest.mark.parametrize("case", NOTHING_TO_LEAVE_OUT)
@pytest.mark.parametrize("rule", RULES)
def test_leaves_out_no_term_that_counts(rule, case):
    torch.manual_seed(4)
    build, least = NOTHING_TO_LEAVE_OUT[case]
    network, inputs, target = build().double(), torch.rand(5, 6, dtype=torch.float64), torch.tensor([3, 1, 0, 2, 1])
    inputs[:, ::2] *= least
    ours, theirs = RULES[rule]
    expected = zennit_relevance(network, inputs, target, LayerMapComposite([(nn.Linear, theirs), (Activation, Pass())]))
    assert_same_relevance(attribute(network, inputs, target, RuleMap({"Linear": ours})).relevance, expected, 1e-10)


def test_accepts_a_zennit_composite():
    network, inputs, target = waveform_network(), random_input(), torch.tensor([3, 1, 0, 2, 1])
    explanation = attribute(network, inputs, target, EpsilonPlus(epsilon=0.1))
    assert_same_relevance(explanation.relevance, zennit_relevance(network, inputs, target, EpsilonPlus(epsilon=0.1)))
    assert explanation.composite == "EpsilonPlus"


def test_predicted_is_the_largest_logit_in_eval_mode():
    network, inputs = waveform_network(), random_input()
    explanation = attribute(network, inputs)
    predicted = network.eval()(inputs).argmax(dim=1)
    assert explanation.target.tolist() == predicted.tolist()
    assert torch.equal(explanation.relevance, attribute(network, inputs, predicted).relevance)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_target_may_be_any_integer_type(dtype):
    network, inputs, target = waveform_network(), random_input(), torch.tensor([3, 1, 0, 2, 1])
    explanation = attribute(network, inputs, target.to(dtype))
    assert torch.equal(explanation.relevance, attribute(network, inputs, target).relevance)
    assert explanation.target.dtype == torch.int64


@pytest.mark.parametrize("preset", PRESETS)
def test_chunks_do_not_change_the_result(preset):
    network, inputs = waveform_network(), random_input()
    whole = attribute(network, inputs, composite=preset, chunk_size=100)
    for chunk_size in (1, 2, 5):
        chunked = attribute(network, inputs, composite=preset, chunk_size=chunk_size)
        assert_same_relevance(chunked.relevance, whole.relevance, 1e-5)
        assert torch.equal(chunked.target, whole.target)


@pytest.mark.parametrize("preset", PRESETS)
def test_linear_in_the_relevance_of_the_output(preset):
    """Twice the last layer's logit, twice the relevance: all rules are linear in what comes from above."""
    network = waveform_network().double()
    inputs, target = random_input().double(), torch.tensor([3, 1, 0, 2, 1])
    once = attribute(network, inputs, target, preset).relevance
    with torch.no_grad():
        network[-1].weight *= 2
        network[-1].bias *= 2
    assert_same_relevance(attribute(network, inputs, target, preset).relevance, 2 * once, 1e-4)  # stabilizer: 1e-6


@pytest.mark.parametrize(("build", "shape"), NETWORKS)
def test_conserves_the_logit_without_biases(build, shape):
    network = build()
    for layer in network:
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.zeros_(layer.bias)
            layer.weight.data *= 3  # logits far above the stabilizer
    inputs = random_input(shape)
    explanation = attribute(network, inputs, composite="epsilon_plus")
    logit = explanation.output.gather(1, explanation.target[:, None])[:, 0]
    torch.testing.assert_close(explanation.relevance.flatten(1).sum(1), logit, rtol=1e-4, atol=0)


def test_float64_network_is_attributed_in_float64():
    network, inputs = waveform_network(), random_input()
    double = attribute(copy.deepcopy(network).double(), inputs)
    assert double.relevance.dtype == torch.float64
    assert_same_relevance(attribute(network, inputs).relevance.double(), double.relevance, 1e-5)


def test_bfloat16_network_is_attributed_in_float32():
    network, inputs = waveform_network().bfloat16(), random_input().bfloat16()
    explanation = attribute(network, inputs)
    assert explanation.relevance.dtype == explanation.output.dtype == torch.float32
    assert torch.equal(explanation.relevance, attribute(copy.deepcopy(network).float(), inputs.float()).relevance)
    assert network[0].weight.dtype == torch.bfloat16


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 3)

    def forward(self, value, mask, *, scale):
        return self.dense(value.flatten(1) * mask * scale)


class OptionalInput(TwoInputs):
    def forward(self, value, mask=None, **options):
        return self.dense(value.flatten(1))


def test_optional_inputs_may_be_left_out():
    assert attribute(OptionalInput(), random_input()).relevance.abs().max() > 0


def scripted_part():
    network = waveform_network()
    network[3] = torch.jit.script(network[3])
    return network


def initialised_half():
    return nn.Sequential(nn.LazyConv1d(8, 5), nn.Flatten(), nn.LazyLinear(3))


def unloaded():
    network = waveform_network()
    network[8] = nn.Linear(128, 16, device="meta")
    return network


UNFIT = {
    "scripted": (lambda: torch.jit.script(waveform_network()), "is TorchScript"),
    "traced": (lambda: torch.jit.trace(waveform_network().eval(), random_input()), "is TorchScript"),
    "scripted_part": (scripted_part, "module '3' .*is TorchScript"),
    "lazy": (initialised_half, "module '0' \\(LazyConv1d\\) has no weights yet"),
    "meta": (unloaded, "module '8' \\(Linear\\) lies on the meta device"),
    "two_inputs": (TwoInputs, "takes 3 inputs \\(value, mask, scale\\)"),
    "no_module": (lambda: waveform_network().forward, "the model is a method"),
    "wrong_index": (
        lambda: inserted(Function(lambda value: value[:, 99])),
        "module '4' \\(Function\\) fails on .*index 99",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("case", UNFIT)
def test_refuses_in_one_sentence_what_it_cannot_run(case):
    build, message = UNFIT[case]
    with pytest.raises(UserError, match=message) as refusal:
        attribute(build(), random_input())
    assert "\n" not in str(refusal.value)


class HiddenFactor(nn.Module):
    """Changes gradients, and so relevance, where the graph does not show it."""

    def forward(self, value):
        value = value.view_as(value)
        value.grad_fn.register_prehook(lambda gradients: (3 * gradients[0],))
        return value


def test_warns_of_relevance_that_is_not_accounted_for():
    network = inserted(HiddenFactor(), 4)
    with pytest.warns(UserWarning, match=r"6\.7e-01 of it is missing or added at the operations between the layers"):
        ledger = attribute(network, random_input(), composite="epsilon").conservation
    assert ledger.error > 0.1
    assert max(account.gap.max() for account in ledger.layers) < 1e-4


def test_warns_of_relevance_that_is_no_number():
    network = waveform_network()
    with torch.no_grad():
        network[8].weight[0, 0] = float("nan")
    with pytest.warns(UserWarning, match="do not trust this map"):
        assert not attribute(network, random_input()).conservation.error <= 1e-4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("preset", [*PRESETS, "zennit_epsilon_plus"])
def test_does_not_warn_of_rounding(preset):
    attribute(waveform_network(), random_input(), composite=preset)


class CutOff(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, value):
        return self.network(value)


NETWORK_INPUT_ERRORS = {
    "one_sample": (lambda: (waveform_network(), torch.zeros(64)), "pass a batch"),
    "empty": (lambda: (waveform_network(), torch.zeros(0, 1, 64)), "at least one sample"),
    "integers": (lambda: (waveform_network(), torch.zeros(2, 1, 64, dtype=torch.int16)), "torch.int16"),
    "device": (
        lambda: (waveform_network(), torch.zeros(2, 1, 64, device="meta")),
        "input lies on the meta device",
    ),
    "waveform_as_spectrogram": (
        lambda: (spectrogram_network(), random_input()),
        "module '0' \\(Conv2d\\) fails on .* it takes input of shape \\[B, 1, size, size\\] but gets \\[5, 1, 64\\]",
    ),
    "too_long": (
        lambda: (waveform_network(), torch.zeros(2, 1, 128)),
        "module '8' \\(Linear\\) fails on .* it takes .*\\[B, ..., 128\\]",
    ),
    "array": (lambda: (waveform_network(), random_input().numpy()), "input is a ndarray: pass a dense torch.Tensor"),
    "sparse": (lambda: (waveform_network(), random_input().to_sparse()), "input is a torch.sparse_coo tensor"),
    "no_classes": (
        lambda: (waveform_network()[:10].append(nn.Linear(16, 0)), random_input()),
        r"returned \[5, 0\]: it must return logits",
    ),
    "no_logits": (lambda: (waveform_network()[:6], random_input()), "must return logits"),
    "cut_off": (
        lambda: (inserted(Function(torch.detach), 6), random_input()),
        r"logits do not depend on its input, or are cut off from it by module '6' \(Function\): look for detach",
    ),
    "cut_off_by_the_network": (
        lambda: (CutOff(waveform_network()), random_input()),
        r"cut off from it by the network CutOff: look for detach\(\), no_grad\(\)",
    ),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("case", NETWORK_INPUT_ERRORS)
def test_refuses_input_that_does_not_fit(case):
    build, message = NETWORK_INPUT_ERRORS[case]
    network, inputs = build()
    with pytest.raises(UserError, match=message):
        attribute(network, inputs)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("true", "unknown target 'true'"),
        (torch.zeros(5), "torch.float32"),
        (torch.zeros(5, dtype=torch.bool), "torch.bool"),
        ([0, 1, 2, 3, 0], "target holds list"),
        (torch.zeros(4, dtype=torch.long), "shape \\[4\\]"),
        (torch.zeros(5, 1, dtype=torch.long), "shape \\[5, 1\\]"),
        (torch.tensor([0, 1, 2, 3, 4]), "target 4 does not exist: the network has classes 0 to 3"),
        (torch.tensor([0, 1, -1, 3, 3]), "target -1 does not exist"),
    ],
)
def test_refuses_wrong_targets(target, message):
    with pytest.raises(UserError, match=message):
        attribute(waveform_network(), random_input(), target)


@pytest.mark.parametrize("composite", [None, RuleMap])
def test_refuses_what_is_no_composite(composite):
    with pytest.raises(UserError, match=r"composite is a (NoneType|type): pass the name of a preset"):
        attribute(waveform_network(), random_input(), composite=composite)


def test_refuses_empty_chunks():
    with pytest.raises(UserError, match="chunk_size is 0"):
        attribute(waveform_network(), random_input(), chunk_size=0)
