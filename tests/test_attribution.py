"""The attribution call against zennit used directly, its guard, and what it refuses."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist
import zennit.rules as stock
from torch import nn
from torch.nn.utils import parametrizations, prune
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus, LayerMapComposite
from zennit.core import Hook
from zennit.layer import Sum
from zennit.rules import Epsilon, Norm, Pass
from zennit.types import Activation

from audio_lrp.attribution import PRESETS, AlphaBeta, Gamma, RuleMap, ZPlus, attribute, composite_by_name
from audio_lrp.attribution.guard import guarded
from audio_lrp.errors import UserError

WAVEFORM, SPECTROGRAM = (1, 64), (1, 31, 31)


def waveform_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(3, 2, ceil_mode=True)),
        *(nn.Conv1d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(128, 16), nn.Dropout(), nn.Linear(16, 4)),
    )


def spectrogram_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 8, (1, 3), padding=(0, 1), groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(72, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 4)),
    )


NETWORKS = [(waveform_network, WAVEFORM), (spectrogram_network, SPECTROGRAM)]


def random_input(shape=WAVEFORM, batch=5):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def zennit_relevance(network, inputs, target, composite):
    """Relevance by zennit's own attributor, on a copy of the network."""
    with Gradient(copy.deepcopy(network).eval(), composite) as attributor:
        _, relevance = attributor(inputs.clone(), lambda output: output * torch.eye(output.shape[1])[target])
    return relevance


def oracle(preset, bounds):
    """The same rules by zennit."""
    if preset in ("lrp0", "epsilon"):
        rule = Epsilon(0 if preset == "lrp0" else 1e-6)
        return LayerMapComposite([((nn.Conv1d, nn.Conv2d, nn.Linear), rule), (nn.ReLU, Pass())])
    return composite_by_name(f"zennit_{preset}", bounds)


def assert_same_relevance(relevance, expected, tolerance=1e-6):
    """Within the tolerance relative to the greatest relevance."""
    assert (relevance - expected).abs().max() <= tolerance * expected.abs().max()
    assert expected.abs().max() > 0


# --- what it computes ---


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


# --- the guard ---


def state_of(network):
    """Everything an attribution might disturb, as objects (to stay the same) and values (to stay equal)."""
    objects, values = [], []
    for module in network.modules():
        objects += [module._parameters, module._buffers]
        # Attributes hide a parameter or buffer of the same name, and so zennit 1.0.0's canonizers use them.
        objects += [getattr(module, name) for name in (*module._parameters, *module._buffers)]
        values += [list(vars(module))]
        values += [module.training, type(module)]
        values += [list(hooks) for hooks in (module._forward_pre_hooks, module._forward_hooks, module._backward_hooks)]
    for tensor in [*network.parameters(), *network.buffers()]:
        objects += [tensor, tensor.grad]
        values += [tensor.clone(), None if tensor.grad is None else tensor.grad.clone(), tensor.dtype]
        values += [tensor.requires_grad]
    values += [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")]
    values += [torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    return objects, values


def assert_same_state(before, after):
    assert all(left is right for left, right in zip(before[0], after[0], strict=True))
    for left, right in zip(before[1], after[1], strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def trained_a_little(network, inputs):
    """With gradients, a frozen parameter, a module in eval mode and a hook of the user's own."""
    network(inputs).sum().backward()
    network[0].bias.requires_grad_(False)
    network[1].eval()
    network[3].register_forward_hook(lambda *_: None)
    network.register_buffer("steps", torch.tensor(7))
    return network


class Failing(nn.Module):
    def forward(self, value):
        raise ZeroDivisionError("raised in the forward")


class FailingRule(Epsilon):
    def backward(self, module, grad_input, grad_output):
        super().backward(module, grad_input, grad_output)
        raise ZeroDivisionError("raised in the backward")


class ReplacingRule(Epsilon):
    """Leaves other Parameter objects behind than it found, as the stock rules of zennit 1.0.0 do."""

    def backward(self, module, grad_input, grad_output):
        relevance = super().backward(module, grad_input, grad_output)
        values = {name: parameter.data for name, parameter in module.named_parameters(recurse=False)}
        module.load_state_dict(values, strict=False, assign=True)
        return relevance


class ShadowingCanonizer(Canonizer):
    """Puts attributes before parameters and leaves them there, as the canonizers of zennit 1.0.0 do."""

    def apply(self, root_module):
        layers = [module for module in root_module.modules() if isinstance(module, nn.Linear)]
        canonizers = [self.copy() for _ in layers]
        for canonizer, layer in zip(canonizers, layers, strict=True):
            canonizer.register(layer)
        return canonizers

    def register(self, layer):
        self.layer, self.weight = layer, layer.weight
        object.__setattr__(layer, "weight", 1 * layer.weight)

    def remove(self):
        object.__setattr__(self.layer, "weight", self.weight)


def for_all_layers(rule):
    return LayerMapComposite([((nn.Conv1d, nn.Conv2d, nn.Linear), rule), (nn.ReLU, Pass())])


LIKE_ZENNIT_1 = {
    "replacing": lambda: for_all_layers(ReplacingRule()),
    "shadowing": lambda: RuleMap({"Convolution": ZPlus(), "Linear": ZPlus()}, canonizers=[ShadowingCanonizer()]),
}


@pytest.mark.parametrize("composite", [*PRESETS, *LIKE_ZENNIT_1])
@pytest.mark.parametrize(("build", "shape"), NETWORKS)
def test_leaves_no_trace(composite, build, shape):
    inputs = random_input(shape)
    network = trained_a_little(build(), inputs)
    before, given = state_of(network), inputs.clone()
    attribute(network, inputs, composite=LIKE_ZENNIT_1.get(composite, lambda: composite)())
    assert_same_state(before, state_of(network))
    assert torch.equal(inputs, given)
    assert inputs.grad is None
    assert not inputs.requires_grad


def test_leaves_no_trace_after_an_exception_in_the_forward():
    inputs = random_input()
    network = trained_a_little(waveform_network(), inputs)
    network.append(Failing())
    before = state_of(network)
    with pytest.raises(ZeroDivisionError, match="raised in the forward"):
        attribute(network, inputs)
    assert_same_state(before, state_of(network))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_leaves_no_trace_when_interrupted(error):
    inputs = random_input()
    network = trained_a_little(waveform_network(), inputs)

    def interrupt(_):
        raise error

    network.append(Function(interrupt))
    before = state_of(network)
    with pytest.raises(error):
        attribute(network, inputs)
    assert_same_state(before, state_of(network))


@pytest.mark.parametrize("shared", [True, False], ids=["one network", "two with a common part"])
def test_threads_explain_at_the_same_time(shared):
    inputs = random_input()
    network = batch_norm_network()
    networks = [network, network if shared else nn.Sequential(*network[:-1], nn.Linear(32, 3))]
    expected = [attribute(network, inputs).relevance for network in networks]
    before = [state_of(network) for network in networks]
    start = threading.Barrier(4)

    def explain(number):
        start.wait()
        return [attribute(networks[number % 2], inputs).relevance for _ in range(10)]

    with ThreadPoolExecutor(4) as threads:
        for number, maps in enumerate(threads.map(explain, range(4))):
            for relevance in maps:
                assert_same_relevance(relevance, expected[number % 2])
    for network, state in zip(networks, before, strict=True):
        assert_same_state(state, state_of(network))


class Precise(nn.Module):
    """A network that asks for less precision inside its forward."""

    def __init__(self, ask):
        super().__init__()
        self.network, self.ask = waveform_network().eval(), ask

    def forward(self, value):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.ask == "autocast"):
            match self.ask:
                case "half":
                    return self.network.half()(value.half()).float()
                case "to":
                    return self.network(value.to(torch.bfloat16))
                case "to_keyword":
                    return self.network(value.to(dtype=torch.float16))
                case "type":
                    return self.network(value.type(torch.bfloat16))
            return self.network(value)


@pytest.mark.parametrize("preset", ["epsilon_alpha2_beta1", "zennit_epsilon_plus"])
@pytest.mark.parametrize("ask", ["autocast", "half", "to", "to_keyword", "type"])
def test_lower_precision_inside_the_forward_is_neutralised(ask, preset):
    expected = attribute(waveform_network(), random_input(), composite=preset)
    explanation = attribute(Precise(ask), random_input(), composite=preset)
    assert explanation.relevance.dtype == torch.float32
    assert torch.equal(explanation.output, expected.output)
    assert_same_relevance(explanation.relevance, expected.relevance)


def test_leaves_no_trace_after_an_exception_in_a_rule():
    inputs = random_input()
    network = trained_a_little(waveform_network(), inputs)
    before = state_of(network)
    with pytest.raises(ZeroDivisionError, match="raised in the backward"):
        attribute(network, inputs, composite=for_all_layers(FailingRule()))
    assert_same_state(before, state_of(network))


def test_leaves_no_trace_when_rules_cannot_be_registered():
    inputs = random_input()
    network = trained_a_little(waveform_network(), inputs)
    before = state_of(network)

    class HalfRegistered(EpsilonPlus):
        def mapping(self, ctx, name, module):
            if isinstance(module, nn.Linear):
                raise ZeroDivisionError("raised while registering")
            return super().mapping(ctx, name, module)

    with pytest.raises(ZeroDivisionError, match="raised while registering"):
        attribute(network, inputs, composite=HalfRegistered())
    assert_same_state(before, state_of(network))


@pytest.mark.parametrize("requested", ["highest", "medium"])
def test_no_product_is_rounded_to_fewer_bits_than_float32_has(requested):
    """A user's "medium" lets matrix products use bfloat16 or TF32, and cuDNN's convolutions use TF32 by default."""
    seen = []

    class Watching(nn.Module):
        def forward(self, value):
            seen.extend([torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision])
            seen.extend([torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision])
            return value

    network = nn.Sequential(Watching(), *waveform_network())
    found = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(requested)
        before = state_of(network)
        attribute(network, random_input())
        assert_same_state(before, state_of(network))
    finally:
        torch.set_float32_matmul_precision(found)
    assert set(seen) == {"ieee"}


def test_restores_buffers_that_the_forward_changes_in_place():
    class Counting(nn.Module):
        def __init__(self, calls):
            super().__init__()
            self.register_buffer("calls", calls)

        def forward(self, value):
            self.calls += 1
            return value

    calls = torch.tensor(7)
    network = nn.Sequential(Counting(calls), Counting(calls), *waveform_network())
    before = state_of(network)
    with guarded(network):
        network(random_input())
        assert network[0].calls.item() == 9  # one buffer of two modules stays one
    assert_same_state(before, state_of(network))
    attribute(network, random_input())
    assert_same_state(before, state_of(network))


def test_restores_random_state_of_a_network_that_draws():
    class Noise(nn.Module):
        def forward(self, value):
            torch.rand(3)
            return value

    network = nn.Sequential(Noise(), *waveform_network())
    before = torch.get_rng_state()
    attribute(network, random_input())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("composite", ["epsilon_alpha2_beta1", *LIKE_ZENNIT_1])
def test_training_is_bit_identical_with_and_without(composite):
    def train(explain):
        network = waveform_network()
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        torch.manual_seed(2)  # dropout
        for _ in range(4):
            loss = nn.functional.cross_entropy(network(random_input()), torch.tensor([0, 1, 2, 3, 0]))
            loss.backward()
            if explain:
                attribute(network, random_input(), composite=LIKE_ZENNIT_1.get(composite, lambda: composite)())
            optimizer.step()
            optimizer.zero_grad()
        return network.state_dict()

    torch.testing.assert_close(train(explain=True), train(explain=False), rtol=0, atol=0)


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.random.fork_rng([]),
    ],
    ids=["inference_mode", "no_grad", "autocast", "none"],
)
@pytest.mark.parametrize("made_inside", [True, False])
def test_works_in_any_surroundings(surroundings, made_inside):
    network, target = waveform_network(), torch.tensor([3, 1, 0, 2, 1])
    expected = attribute(network, random_input(), target)
    outside = random_input()
    with surroundings():
        inputs, chosen = (random_input(), target.clone()) if made_inside else (outside, target)
        before = state_of(network)
        explanation = attribute(network, inputs, chosen, chunk_size=2)
        assert_same_state(before, state_of(network))
    assert_same_relevance(explanation.relevance, expected.relevance, 1e-5)
    for tensor in (explanation.relevance, explanation.output, explanation.target):
        assert not tensor.is_inference()
        assert not tensor.requires_grad


def test_parameters_made_in_inference_mode():
    with torch.inference_mode():
        network = waveform_network()
    assert network[0].weight.is_inference()
    explanation = attribute(network, random_input())
    assert_same_relevance(explanation.relevance, attribute(waveform_network(), random_input()).relevance)
    assert network[0].weight.is_inference()


def test_compiled_network():
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    expected = attribute(waveform_network(), random_input()).relevance
    network = waveform_network()
    compiled = torch.compile(network, backend=backend)
    compiled(random_input())
    count = len(compilations)
    assert_same_relevance(attribute(compiled, random_input()).relevance, expected)
    compiled(random_input())
    assert len(compilations) == count > 0  # explaining costs no compilation


def test_compiled_modules_inside_the_network():
    expected = attribute(waveform_network(), random_input()).relevance
    network = waveform_network()
    nested = nn.Sequential(torch.compile(network[:6], backend="eager"), network[6:])
    nested(random_input())
    assert_same_relevance(attribute(nested, random_input()).relevance, expected)
    in_place = waveform_network()
    in_place[0].compile(backend="eager")
    in_place(random_input())
    assert_same_relevance(attribute(in_place, random_input()).relevance, expected)


def test_data_parallel_network(tmp_path):
    expected = attribute(waveform_network(), random_input()).relevance
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(waveform_network())
        before = state_of(wrapped)
        assert_same_relevance(attribute(wrapped, random_input()).relevance, expected)
        assert_same_state(before, state_of(wrapped))
        both = torch.compile(wrapped, backend="eager")
        # The wrapper's own forward pass may wait for other processes, which explain nothing.
        wrapped.register_forward_pre_hook(lambda *_: pytest.fail("the wrapper was called"))
        for model in (wrapped, both):
            assert_same_relevance(attribute(model, random_input()).relevance, expected)
    finally:
        dist.destroy_process_group()


def test_guard_without_rules_only_switches_modes():
    network = waveform_network()
    with torch.inference_mode(), guarded(network) as inside:
        assert inside is network
        assert torch.is_grad_enabled()
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        shared = network[0].weight.data_ptr()
    assert network[0].weight.data_ptr() == shared  # no copy of float32 weights
    assert all(module.training for module in network.modules())


# --- networks that need care ---


class SharedReLU(nn.Module):
    """One ReLU object for all layers, as in many published networks: it has no state, so this is harmless."""

    def __init__(self, network):
        super().__init__()
        self.convolutions = nn.ModuleList([network[0], network[3]])
        self.pools = nn.ModuleList([network[2], network[5]])
        self.relu = nn.ReLU()
        self.dense = network[6:]

    def forward(self, value):
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            value = pool(self.relu(convolution(value)))
        return self.dense(value)


class FunctionalReLU(SharedReLU):
    def forward(self, value):
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            value = pool(torch.relu(convolution(value)))
        return self.dense(value)


@pytest.mark.parametrize("variant", [SharedReLU, FunctionalReLU])
@pytest.mark.parametrize("preset", ["epsilon", "epsilon_alpha2_beta1"])
def test_shared_and_functional_relu_are_the_same(variant, preset):
    expected = attribute(waveform_network(), random_input(), composite=preset).relevance
    relevance = attribute(variant(waveform_network()), random_input(), composite=preset).relevance
    assert_same_relevance(relevance, expected)


def batch_norm_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(32, 3)),
    )
    for _ in range(3):
        network(3 * random_input() + 1)
    return network


def with_affine(norm):
    """The same batch normalisation with explicit weights."""
    same = nn.BatchNorm1d(norm.num_features).double().eval()
    same.load_state_dict(norm.state_dict(), strict=False)
    return same


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_merged(bias, affine):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv1d(1, 4, 3, bias=bias), nn.BatchNorm1d(4, affine=affine), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(248, 3, bias=bias), nn.BatchNorm1d(3, affine=affine)),
    )
    if affine:
        nn.init.normal_(network[1].weight)
        nn.init.normal_(network[1].bias)
    for _ in range(3):
        network(3 * random_input() + 1)
    network.eval().double()
    merged = nn.Sequential(
        nn.utils.fusion.fuse_conv_bn_eval(network[0], with_affine(network[1])),
        *(network[2], network[3]),
        nn.utils.fusion.fuse_linear_bn_eval(network[4], with_affine(network[5])),
    )
    inputs, before = random_input().double(), state_of(network)
    explanation = attribute(network, inputs)
    assert_same_state(before, state_of(network))
    assert_same_relevance(explanation.relevance, attribute(merged, inputs).relevance, 1e-9)
    torch.testing.assert_close(explanation.output, network(inputs).detach(), rtol=1e-9, atol=1e-12)


def test_batch_norm_with_a_canonizer_of_zennit():
    network, inputs, target = batch_norm_network(), random_input(), torch.tensor([2, 1, 0, 0, 1])
    before = state_of(network)
    composite = EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])
    explanation = attribute(network, inputs, target, composite)
    assert_same_state(before, state_of(network))
    expected = zennit_relevance(network, inputs, target, EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]))
    assert_same_relevance(explanation.relevance, expected)


class Residual(nn.Module):
    def __init__(self, add):
        super().__init__()
        self.convolution, self.add, self.dense = nn.Conv1d(1, 1, 3, padding=1), add, nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(self.add(value, self.convolution(value)).flatten(1))


class StackedSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.sum = Sum()

    def forward(self, left, right):
        return self.sum(torch.stack([left, right], dim=-1))


def test_residual_sum_is_shared_out_like_zennits():
    network, inputs, target = Residual(StackedSum()).double(), random_input().double(), torch.tensor([2, 1, 0, 0, 1])
    stock_composite = LayerMapComposite([((nn.Conv1d, nn.Linear), Epsilon()), (Sum, Norm())])
    expected = zennit_relevance(network, inputs, target, stock_composite)
    explanation = attribute(network, inputs, target, "epsilon")
    assert_same_relevance(explanation.relevance, expected, 1e-9)
    assert explanation.conservation.error < 1e-12
    assert [account.layer for account in explanation.conservation.layers] == ["Conv1d", "Sum", "Linear"]


def test_residual_sum_with_a_rule():
    composite = LayerMapComposite([((nn.Conv1d, nn.Linear), Epsilon()), (Sum, Norm())])
    network = Residual(StackedSum())
    nn.init.zeros_(network.convolution.bias)
    nn.init.zeros_(network.dense.bias)
    explanation = attribute(network, random_input(), composite=composite)
    logit = explanation.output.gather(1, explanation.target[:, None])[:, 0]
    torch.testing.assert_close(explanation.relevance.flatten(1).sum(1), logit, rtol=1e-3, atol=1e-5)


# --- what counts is what a layer computes, not its type ---


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.dense = nn.Conv1d(1, 1, 3, padding=1), nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(self.convolution(self.convolution(value)).flatten(1))


def scaling_norm():
    norm = nn.BatchNorm1d(6)
    norm.running_var.fill_(2.0)
    return norm


class CalledInAnotherOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3)
        self.convolution, self.norm = nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)
        self.dense = nn.Linear(240, 3)

    def forward(self, value):
        return self.dense(self.convolution(self.norm(self.first(value))).flatten(1))


class BesideItsNorm(nn.Module):
    """Uses a convolution's output as it is, too."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.dense = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Linear(496, 3)

    def forward(self, value):
        value = self.convolution(value)
        return self.dense(torch.cat([value, self.norm(value)], dim=1).flatten(1))


class WithoutItsNorm(nn.Module):
    """Defines a normalisation that it never calls; the output is the layer's before it."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = nn.Linear(64, 3), nn.BatchNorm1d(3)

    def forward(self, value):
        return self.dense(value.flatten(1))


class NormOfTime(nn.Module):
    """Normalises the four steps of time, not the dense layer's four outputs."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm, self.last = nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(16, 3)

    def forward(self, value):
        return self.last(self.norm(self.dense(value.reshape(-1, 4, 16))).flatten(1))


class NormOfAnotherWidth(nn.Module):
    """Defines behind a convolution a normalisation that is not for its channels."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.dense = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(248), nn.Linear(248, 3)
        self.norm.running_var.fill_(2.0)

    def forward(self, value):
        return self.dense(self.norm(self.convolution(value).flatten(1)))


class FunctionalBeforeNorm(nn.Module):
    """Calls a function between a convolution and the normalisation that is defined behind it."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.dense = nn.Conv1d(1, 4, 3), trained_norm(4), nn.Linear(248, 3)

    def forward(self, value):
        return self.dense(self.norm(torch.relu(self.convolution(value))).flatten(1))


class BeforeADropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.dropout, self.dense = nn.Conv1d(1, 4, 3), nn.Dropout(), nn.Linear(4, 3)

    def forward(self, value):
        return self.dense(self.dropout(self.convolution(value).relu().mean(-1)))


class Adding(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, value):
        return value + self.activation(value)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def trained_norm(channels):
    norm = nn.BatchNorm1d(channels)
    generator = torch.Generator().manual_seed(5)
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 1.5, generator=generator)
    return norm


def fake_quantised(layer):
    """As in quantisation-aware training: the weights are rounded anew in each forward."""
    layer.qconfig = torch.ao.quantization.QConfig(
        activation=torch.ao.quantization.NoopObserver, weight=torch.ao.quantization.default_weight_fake_quant
    )
    return torch.ao.nn.qat.Conv1d.from_float(layer)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, value):
        return self.function(value)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, value):
        return self.attention(value, value, value)[0][:, 0]


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(input=value.flatten(1))


def with_parametrized(parametrize):
    network = waveform_network()
    parametrize(network[3])
    return network


def inserted(module, index=4):
    network = waveform_network()
    network.insert(index, module)
    return network


class Sinc(nn.Conv1d):
    """Filters made of cut-off frequencies; the inherited weights take no part."""

    def __init__(self):
        super().__init__(6, 8, 3, padding=1)
        self.cut = nn.Parameter(torch.rand(8, 6, 1) * 0.2 + 0.05)

    def forward(self, value):
        steps = torch.arange(-1, 2.0)
        return nn.functional.conv1d(value, 2 * self.cut * torch.sinc(2 * self.cut * steps), self.bias, padding=1)


class Standardised(nn.Conv1d):
    def forward(self, value):
        weight = (self.weight - self.weight.mean((1, 2), keepdim=True)) / self.weight.std((1, 2), keepdim=True)
        return self._conv_forward(value, weight, self.bias)


class Masked(nn.Linear):
    def forward(self, value):
        return nn.functional.linear(value, self.weight * (torch.arange(self.in_features) % 3 > 0), self.bias)


class Causal(nn.Conv1d):
    def forward(self, value):
        return super().forward(nn.functional.pad(value, (2 * self.dilation[0], 0)))


class ReflectingCausal(nn.Conv1d):
    def forward(self, value):
        return super().forward(nn.functional.pad(value, (2, 0), mode="reflect"))


class LowRank(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(4, inputs)), nn.Parameter(torch.randn(outputs, 4))

    def forward(self, value):
        return super().forward(value) + nn.functional.linear(nn.functional.linear(value, self.down), self.up)


class Merged(LowRank):
    """The same with the weights added, as after training."""

    def forward(self, value):
        return nn.functional.linear(value, self.weight + self.up @ self.down, self.bias)


class TwoLinear(nn.Linear):
    def forward(self, value):
        return super().forward(super().forward(value))


class ShiftedReLU(nn.ReLU):
    """A subclass of ReLU whose outputs may be negative: no term of the layer before may be left out."""

    def forward(self, value):
        return super().forward(value) - 0.5 * torch.relu(-value)


def replaced(index, module):
    torch.manual_seed(2)
    network = waveform_network()
    network[index] = module() if isinstance(module, type) else module
    return network


def monkeypatched():
    network = waveform_network()
    forward = network[3].forward
    network[3].forward = lambda value: forward(nn.functional.pad(value, (3, 0))[..., :-3])
    return network


def with_hook(kind, hook, index=3):
    network = waveform_network()
    getattr(network[index], f"register_{kind}")(hook)
    return network


def padded(mode, **options):
    return lambda: replaced(3, nn.Conv1d(6, 8, 5, padding=2, padding_mode=mode, **options))


def sync_batch_norm():
    return nn.SyncBatchNorm.convert_sync_batchnorm(inserted(scaling_norm(), 1))


EXPLAINED = {
    "plain": waveform_network,
    "reused": Reused,
    "twice_in_its_forward": lambda: replaced(8, nn.Sequential(nn.Linear(128, 16), TwoLinear(16, 16))),
    "input_by_keyword": ByKeyword,
    "weight_norm": lambda: with_parametrized(parametrizations.weight_norm),
    "old_weight_norm": lambda: with_parametrized(nn.utils.weight_norm),
    "spectral_norm": lambda: with_parametrized(parametrizations.spectral_norm),
    "orthogonal": lambda: with_parametrized(parametrizations.orthogonal),
    "pruned": lambda: with_parametrized(lambda layer: prune.random_unstructured(layer, "weight", 0.5)),
    "sinc": lambda: replaced(3, Sinc),
    "standardised": lambda: replaced(3, Standardised(6, 8, 3, padding=1)),
    "masked": lambda: replaced(8, Masked(128, 16)),
    "causal": lambda: replaced(3, Causal(6, 8, 3)),
    "causal_dilated": lambda: replaced(3, Causal(6, 8, 3, dilation=4)),
    "causal_first": lambda: replaced(0, Causal(1, 6, 3)),
    "reflecting_causal": lambda: replaced(3, ReflectingCausal(6, 8, 3)),
    "low_rank_merged": lambda: replaced(8, Merged(128, 16)),
    "fake_quantised": lambda: replaced(3, fake_quantised(nn.Conv1d(6, 8, 3, padding=1))),
    "monkeypatched": monkeypatched,
    "circular": padded("circular"),
    "circular_strided": padded("circular", stride=1, dilation=1, groups=2),
    "replicate": padded("replicate"),
    "batch_norm_first": lambda: inserted(trained_norm(1), 0),
    "batch_norm_after_convolution": lambda: inserted(trained_norm(8), 4),
    "batch_norm_after_relu": lambda: inserted(scaling_norm(), 2),
    "batch_norm_after_pooling": lambda: inserted(scaling_norm(), 3),
    "batch_norm_twice": lambda: inserted(nn.Sequential(trained_norm(8), trained_norm(8)), 4),
    "batch_norm_without_affine": lambda: inserted(nn.BatchNorm1d(8, affine=False), 4),
    "batch_norm_after_dense": lambda: inserted(trained_norm(16), 9),
    "sync_batch_norm": sync_batch_norm,
    "batch_norm_called_elsewhere": CalledInAnotherOrder,
    "batch_norm_beside_its_input": BesideItsNorm,
    "batch_norm_of_another_width": NormOfAnotherWidth,
    "batch_norm_never_called": WithoutItsNorm,
    "batch_norm_of_another_axis": NormOfTime,
    "functional_relu_before_batch_norm": FunctionalBeforeNorm,
    "hook_that_looks": lambda: with_hook("forward_hook", lambda *_: None),
    "backward_hook": lambda: with_hook("full_backward_hook", lambda _, lower, upper: (3 * lower[0],)),
    "backward_pre_hook": lambda: with_hook("full_backward_pre_hook", lambda _, upper: (3 * upper[0],)),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm announces its own end
@pytest.mark.parametrize("case", EXPLAINED)
def test_lrp0_is_gradient_times_input(case):
    """Of networks that are piecewise linear, whatever their layers are called."""
    torch.manual_seed(3)
    network, inputs = EXPLAINED[case]().double().eval(), random_input().double()
    before = state_of(network)
    explanation = attribute(network, inputs, composite="lrp0")
    assert_same_state(before, state_of(network))
    value = inputs.clone().requires_grad_()
    plain = copy.deepcopy(network) if case.startswith("backward") else network
    for module in plain.modules():
        module._backward_hooks.clear() if plain is not network else None
        module._backward_pre_hooks.clear() if plain is not network else None
    output = plain(value)
    (gradient,) = torch.autograd.grad(output.gather(1, explanation.target[:, None]).sum(), value)
    assert_same_relevance(explanation.relevance, (value * gradient).detach(), 1e-9)
    assert torch.equal(explanation.output, output)
    ledger = attribute(network, inputs).conservation
    assert ledger.complete
    assert ledger.error < 1e-9


@pytest.mark.parametrize("preset", ["epsilon_plus", "epsilon_alpha2_beta1"])
def test_a_subclass_is_explained_like_the_layer_that_it_amounts_to(preset):
    padded_first = waveform_network()
    padded_first[3] = nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(6, 8, 3))
    causal = waveform_network()
    causal[3] = Causal(6, 8, 3)
    causal[3].load_state_dict(padded_first[3][1].state_dict())
    expected = attribute(padded_first, random_input(), composite=preset)
    explanation = attribute(causal, random_input(), composite=preset)
    assert_same_relevance(explanation.relevance, expected.relevance)
    assert [account.rule for account in explanation.conservation.layers] == [
        account.rule for account in expected.conservation.layers
    ]


def test_negative_outputs_of_a_subclass_of_relu_count():
    """Zennit's rules leave nothing out, and pass relevance through its activation."""
    network = waveform_network().double()
    network[1] = ShiftedReLU()
    inputs, target = random_input().double(), torch.tensor([3, 1, 0, 2, 1])
    composite = LayerMapComposite([((nn.Conv1d, nn.Linear), stock.Gamma()), (Activation, Pass())])
    expected = zennit_relevance(network, inputs, target, composite)
    explanation = attribute(network, inputs, target, RuleMap({"Convolution": Gamma(), "Linear": Gamma()}))
    assert_same_relevance(explanation.relevance, expected, 1e-9)


def test_batch_norm_elsewhere_is_an_affine_layer_under_epsilon():
    """Written out: each value x of channel c gets s_c x / (s_c x + t_c) of its output's relevance."""
    norm = trained_norm(1).double()
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 3)).double()
    inputs, target = random_input().double(), torch.tensor([2, 1, 0, 0, 1])
    found = attribute(network, inputs, target, "epsilon").relevance
    x = inputs.flatten(1).numpy()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).item()
    z = scale * (x - norm.running_mean.item()) + norm.bias.item()
    weight, bias = network[2].weight.detach().numpy()[target], network[2].bias.detach().numpy()[target]
    logit = (z * weight).sum(axis=1) + bias
    upper = z * weight * (logit / (logit + 1e-6 * np.where(logit >= 0, 1, -1)))[:, None]
    expected = scale * x / (z + 1e-6 * np.where(z >= 0, 1, -1)) * upper
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_each_call_of_a_layer_has_its_account():
    ledger = attribute(Reused(), random_input(), composite="epsilon").conservation
    assert [account.name for account in ledger.layers] == ["convolution", "convolution (call 2)", "dense"]


@pytest.mark.parametrize("number", [40, 2000])
def test_splits_and_concatenations_in_a_row_cost_no_more_than_their_number(number):
    """Walks over all ways through this graph would never end, and recursion would be too deep."""

    class Shuffling(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.dense = nn.Conv1d(1, 4, 3, padding=1), nn.Linear(256, 3)

        def forward(self, value):
            value = self.convolution(value)
            for _ in range(number):
                value = torch.cat([value[:, :2], value[:, 2:]], dim=1)
            return self.dense(torch.relu(value).flatten(1))

    plain = Shuffling()
    explanation = attribute(plain, random_input(batch=1))
    number = 0
    assert_same_relevance(explanation.relevance, attribute(plain, random_input(batch=1)).relevance)


# --- what it refuses ---


class Snake(nn.Module):
    def forward(self, value):
        return value + value.sin() ** 2


class MixingReLU(nn.ReLU):
    def forward(self, value):
        return super().forward(value - value.mean(1, keepdim=True))


class ConditionalConvolution(nn.Conv1d):
    """Its weights depend on the input."""

    def forward(self, value):
        return self._conv_forward(value, self.weight * value[0, 0, 0], self.bias)


class UnderNoGrad(nn.Module):
    """Hides from autograd what it does."""

    def forward(self, value):
        with torch.no_grad():
            value.mul_(2)
        return value


class BatchMean(nn.AvgPool1d):
    def forward(self, value):
        return super().forward(value).mean(0, keepdim=True).expand(len(value), -1, -1)


REFUSED = {
    "low_rank": (lambda: replaced(8, LowRank(128, 16)), "module '8' \\(LowRank\\) \\(operation Add\\)"),
    "input_hook": (
        lambda: with_hook("forward_pre_hook", lambda _, args: (2 * args[0],)),
        "module '3' \\(Conv1d\\) \\(operation Mul\\): its forward or a hook does more",
    ),
    "output_hook": (
        lambda: with_hook("forward_hook", lambda *args: 2 * args[2]),
        "module '3' \\(Conv1d\\) \\(operation Mul\\)",
    ),
    "hook_of_an_activation": (
        lambda: with_hook("forward_hook", lambda *args: args[2].mean(1, keepdim=True).expand_as(args[2]), 1),
        "module '1' \\(ReLU\\) \\(operation Mean\\)",
    ),
    "conditional_weights": (
        lambda: replaced(3, ConditionalConvolution(6, 8, 3, padding=1)),
        "module '3' \\(ConditionalConvolution\\) .*its weights depend on the network's input",
    ),
    "mixing_activation": (lambda: replaced(1, MixingReLU), "module '1' \\(MixingReLU\\): it is not elementwise"),
    "in_place_under_no_grad": (
        lambda: inserted(UnderNoGrad(), 1),
        "module '1' \\(UnderNoGrad\\) was changed in place under no_grad",
    ),
    "averages_the_batch": (lambda: replaced(5, BatchMean(2)), "module '5' \\(BatchMean\\): mean mixes the samples"),
    "in_place_on_a_view": (
        lambda: inserted(Function(lambda value: (value[:, :2].mul_(3), value)[1])),
        "module '4' \\(Function\\) \\(operation CopySlices\\)",
    ),
    "gradient_reversal": (lambda: inserted(Function(Reversed.apply)), "module '4' .*operation Reversed"),
    "transposed_convolution": (
        lambda: inserted(nn.ConvTranspose1d(8, 8, 3, padding=1), 4),
        "module '4' \\(ConvTranspose1d\\) \\(operation Convolution\\).*RuleMap\\(names=\\{'4'",
    ),
    "function_of_a_block": (
        lambda: replaced(4, nn.Sequential(nn.ReLU(), Residual(torch.add))[:1].append(Adding())),
        "a function in the forward of module '4.1' \\(Adding\\) \\(operation Add\\)",
    ),
    "function_before_a_module": (
        BeforeADropout,
        "a function in the network's forward \\(operation Mean\\)",
    ),
    "batch_statistics": (
        lambda: inserted(nn.BatchNorm1d(6, track_running_stats=False), 1),
        "module '1' \\(BatchNorm1d\\): it normalises by the statistics of the batch",
    ),
    "layer_norm": (lambda: inserted(nn.LayerNorm(32)), "module '4' \\(LayerNorm\\)"),
    "instance_norm": (lambda: inserted(nn.InstanceNorm1d(8)), "module '4' \\(InstanceNorm1d\\)"),
    "local_response_norm": (lambda: inserted(nn.LocalResponseNorm(3)), "module '4' \\(LocalResponseNorm\\)"),
    "softmax": (lambda: inserted(nn.Softmax(dim=1), 11), "module '11' \\(Softmax\\).*LRP explains logits"),
    "log_softmax": (lambda: inserted(nn.LogSoftmax(dim=1), 11), "LRP explains logits"),
    "softmax_function": (lambda: inserted(Function(lambda value: value.softmax(1)), 11), "LRP explains logits"),
    "scaling": (lambda: inserted(Function(lambda value: 2 * value)), "module '4' \\(Function\\) \\(operation Mul\\)"),
    "mean": (
        lambda: inserted(Function(lambda value: value.mean(2, keepdim=True).expand(-1, -1, 32))),
        "operation Mean",
    ),
    "convolution_function": (
        lambda: inserted(Function(lambda value: nn.functional.conv1d(value, torch.ones(8, 8, 1)))),
        "operation Convolution",
    ),
    "sum_function": (lambda: Residual(torch.add), "a function in the network's forward \\(operation Add\\)"),
    "softmax_in_between": (lambda: inserted(nn.Softmax(dim=1)), "module '4' \\(Softmax\\).*replace it by a layer"),
    "attention": (Attention, "module 'attention' \\(MultiheadAttention\\): it is not elementwise"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm announces its own end
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("preset", ["epsilon_alpha2_beta1", "epsilon"])
def test_refuses_networks_it_would_explain_wrongly(case, preset):
    build, message = REFUSED[case]
    network = build()
    inputs = random_input()
    before = state_of(network)
    with pytest.raises(UserError, match=message):
        attribute(network, inputs, composite=preset)
    assert_same_state(before, state_of(network))


def test_refuses_layers_that_the_composite_leaves_out():
    with pytest.raises(UserError, match="no rule of LayerMapComposite covers module '3' \\(Conv1d\\)"):
        attribute(
            waveform_network(),
            random_input(),
            composite=LayerMapComposite([(nn.Linear, Epsilon())]),
        )


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


# --- rules of zennit's, which trust a layer's forward and parameters ---

STOCK_REFUSES = {
    "sinc": lambda: replaced(3, Sinc),
    "standardised": lambda: replaced(3, Standardised(6, 8, 3, padding=1)),
    "low_rank": lambda: replaced(8, LowRank(128, 16)),
    "input_hook": lambda: with_hook("forward_pre_hook", lambda _, args: (2 * args[0],)),
    "output_hook": lambda: with_hook("forward_hook", lambda *args: 2 * args[2]),
    "weight_norm": lambda: with_parametrized(parametrizations.weight_norm),
}
STOCK_EXPLAINS = {
    "causal": lambda: replaced(3, Causal(6, 8, 3)),
    "masked": lambda: replaced(8, Masked(128, 16)),
    "hook_that_looks": lambda: with_hook("forward_hook", lambda *_: None),
}


@pytest.mark.parametrize("case", STOCK_REFUSES)
def test_zennits_rules_are_refused_where_they_would_be_wrong(case):
    with pytest.raises(UserError, match=r"module '[38]' .* return something else than its weights and bias say"):
        attribute(STOCK_REFUSES[case](), random_input(), composite="zennit_epsilon_plus")
    if case != "low_rank" and "hook" not in case:  # the advice is true
        attribute(STOCK_REFUSES[case](), random_input(), composite="epsilon_plus")


@pytest.mark.parametrize("case", STOCK_EXPLAINS)
def test_zennits_rules_are_kept_where_they_are_right(case):
    network, inputs, target = STOCK_EXPLAINS[case](), random_input(), torch.tensor([3, 1, 0, 2, 1])
    found = attribute(network, inputs, target, "zennit_epsilon_plus")
    assert_same_relevance(found.relevance, attribute(network, inputs, target, "epsilon_plus").relevance, 1e-5)
    assert not found.conservation.complete


def test_the_advice_for_batch_norm_under_zennits_rules_is_true():
    network, inputs = inserted(trained_norm(8), 4), random_input()
    with pytest.raises(UserError, match=r"SequentialMergeBatchNorm .* presets of audio_lrp, such as epsilon_plus"):
        attribute(network, inputs, composite="zennit_epsilon_plus")
    attribute(network, inputs, composite=EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]))
    attribute(network, inputs, composite="epsilon_plus")
    attribute(network, inputs, composite=RuleMap({"Convolution": ZPlus(), "Linear": ZPlus(), "BatchNorm": Epsilon()}))


@pytest.mark.parametrize("make", [CalledInAnotherOrder, BesideItsNorm, WithoutItsNorm])
def test_canonizers_that_change_the_network_are_refused(make):
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.load_state_dict(trained_norm(module.num_features).state_dict())
    with pytest.raises(UserError, match=r"canonizers of EpsilonPlus change the network's logits|covers module 'norm'"):
        attribute(network, random_input(), composite=EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]))


class Thirds(Hook):
    """A rule of the user's own, for any module: a third of the relevance for each of three inputs."""

    def backward(self, module, grad_input, grad_output):
        return tuple(torch.ones_like(value) * grad_output[0].sum() / 3 / value.numel() for value in grad_input)


def test_the_advice_for_layers_without_a_rule_is_true():
    inputs = random_input()
    norm = RuleMap({"Convolution": ZPlus(), "Linear": ZPlus()}, names={"4": Epsilon()})
    assert attribute(inserted(nn.LayerNorm(32)), inputs, composite=norm).relevance.isfinite().all()
    assert attribute(inserted(nn.ConvTranspose1d(8, 8, 1)), inputs, composite=norm).relevance.isfinite().all()
    with_hook_of_its_own = RuleMap({"Linear": ZPlus()}, names={"attention": Thirds()})
    assert attribute(Attention(), inputs, composite=with_hook_of_its_own).relevance.isfinite().all()


# --- the ledger tells ---


class HiddenFactor(nn.Module):
    """Changes gradients, and so relevance, where the graph does not show it."""

    def forward(self, value):
        value = value.view_as(value)
        value.register_hook(lambda gradient: 3 * gradient)
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
    "no_logits": (lambda: (waveform_network()[:6], random_input()), "must return logits"),
    "cut_off": (lambda: (inserted(Function(torch.detach), 11), random_input()), "logits do not depend on its input"),
}


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


def test_refuses_empty_chunks():
    with pytest.raises(UserError, match="chunk_size is 0"):
        attribute(waveform_network(), random_input(), chunk_size=0)
