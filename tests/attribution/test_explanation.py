"""Targets, seeds, the ledger and the modified gradient of an explanation."""

from itertools import pairwise

import matplotlib.colors
import numpy as np
import pytest
import torch
from networks import random_input, waveform_network
from torch import nn

from audio_lrp.attribution import PRESETS, AlphaBeta, Epsilon, Flat, Gamma, RuleMap, WSquare, ZBox, ZPlus, attribute
from audio_lrp.attribution.conservation import Conservation, LayerAccount
from audio_lrp.errors import UserError
from audio_lrp.models import AudioNet
from audio_lrp.visualization.figures import conservation_chart, pixels

BATCH, CLASSES = 5, 4


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 8, 3), nn.MaxPool1d(2), nn.ReLU()),
        *(nn.AvgPool1d(3), nn.Flatten(), nn.Linear(40, 8), nn.Dropout(), nn.Linear(8, CLASSES)),
    )


def inputs(dtype=torch.float32):
    return torch.randn(BATCH, 1, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


# --- targets ---


@pytest.mark.parametrize("chunk_size", [2, 16])
@pytest.mark.parametrize("preset", PRESETS)
def test_all_classes_equal_a_loop_over_classes(preset, chunk_size):
    network, value = small_network().double(), inputs(torch.float64)
    explanation = attribute(network, value, "all", preset, chunk_size=chunk_size)
    assert explanation.relevance.shape == (BATCH, CLASSES, 1, 64)
    assert explanation.target.tolist() == [list(range(CLASSES))] * BATCH
    for index in range(CLASSES):
        single = attribute(network, value, torch.full((BATCH,), index), preset)
        torch.testing.assert_close(explanation.relevance[:, index], single.relevance, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(explanation.conservation.explained[:, index], single.conservation.explained)
        for every, one in zip(explanation.conservation.layers, single.conservation.layers, strict=True):
            torch.testing.assert_close(every.to_bias[:, index], one.to_bias, rtol=1e-6, atol=1e-9)
        if single.modified_gradient is not None:
            torch.testing.assert_close(explanation.modified_gradient[:, index], single.modified_gradient)


def test_weights_explain_a_sum_of_outputs():
    network, value = small_network().double(), inputs(torch.float64)
    every = attribute(network, value, "all").relevance
    weights = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(2)).double()
    explanation = attribute(network, value, weights, chunk_size=2)
    expected = (weights[:, :, None, None] * every).sum(dim=1)
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(explanation.target, weights)


@pytest.mark.parametrize("target", ["predicted", "all"])
def test_output_relevance_one_is_relevance_per_logit(target):
    network, value = small_network().double(), inputs(torch.float64)
    logit, one = (attribute(network, value, target, output_relevance=kind) for kind in ("logit", "one"))
    assert torch.equal(one.conservation.explained, torch.ones_like(logit.conservation.explained))
    scale = logit.conservation.explained[..., None, None]
    torch.testing.assert_close(one.relevance * scale, logit.relevance, rtol=1e-9, atol=1e-12)


def test_difference_explains_why_it_is_not_the_runner_up():
    network, value = small_network().double(), inputs(torch.float64)
    every = attribute(network, value, "all")
    order = every.output.argsort(dim=1, descending=True)
    rows = torch.arange(BATCH)
    explanation = attribute(network, value, output_relevance="difference")
    expected = every.relevance[rows, order[:, 0]] - every.relevance[rows, order[:, 1]]
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-9, atol=1e-12)
    # The rival of any other class is the largest logit.
    others = attribute(network, value, order[:, 3], output_relevance="difference")
    expected = every.relevance[rows, order[:, 3]] - every.relevance[rows, order[:, 0]]
    torch.testing.assert_close(others.relevance, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "output_relevance", "message"),
    [
        ("predicted", "two", "unknown output_relevance 'two'"),
        (torch.zeros(BATCH, 7), "logit", "target has 7 weights per sample but the network 4 outputs"),
        (torch.zeros(3, CLASSES), "logit", "pass output weights \\[5, number of classes\\]"),
        (torch.zeros(BATCH, CLASSES), "difference", "pass class indices, not weights"),
    ],
)
def test_refuses(target, output_relevance, message):
    with pytest.raises(UserError, match=message):
        attribute(small_network(), inputs(), target, output_relevance=output_relevance)


def test_a_single_output_has_no_runner_up():
    network = nn.Sequential(nn.Flatten(), nn.Linear(inputs()[0].numel(), 1))
    with pytest.raises(UserError, match="the network has a single output"):
        attribute(network, inputs(), output_relevance="difference")


# --- relevance divided by input ---


@pytest.mark.parametrize("preset", ["epsilon", "epsilon_plus", "epsilon_alpha2_beta1"])
def test_modified_gradient_times_input_is_relevance(preset):
    value = inputs()
    value[:, :, 40:] = 0
    explanation = attribute(small_network(), value, composite=preset)
    torch.testing.assert_close(explanation.modified_gradient * value, explanation.relevance)
    assert not explanation.modified_gradient[:, :, 40:].any()


def test_modified_gradient_of_a_reshaped_input():
    value = torch.randn(1, 1, 8000)
    explanation = attribute(AudioNet(), value)  # which inserts an axis first
    torch.testing.assert_close(explanation.modified_gradient * value, explanation.relevance)


class Turned(nn.Module):
    def forward(self, value):
        return value.transpose(1, 2)


def test_no_modified_gradient_where_relevance_does_not_follow_the_input():
    assert attribute(small_network(), inputs(), composite="epsilon_alpha2_beta1_flat").modified_gradient is None
    assert attribute(small_network(), inputs(), composite="zennit_epsilon_plus").modified_gradient is None


MOVED_FIRST = {
    "turned": lambda: nn.Sequential(Turned(), nn.Flatten(), nn.Linear(64, CLASSES)),
    "pooled": lambda: nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(8, 2, 3), nn.Flatten(), nn.Linear(4, CLASSES)),
    "padded": lambda: nn.Sequential(nn.ReflectionPad1d(3), nn.Conv1d(8, 2, 3), nn.Flatten(), nn.Linear(24, CLASSES)),
    "forked": lambda: nn.Sequential(Forked(), nn.Flatten(), nn.Linear(128, CLASSES)),
}


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, value):
        return torch.cat([self.left(value), self.right(value.transpose(1, 2))], dim=1)


@pytest.mark.parametrize("target", ["predicted", "all"])
@pytest.mark.parametrize("case", MOVED_FIRST)
def test_modified_gradient_of_an_input_that_is_moved_first(case, target):
    torch.manual_seed(0)
    network, value = MOVED_FIRST[case]().double(), inputs().reshape(BATCH, 8, 8).double()
    value[:, 0, 0] = 0.0
    explanation = attribute(network, value, target)
    found, factor = explanation.modified_gradient, value[:, None] if target == "all" else value
    torch.testing.assert_close(found * factor, explanation.relevance, rtol=1e-9, atol=1e-12)
    assert (found[factor.expand_as(found) == 0] == 0).all()


# --- conservation ---


def trained_network():
    """A few steps are enough for biases that take relevance."""
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(inputs()), torch.tensor([0, 1, 2, 3, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("bias", ["absorb", "ignore"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_ledger_closes(preset, bias):
    network = trained_network()
    composite = preset if bias == "absorb" else RuleMap({"Convolution": ZPlus(bias=bias), "Linear": Epsilon(bias=bias)})
    conservation = attribute(network, inputs(), "all", composite).conservation
    assert conservation.error < 1e-4
    layers = conservation.layers
    assert [account.name for account in layers] == ["0", "3", "6", "8", "10"]
    assert [account.layer for account in layers] == ["Conv1d", "Conv1d", "AvgPool1d", "Linear", "Linear"]
    torch.testing.assert_close(layers[-1].upper, conservation.explained, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layers[0].lower, conservation.attributed, rtol=1e-4, atol=1e-4)
    for below, above in pairwise(layers):
        torch.testing.assert_close(above.lower, below.upper, rtol=1e-4, atol=1e-4)
    biases = torch.stack([account.to_bias for account in layers])
    assert bool(biases.any()) == (bias == "absorb")


def test_a_dense_layers_account_by_hand():
    network = nn.Sequential(nn.Linear(2, 1))
    network.load_state_dict({"0.weight": torch.tensor([[1.0, 2.0]]), "0.bias": torch.tensor([3.0])})
    conservation = attribute(
        network, torch.tensor([[1.0, 2.0]]), composite=RuleMap({"Linear": Epsilon(2.0)})
    ).conservation
    (account,) = conservation.layers
    amounts = [account.upper, account.lower, account.to_bias, account.to_stabilizer]
    assert [amount.item() for amount in amounts] == pytest.approx([8.0, 4.0, 2.4, 1.6])  # denominator 8 + 2
    assert conservation.kept == pytest.approx(0.5)
    assert conservation.rows()[0]["rule"] == "Epsilon"


def written_out_shares(rule, x, w, b):
    """Of one output what each share hands out: its fraction, contributions [inputs] and the bias's."""
    c = x * w
    plus, minus, z = np.maximum(c, 0), np.minimum(c, 0), c.sum() + b
    b = b if rule.bias == "absorb" else 0.0
    match rule:
        case ZPlus():
            return [(1, plus, max(b, 0))]
        case AlphaBeta():
            return [(rule.alpha, plus, max(b, 0)), (-rule.beta, minus, min(b, 0))]
        case Gamma():
            part, of_bias = (plus, max(b, 0)) if z >= 0 else (minus, min(b, 0))
            return [(1, c + rule.gamma * part, b + rule.gamma * of_bias)]
        case WSquare():
            return [(1, w**2, b**2)]
        case ZBox():
            return [(1, c - rule.low * np.maximum(w, 0) - rule.high * np.minimum(w, 0), 0.0)]
        case Flat():
            return [(1, np.ones_like(w), 0.0)]
    return [(1, c, b)]


@pytest.mark.parametrize("bias", ["absorb", "ignore"])
@pytest.mark.parametrize("stabilizer", [0.0, 0.1])
@pytest.mark.parametrize("kind", [Epsilon, ZPlus, AlphaBeta, Gamma, WSquare, ZBox, Flat])
def test_each_amount_of_an_account_is_the_written_out_one(kind, stabilizer, bias):
    """Not only their sum; the second sample is silent and some outputs are dead, so that denominators are zero."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(4, 6)).double()
    with torch.no_grad():
        network[0].weight[:2] = 0
        network[0].bias[0] = 0
    rule = kind(**{"epsilon" if kind is Epsilon else "stabilizer": stabilizer}, bias=bias)
    value = torch.stack([torch.rand(4).double(), torch.zeros(4).double(), torch.rand(4).double() - 0.5])
    upper = torch.randn(3, 6, dtype=torch.float64)
    (account,) = attribute(network, value, upper, RuleMap({"Linear": rule}), output_relevance="one").conservation.layers
    expected = np.zeros((3, 3))
    weight, bias_values = network[0].weight.detach().numpy(), network[0].bias.detach().numpy()
    for sample, (x, above) in enumerate(zip(value.numpy(), upper.numpy(), strict=True)):
        for w, b, relevance in zip(weight, bias_values, above, strict=True):
            for fraction, contributions, of_bias in written_out_shares(rule, x, w, b):
                p = contributions.sum() + of_bias
                added = stabilizer if p > 0 or (p == 0 and fraction > 0) else -stabilizer
                amounts = np.array([contributions.sum(), of_bias, added])
                empty = p + added == 0
                expected[sample] += fraction * relevance * (np.array([0, 0, 1]) if empty else amounts / (p + added))
    found = torch.stack([account.lower, account.to_bias, account.to_stabilizer], dim=1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(account.upper.numpy(), upper.sum(dim=1).numpy(), rtol=1e-12)


def test_lrp0_gives_the_stabilizer_what_zeros_would_hand_out():
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
    nn.init.zeros_(network[0].weight)
    with torch.no_grad():
        network[1].weight.fill_(1.0)
        network[1].bias.fill_(0.0)
    composite = RuleMap({"Linear": Flat()}, names={"0": Epsilon(0)})
    conservation = attribute(
        network, torch.ones(1, 2), torch.tensor([0]), composite, output_relevance="one"
    ).conservation
    assert conservation.layers[0].to_stabilizer.item() == pytest.approx(1.0)
    assert conservation.error < 1e-4


def test_a_gap_is_relative_to_the_accounts_largest_amount():
    upper, lower = torch.tensor([2e-3, -4.0, 1.0, 0.0]), torch.tensor([1e-3, -3.0, 5.0, 0.0])
    to_bias, to_stabilizer = torch.tensor([5e-4, 0.0, -4.0, 0.0]), torch.tensor([3e-4, -0.5, 1.0, 0.0])
    account = LayerAccount("0", "Linear", "Epsilon", upper, lower, to_bias, to_stabilizer)
    torch.testing.assert_close(account.gap, torch.tensor([0.1, 0.125, 0.2, 0.0]), rtol=1e-5, atol=0)
    assert Conservation(upper, lower, (account,)).error == pytest.approx(0.2, rel=1e-5)


def test_ledger_of_zennits_rules_has_only_the_ends():
    explanation = attribute(small_network(), inputs(), composite="zennit_epsilon_plus")
    conservation = explanation.conservation
    assert conservation.layers == ()
    kept = explanation.relevance.sum() / explanation.output.amax(dim=1).sum()
    assert conservation.kept == pytest.approx(kept.item(), rel=1e-5)


def test_the_ledger_as_table_and_picture():
    conservation = attribute(trained_network(), inputs()).conservation
    lines = conservation.table().splitlines()
    assert lines[0].split() == ["layer", "type", "rule", "upper", "lower", "to_bias", "to_stabilizer", "gap"]
    assert lines[1].split()[:3] == ["0", "Conv1d", "AlphaBeta"]
    assert len(lines) == 6
    figure = conservation_chart(conservation.rows(), "five layers")
    (axes,) = figure.axes
    heights = {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}
    assert heights["inputs"] == pytest.approx([row["lower"] for row in conservation.rows()])
    assert heights["biases"] == pytest.approx([row["to_bias"] for row in conservation.rows()])
    assert len({matplotlib.colors.to_hex(bars[0].get_facecolor()) for bars in axes.containers}) == 3
    assert pixels(figure).std() > 5


def test_an_explanation_holds_its_input_and_is_indexed_by_sample():
    network, inputs = waveform_network(), random_input()
    explanation = attribute(network, inputs, composite="epsilon")
    assert len(explanation) == len(inputs)
    assert torch.equal(explanation.input, inputs)
    alone = explanation[3]
    some = explanation[1:4]
    for whole, part, one in (
        (inputs, some.input, alone.input),
        (explanation.relevance, some.relevance, alone.relevance),
        (explanation.output, some.output, alone.output),
        (explanation.target, some.target, alone.target),
        (explanation.modified_gradient, some.modified_gradient, alone.modified_gradient),
    ):
        assert torch.equal(part, whole[1:4])
        assert torch.equal(one, whole[3])
    assert (
        attribute(network, inputs, composite=RuleMap(types={"Convolution": Flat(), "Linear": Epsilon()}))[
            0
        ].modified_gradient
        is None
    )
    with pytest.raises(IndexError):
        explanation[len(inputs)]
