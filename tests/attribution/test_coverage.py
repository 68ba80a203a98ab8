"""Networks that would be explained wrongly: refused by the name of the module or function, with advice that is true."""

import pytest
import torch
from networks import (
    Attention,
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
    inserted,
    random_input,
    replaced,
    state_of,
    trained_norm,
    waveform_network,
    with_hook,
    with_parametrized,
)
from torch import nn
from torch.nn.utils import parametrizations
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus, LayerMapComposite
from zennit.core import Hook
from zennit.rules import Epsilon

from audio_lrp.attribution import RuleMap, ZPlus, attribute
from audio_lrp.errors import UserError


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


def hidden_write(write):
    """Changes the output of a convolution by a function, where autograd does not look, and uses it in a function."""

    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.dense = nn.Conv1d(1, 4, 3), nn.Linear(248, 3)

        def forward(self, value):
            value = self.convolution(value)
            write(value)
            return self.dense(torch.relu(value).flatten(1))

    return Writing


@torch.no_grad()
def doubled(value):
    value[:, :2].mul_(2)


def replaced_data(value):
    value.data = 2 * value.data


HIDDEN_WRITES = {
    "view": doubled,
    "out": torch.no_grad()(lambda value: torch.clamp(value, min=0, out=value)),
    "data": lambda value: value.data.mul_(2),
    "replaced_data": replaced_data,
    "item": lambda value: value.detach().__setitem__(0, 1.0),
    "in_place_function": lambda value: nn.functional.relu(value.detach(), inplace=True),
}


class BatchMean(nn.AvgPool1d):
    def forward(self, value):
        return super().forward(value).mean(0, keepdim=True).expand(len(value), -1, -1)


REFUSED = {
    **{
        f"hidden_write_{name}": (hidden_write(write), "the network Writing changes values in place under no_grad")
        for name, write in HIDDEN_WRITES.items()
    },
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
        "module '1' \\(UnderNoGrad\\) changes values in place under no_grad",
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
    "attention": (Attention, "module 'attention' \\(MultiheadAttention\\)"),
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
