"""The guard of an attribution: nothing is changed for good, whatever surrounds it and whatever happens inside."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from networks import (
    NETWORKS,
    Function,
    assert_same_relevance,
    assert_same_state,
    batch_norm_network,
    random_input,
    state_of,
    waveform_network,
)
from torch import nn
from torch.overrides import BaseTorchFunctionMode, _len_torch_function_stack
from zennit.canonizers import Canonizer
from zennit.composites import EpsilonPlus, LayerMapComposite
from zennit.rules import Epsilon, Pass

from audio_lrp.attribution import PRESETS, RuleMap, ZPlus, attribute
from audio_lrp.attribution.guard import guarded
from audio_lrp.errors import UserError


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


def test_another_thread_runs_the_network_meanwhile():
    """As a server does that predicts and explains; the other thread's gradients are no relevance."""
    network, inputs = batch_norm_network().eval(), random_input()
    value = inputs.clone().requires_grad_()
    output = network(value)
    (gradient,) = torch.autograd.grad(output.sum(), value)
    expected = attribute(network, inputs).relevance
    finished = threading.Event()

    def run():
        found = []
        while not (finished.is_set() and found):
            output = network(value)
            found.append((output.detach(), *torch.autograd.grad(output.sum(), value)))
        return found

    with ThreadPoolExecutor(1) as threads:
        others = threads.submit(run)
        try:
            maps = [attribute(network, inputs).relevance for _ in range(30)]
        finally:
            finished.set()
        for found in others.result():
            torch.testing.assert_close(found, (output.detach(), gradient))
    for relevance in maps:
        assert_same_relevance(relevance, expected)


HALF = torch.zeros(1, dtype=torch.float16)


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
                case "type_by_name":
                    return self.network(value.type("torch.HalfTensor"))
                case "like_another":
                    return self.network(value.to(HALF))
            return self.network(value)


@pytest.mark.parametrize("preset", ["epsilon_alpha2_beta1", "zennit_epsilon_plus"])
@pytest.mark.parametrize("ask", ["autocast", "half", "to", "to_keyword", "type", "type_by_name", "like_another"])
def test_lower_precision_inside_the_forward_is_neutralised(ask, preset):
    expected = attribute(waveform_network(), random_input(), composite=preset)
    explanation = attribute(Precise(ask), random_input(), composite=preset)
    assert explanation.relevance.dtype == torch.float32
    assert torch.equal(explanation.output, expected.output)
    assert_same_relevance(explanation.relevance, expected.relevance)


@pytest.mark.parametrize("kind", ["hook", "pre_hook"])
def test_global_hooks_on_gradients_do_not_change_relevance(kind):
    calls = []

    def triple(_, *gradients):
        calls.append(gradients)
        return tuple(3 * gradient for gradient in gradients[0] if gradient is not None)

    network, inputs = waveform_network(), random_input().requires_grad_()
    expected = attribute(network, inputs).relevance
    handle = getattr(nn.modules.module, f"register_module_full_backward_{kind}")(triple)
    try:
        assert_same_relevance(attribute(network, inputs).relevance, expected)
        assert not calls
        network(inputs).sum().backward()
        assert calls  # they are there again
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
def test_refuses_to_explain_a_network_while_it_is_explained(kind):
    network, inputs = waveform_network(), random_input()
    handle = getattr(network[3], f"register_{kind}")(lambda *_: attribute(network, inputs, composite="lrp0") and None)
    before = state_of(network)
    with pytest.raises(UserError, match="is being explained already: attribute was called in its forward or in a hook"):
        attribute(network, inputs)
    assert_same_state(before, state_of(network))
    handle.remove()
    found = []
    network[3].register_forward_hook(lambda *_: found.append(attribute(waveform_network(), inputs).relevance))
    assert_same_relevance(attribute(network, inputs).relevance, found[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside threads
def test_a_process_forked_while_another_thread_explains_can_explain():
    network, inputs, finished = waveform_network(), random_input(), threading.Event()

    def explain():
        while not finished.is_set():
            attribute(network, inputs)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(explain)
        try:
            children = []
            for _ in range(3):
                if (child := os.fork()) == 0:
                    signal.alarm(60)  # ends a child that waits for ever
                    torch.set_num_threads(1)  # others did not survive the fork, and OpenMP would wait for them
                    attribute(network, inputs)
                    os._exit(0)
                children.append(child)
            assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        finally:
            finished.set()


def interrupted(network):
    """By a signal between two steps: a hook is registered but not remembered, a mode entered but not left."""
    with guarded(network):
        network[3].register_forward_hook(lambda *_: pytest.fail("left behind"))
        BaseTorchFunctionMode().__enter__()
        raise KeyboardInterrupt


def test_an_interrupt_at_any_point_leaves_no_hook_and_no_mode():
    network = waveform_network()
    before = state_of(network)
    with pytest.raises(KeyboardInterrupt):
        interrupted(network)
    assert_same_state(before, state_of(network))
    assert _len_torch_function_stack() == 0
    network(random_input())


def spread():
    network = waveform_network()
    network[8].weight.full_tensor = lambda: None  # what tensors in pieces have
    return network


def test_refuses_weights_that_are_spread_over_processes():
    with pytest.raises(UserError, match=r"module '8' \(Linear\) .*: load its full"):
        attribute(spread(), random_input())


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
