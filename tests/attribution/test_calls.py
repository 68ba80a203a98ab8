"""Layers by what they compute, not by their type: subclasses, hooks, reuse, parametrized weights, batch norm."""

import copy

import numpy as np
import pytest
import torch
import zennit.rules as stock
from networks import (
    BesideItsNorm,
    CalledInAnotherOrder,
    Causal,
    Function,
    LowRank,
    Masked,
    Residual,
    Sinc,
    Standardised,
    WithoutItsNorm,
    assert_same_relevance,
    assert_same_state,
    batch_norm_network,
    inserted,
    random_input,
    replaced,
    scaling_norm,
    state_of,
    trained_norm,
    waveform_network,
    with_affine,
    with_hook,
    with_parametrized,
    zennit_relevance,
)
from torch import nn
from torch.nn.utils import parametrizations, prune
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus, LayerMapComposite
from zennit.layer import Sum
from zennit.rules import Epsilon, Norm, Pass
from zennit.types import Activation

from audio_lrp.attribution import Gamma, RuleMap, attribute


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


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.dense = nn.Conv1d(1, 1, 3, padding=1), nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(self.convolution(self.convolution(value)).flatten(1))


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


def fake_quantised(layer):
    """As in quantisation-aware training: the weights are rounded anew in each forward."""
    layer.qconfig = torch.ao.quantization.QConfig(
        activation=torch.ao.quantization.NoopObserver, weight=torch.ao.quantization.default_weight_fake_quant
    )
    return torch.ao.nn.qat.Conv1d.from_float(layer)


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(input=value.flatten(1))


class ReflectingCausal(nn.Conv1d):
    def forward(self, value):
        return super().forward(nn.functional.pad(value, (2, 0), mode="reflect"))


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


class StepsOfTime(nn.Module):
    """Runs its layers on what it takes for samples: windows, or steps of time before the batch."""

    def __init__(self, before):
        super().__init__()
        self.dense, self.activation, self.last = nn.Linear(16, 5), nn.ReLU(), nn.Linear(20, 3)
        self.before = before

    def forward(self, value):
        value = value.reshape(-1, 4, 16)
        value = value.transpose(0, 1) if self.before else value.flatten(0, 1)
        value = self.activation(self.dense(value))
        value = value.transpose(0, 1) if self.before else value.unflatten(0, (-1, 4))
        return self.last(value.flatten(1))


class OfLayers(nn.Linear):
    """Its own weights take no part, its layers do."""

    def __init__(self):
        super().__init__(128, 16)
        self.down, self.up = nn.Linear(128, 4), nn.Linear(4, 16)

    def forward(self, value):
        return self.up(self.down(value))


class ActivationByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, value):
        return self.activation(input=value)


class HookOnGradients(nn.Module):
    """As is done for Grad-CAM."""

    def forward(self, value):
        value = value.view_as(value)
        if self.training or value.requires_grad:
            value.register_hook(lambda gradient: setattr(self, "gradient", gradient))
        return value


def monkeypatched():
    network = waveform_network()
    forward = network[3].forward
    network[3].forward = lambda value: forward(nn.functional.pad(value, (3, 0))[..., :-3])
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
    "windows_as_samples": lambda: StepsOfTime(before=False),
    "steps_before_samples": lambda: StepsOfTime(before=True),
    "dense_layer_of_layers": lambda: replaced(8, OfLayers),
    "activation_by_keyword": lambda: replaced(1, ActivationByKeyword),
    "hook_on_gradients": lambda: inserted(HookOnGradients()),
    "in_place_first": lambda: inserted(nn.ReLU(inplace=True), 0),
    "in_place_function_first": lambda: inserted(Function(torch.relu_), 0),
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
    output = plain(value.clone())  # which it may change in place
    (gradient,) = torch.autograd.grad(output.gather(1, explanation.target[:, None]).sum(), value)
    assert_same_relevance(explanation.relevance, (value * gradient).detach(), 1e-9)
    torch.testing.assert_close(explanation.output, output.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(explanation.input, inputs)
    assert torch.equal(inputs, random_input().double())
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


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("target", ["predicted", "all"])
def test_accounts_are_the_samples_own_whatever_layers_take_for_samples(before, target):
    network = StepsOfTime(before)
    together = attribute(network, random_input(), target).conservation
    for number, sample in enumerate(random_input()):
        alone = attribute(network, sample[None], target).conservation
        for account, expected in zip(together.layers, alone.layers, strict=True):
            torch.testing.assert_close(account.upper[number], expected.upper[0], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(account.to_bias[number], expected.to_bias[0], rtol=1e-4, atol=1e-6)


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
