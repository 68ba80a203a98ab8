"""Perturbation curves against a slow reference, one sample and one unit at a time, and against known curves."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import DEFAULT_FRACTIONS, ORDERS, Baseline, Frames, MatchedNoise, Order, perturbation_curves

FRACTIONS = (0.0, 0.03, 0.1, 0.25, 0.5, 0.9, 1.0)


class Recorder:
    """A small network that remembers every input it was given."""

    def __init__(self, size, classes=3):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(size, classes, generator=generator)
        self.seen = []

    def __call__(self, inputs):
        self.seen.append(inputs.clone())
        return torch.tanh(inputs.flatten(1)) @ self.weight


def setting(shape, batch=4, padding=True):
    """Input, target, relevance with ties, and candidates that leave out a stretch of padding per sample."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(batch, *shape, generator=generator).round(decimals=1)
    relevance = torch.randn(batch, *shape, generator=generator).round(decimals=1)
    candidates = torch.ones(batch, *shape, dtype=torch.bool)
    if padding:
        for sample in range(batch):
            candidates[sample, ..., : 2 * sample + 1] = False
    return inputs, torch.arange(batch) % 3, relevance, candidates


def units_of(shape, side):
    """Index tuples of each unit's values, without the channel axis, in reading order."""
    starts = [range(0, size, side) for size in shape]
    grid = [(start,) for start in starts[0]] if len(shape) == 1 else [(a, b) for a in starts[0] for b in starts[1]]
    return [tuple(slice(start, start + side) for start in corner) for corner in grid]


def reference_masks(scores, candidates, side, fractions):
    """What is removed of one sample [S, C, ...] when the highest score goes first."""
    units = units_of(scores.shape[1:], side)
    removable = [unit for unit in units if candidates[(slice(None), *unit)].any()]
    totals = [float((scores * candidates)[(slice(None), *unit)].astype(np.float64).sum()) for unit in removable]
    ranked = [unit for _, unit in sorted(zip(totals, removable, strict=True), key=lambda pair: -round(pair[0], 9))]
    masks = []
    for fraction in fractions:
        mask = np.zeros(scores.shape, dtype=bool)
        for unit in ranked[: int(np.rint(fraction * len(removable)))]:
            mask[(slice(None), *unit)] = True
        masks.append(mask & candidates)
    return masks


def reference_curves(predict, inputs, target, scores, candidates, side, baseline):
    """Accuracy, probability and logit [3, S] for an order given by its scores."""
    results = np.zeros((3, len(FRACTIONS), len(inputs)))
    for index, sample in enumerate(inputs.numpy()):
        masks = reference_masks(scores[index].numpy(), candidates[index].numpy(), side, FRACTIONS)
        for step, mask in enumerate(masks):
            perturbed = np.where(mask, np.float32(baseline), sample)
            logits = predict(torch.from_numpy(perturbed)[None])[0].numpy().astype(np.float64)
            chosen = int(target[index])
            if len(logits) == 1:
                results[:, step, index] = logits[0] > 0, 1 / (1 + np.exp(-logits[0])), logits[0]
                continue
            probabilities = np.exp(logits) / np.exp(logits).sum()
            results[:, step, index] = logits.argmax() == chosen, probabilities[chosen], logits[chosen]
    return results.mean(axis=2)


CASES = [((1, 40), 1), ((1, 40), 7), ((2, 33), 5), ((1, 9, 11), 1), ((1, 9, 11), 4), ((2, 6, 6), 3)]


@pytest.mark.parametrize(("shape", "side"), CASES)
@pytest.mark.parametrize("order", ["morf", "lerf", "amplitude"])
@pytest.mark.parametrize("baseline", [0.0, -0.5])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_equals_the_slow_reference(shape, side, order, baseline, classes):
    predict = Recorder(math.prod(shape), classes)
    inputs, target, relevance, candidates = setting(shape)
    target %= classes
    scores = {
        "morf": relevance,
        "lerf": -relevance,
        "amplitude": (inputs - baseline).abs(),
    }[order]
    expected = reference_curves(predict, inputs, target, scores, candidates, side, baseline)
    curves = perturbation_curves(
        *(predict, inputs, target, relevance),
        orders=[order],
        fractions=FRACTIONS,
        unit=side,
        baseline=baseline,
        candidates=candidates,
    )
    assert curves.fractions.tolist() == list(FRACTIONS)
    for curve, reference in zip((curves.accuracy, curves.probability, curves.logit), expected, strict=True):
        np.testing.assert_allclose(curve[0].numpy(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "side"), CASES)
def test_every_order_removes_the_same_number_of_candidate_units(shape, side):
    predict = Recorder(math.prod(shape))
    inputs, target, relevance, candidates = setting(shape, batch=3)
    inputs += 10  # nothing equals the baseline by chance
    perturbation_curves(
        *(predict, inputs, target, relevance),
        orders=ORDERS,
        fractions=FRACTIONS,
        unit=side,
        candidates=candidates,
        chunk_size=10**6,
    )
    (seen,) = predict.seen  # one pass
    assert len(seen) == 3 * (1 + len(ORDERS) * (len(FRACTIONS) - 1))
    assert torch.equal(seen[:3], inputs)  # the clean point, first and only once
    removed = (seen[3:] == 0).reshape(len(ORDERS), len(FRACTIONS) - 1, 3, *shape)
    assert not (removed & ~candidates).any()
    units = units_of(shape[1:], side)
    for sample in range(3):
        removable = [unit for unit in units if candidates[(sample, slice(None), *unit)].any()]
        for step, fraction in enumerate(FRACTIONS[1:]):
            for order in range(len(ORDERS)):
                gone = [unit for unit in removable if removed[(order, step, sample, slice(None), *unit)].any()]
                assert len(gone) == int(np.rint(fraction * len(removable)))
                whole = [candidates[(sample, slice(None), *unit)] for unit in gone]
                parts = [removed[(order, step, sample, slice(None), *unit)] for unit in gone]
                assert all(torch.equal(part, unit) for part, unit in zip(parts, whole, strict=True))
    assert torch.equal(removed[:, -1], candidates.expand_as(removed[:, -1]))  # all orders meet at 1
    nested = removed[:, :-1] & ~removed[:, 1:]
    assert not nested.any()  # what is gone stays gone


def test_linear_network_with_known_curve():
    """The logit of a bias-free linear network falls by exactly the contributions removed, greatest first."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    inputs = torch.randn(6, 1, 50, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    contributions = inputs[:, 0] * weight.T[target]
    curves = perturbation_curves(
        lambda values: values.flatten(1) @ weight, inputs, target, contributions[:, None], orders=("morf", "lerf")
    )
    total = contributions.sum(1)
    counts = [round(fraction * 50) for fraction in DEFAULT_FRACTIONS]
    for row, descending in enumerate([True, False]):
        ordered = contributions.sort(dim=1, descending=descending).values
        expected = [(total - ordered[:, :count].sum(1)).mean() for count in counts]
        torch.testing.assert_close(curves.logit[row], torch.stack(expected), rtol=1e-9, atol=1e-9)
    assert (curves.logit[0] <= curves.logit[1] + 1e-9).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_log_probabilities_do_as_well_as_logits(classes):
    predict = Recorder(40, classes)
    inputs, target, relevance, _ = setting((1, 40))
    target %= classes
    expected = perturbation_curves(predict, inputs, target, relevance)
    curves = perturbation_curves(lambda values: predict(values).log_softmax(dim=1), inputs, target, relevance)
    torch.testing.assert_close(curves.outcomes[:2], expected.outcomes[:2], rtol=1e-5, atol=1e-6)


def test_values_of_a_sigmoid_are_suspected_to_be_probabilities():
    predict = Recorder(40, 1)
    inputs, _, relevance, _ = setting((1, 40))
    target = torch.zeros(4, dtype=torch.long)
    with pytest.warns(UserWarning, match="from 0 to 1 alone: if they are probabilities, return their logits"):
        perturbation_curves(lambda values: predict(values).sigmoid(), inputs, target, relevance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perturbation_curves(predict, inputs, target, relevance)
        perturbation_curves(predict, 0 * inputs, target, relevance)  # all logits are 0


def test_ties_go_to_the_unit_that_comes_first():
    predict = Recorder(8)
    inputs = torch.ones(1, 1, 8)
    for order in ("morf", "lerf", "amplitude"):
        predict.seen.clear()
        perturbation_curves(
            predict, inputs, torch.tensor([0]), torch.zeros(1, 1, 8), orders=[order], fractions=(0, 0.5, 1)
        )
        assert torch.cat(predict.seen)[1, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("baseline", [0.0, -0.5])
def test_default_candidates_are_the_samples_that_are_not_silent(baseline):
    predict = Recorder(40)
    inputs, target, relevance, _ = setting((1, 40))
    inputs[:, :, 25:] = baseline
    relevance[:, :, 25:] = 100  # would go first
    given = {"orders": ORDERS, "fractions": FRACTIONS, "baseline": baseline}
    curves = perturbation_curves(predict, inputs, target, relevance, **given)
    explicit = perturbation_curves(predict, inputs, target, relevance, candidates=inputs != baseline, **given)
    assert torch.equal(curves.logit, explicit.logit)
    everything = torch.ones_like(inputs, dtype=torch.bool)
    diluted = perturbation_curves(predict, inputs, target, relevance, candidates=everything, **given)
    assert not torch.equal(curves.logit, diluted.logit)


def test_silent_sample_stays_as_it_is():
    predict = Recorder(40)
    curves = perturbation_curves(predict, torch.zeros(2, 1, 40), torch.tensor([0, 1]), torch.zeros(2, 1, 40))
    assert torch.equal(curves.logit, torch.zeros_like(curves.logit))
    torch.testing.assert_close(curves.probability, torch.full_like(curves.probability, 1 / 3))
    assert (curves.accuracy == 0.5).all()  # of equal logits the first is predicted


def test_default_orders():
    assert perturbation_curves(Recorder(40), *setting((1, 40))[:3]).orders == ("morf", "random", "amplitude")


def test_random_order_is_seeded_and_leaves_the_global_generator_alone():
    predict = Recorder(40)
    arguments = (predict, *setting((1, 40))[:3])
    before = torch.get_rng_state()
    first, again, other = (perturbation_curves(*arguments, orders=["random"], seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.logit, again.logit)
    assert not torch.equal(first.logit, other.logit)
    torch.manual_seed(99)
    assert torch.equal(first.logit, perturbation_curves(*arguments, orders=["random"], seed=7).logit)


@pytest.mark.parametrize(("order", "baseline"), [("random", 0.0), ("morf", MatchedNoise())])
def test_what_is_drawn_for_an_example_depends_on_its_index_alone(order, baseline):
    predict = Recorder(40)
    inputs, target, relevance, _ = setting((1, 40))
    index = torch.tensor([7, 3, 9, 1])
    whole, part = (
        perturbation_curves(
            *(predict, inputs[some], target[some], relevance[some]),
            orders=[order],
            baseline=baseline,
            index=index[some],
        )
        for some in (slice(None), slice(2, None))
    )
    torch.testing.assert_close(part.outcomes, whole.outcomes[:, :, 2:], rtol=1e-6, atol=1e-6)


def test_orders_and_baselines_draw_different_numbers():
    drawn = []

    class Drawing(Order):
        name = "drawing"

        def scores(self, removable, generators):
            drawn.append(torch.rand(3, generator=generators[0]))
            return removable.partition.sum(removable.relevance)

    class DrawingToo(Baseline):
        def reference(self, input, candidates, generators):  # noqa: A002
            drawn.append(torch.rand(3, generator=generators[0]))
            return torch.zeros_like(input)

    perturbation_curves(Recorder(40), *setting((1, 40))[:3], orders=[Drawing()], baseline=DrawingToo())
    assert not torch.equal(*drawn)


def test_orders_do_not_depend_on_each_other():
    predict = Recorder(40)
    arguments = (predict, *setting((1, 40))[:3])
    together = perturbation_curves(*arguments, orders=ORDERS, chunk_size=10**6)
    for index, order in enumerate(ORDERS):
        alone = perturbation_curves(*arguments, orders=[order], chunk_size=10**6)
        torch.testing.assert_close(alone.logit[0], together.logit[index], rtol=1e-6, atol=1e-6)
        assert torch.equal(alone.accuracy[0], together.accuracy[index])
    assert torch.equal(together.logit[:, 0], together.logit[:1, 0].expand(len(ORDERS)))  # the clean point
    torch.testing.assert_close(together.logit[:, -1], together.logit[:1, -1].expand(len(ORDERS)))  # all removed


@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_chunks_bound_the_batch_and_do_not_change_the_result(chunk_size):
    predict = Recorder(40)
    arguments = (predict, *setting((1, 40))[:3])
    expected = perturbation_curves(*arguments, chunk_size=10**6)
    predict.seen.clear()
    chunked = perturbation_curves(*arguments, chunk_size=chunk_size)
    assert max(len(seen) for seen in predict.seen) == chunk_size
    torch.testing.assert_close(chunked.logit, expected.logit, rtol=1e-5, atol=1e-6)


def dropout_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(152, 3))


def test_module_is_evaluated_in_eval_mode_and_left_as_it_was():
    network = dropout_network()
    inputs, target, relevance, _ = setting((1, 40))
    expected = perturbation_curves(dropout_network().eval().__call__, inputs, target, relevance)
    before = torch.get_rng_state()
    curves = perturbation_curves(network, inputs, target, relevance)
    compiled = torch.compile(network, backend="eager")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in network.modules())
    assert torch.equal(curves.logit, expected.logit)
    assert torch.equal(perturbation_curves(compiled, inputs, target, relevance).logit, expected.logit)


def test_network_of_double_precision_follows_the_same_curves():
    curves = perturbation_curves(dropout_network(), *setting((1, 40))[:3])
    double = perturbation_curves(dropout_network().double(), *setting((1, 40))[:3])
    torch.testing.assert_close(double.logit, curves.logit, rtol=1e-5, atol=1e-5)


def test_probabilities_are_in_double_precision():
    inputs, target, relevance, _ = setting((1, 40))
    logits = inputs.flatten(1)[:, :3].bfloat16()
    curves = perturbation_curves(lambda values: values.flatten(1)[:, :3].bfloat16(), inputs, target, relevance)
    expected = logits.double().softmax(dim=1)[torch.arange(4), target].mean()
    torch.testing.assert_close(curves.probability[0, 0], expected, rtol=1e-12, atol=0)


def test_random_state_survives_a_predict_that_draws():
    network = dropout_network()  # in train mode, called as a plain function
    before = torch.get_rng_state()
    perturbation_curves(network.__call__, *setting((1, 40))[:3])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "surroundings", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]
)
def test_works_in_any_surroundings(surroundings):
    network = dropout_network()
    expected = perturbation_curves(network, *setting((1, 40))[:3], orders=ORDERS)
    with surroundings():
        curves = perturbation_curves(network, *setting((1, 40))[:3], orders=ORDERS)
    assert torch.equal(curves.logit, expected.logit)


def test_predicts_without_recording_gradients():
    modes = []

    def predict(values):
        modes.append(torch.is_inference_mode_enabled())
        return values.flatten(1)[:, :3]

    perturbation_curves(predict, *setting((1, 40))[:3])
    assert modes
    assert all(modes)


# --- what it refuses ---


REFUSED = [
    ({"input": torch.zeros(2, 8)}, "input has shape \\[2, 8\\]"),
    ({"input": torch.zeros(0, 1, 8)}, "input has shape \\[0, 1, 8\\]"),
    ({"target": torch.zeros(2)}, "torch.float32"),
    ({"target": torch.zeros(3, dtype=torch.long)}, "target has shape \\[3\\]"),
    ({"target": torch.tensor([0, 3])}, "target 3 does not exist"),
    ({"target": "predicted"}, "pass a tensor"),
    ({"relevance": torch.zeros(2, 1, 9)}, "relevance has shape \\[2, 1, 9\\]"),
    ({"relevance": torch.full((2, 1, 8), float("nan"))}, "NaN"),
    ({"relevance": torch.full((2, 1, 8), math.inf)}, "infinity"),
    ({"candidates": torch.ones(2, 1, 8)}, "candidates has shape .* torch.float32"),
    ({"candidates": torch.ones(2, 8, dtype=torch.bool)}, "candidates has shape \\[2, 8\\]"),
    ({"orders": ["morf", "MoRF"]}, "choose from morf, lerf, random, amplitude"),
    ({"orders": ["morf", "morf"]}, "at most once"),
    ({"orders": []}, "choose from"),
    ({"fractions": [0.1, 0.2]}, "begin with 0"),
    ({"fractions": [0, 0.2, 0.2]}, "rise strictly"),
    ({"fractions": [0, 1.5]}, "at most 1"),
    ({"fractions": [0]}, "begin with 0"),
    ({"unit": 0}, "unit is 0"),
    ({"unit": Frames()}, "Frames divide spectrograms"),
    ({"chunk_size": 0}, "chunk_size is 0"),
    ({"predict": lambda values: values}, "predict returned shape \\[16, 1, 8\\]"),
    (
        {"predict": lambda values: values[:, 0, 0]},
        "shape \\[16\\]: .* logits \\[16, classes\\], of a single .* \\[16, 1\\]",
    ),
    ({"predict": lambda values: (values[:, 0], None)}, "predict returned tuple: it must return logits"),
    ({"predict": lambda values: values[:, 0, :1]}, "target 1 does not exist: the network has a single output, .* 0"),
    ({"predict": lambda values: values[:, 0, :3].softmax(dim=1)}, "probabilities, .*: return logits"),
    ({"predict": lambda values: values[:, 0, :3].softmax(dim=1).half()}, "probabilities, .*: return logits"),
    ({"predict": lambda values: values[:, 0, :3] / values[:, 0, 7:]}, "NaN or infinity, .* diverged"),
    ({"predict": lambda values: values[:, 0, :3] * math.nan}, "NaN or infinity, .* diverged"),
    ({"predict": lambda values: values[:, 0, :3].log()}, "NaN or infinity, .* diverged"),  # of what was removed
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refuses_wrong_arguments(changes, message):
    arguments = {
        "predict": lambda values: values.flatten(1)[:, :3],
        "input": torch.ones(2, 1, 8),
        "target": torch.tensor([0, 1]),
        "relevance": torch.ones(2, 1, 8),
        "fractions": (0, 0.25, 0.5, 0.75, 1),
    }
    with pytest.raises(UserError, match=message):
        perturbation_curves(**{**arguments, **changes})
