"""The metrics in any loop: batch by batch, in two processes, reset and drawn."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy
import torch
from torch import nn
from torch.multiprocessing import spawn
from torchmetrics import MetricCollection

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    Amplitude,
    Captum,
    Complexity,
    Faithfulness,
    Frames,
    MatchedNoise,
    MaxSensitivity,
    RandomOrder,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    Sparseness,
    all_scores,
    complexity,
    max_sensitivity,
    perturbation_curves,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    sparseness,
)
from audio_lrp.timefrequency.stft import STFT

matplotlib.use("Agg")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(40, 8), nn.Tanh(), nn.Linear(8, 3))


def examples(count=10):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 1, 40, generator=generator)
    return inputs, torch.arange(count) % 3, torch.randn(count, 1, 40, generator=generator)


def test_scores_of_batches_are_those_of_one_pass():
    inputs, target, relevance = examples()
    options = {"orders": ("morf", "lerf", "amplitude"), "unit": 3}
    metric = Faithfulness(**options)
    for part in (slice(0, 4), slice(4, 10)):
        metric.update(network(), inputs[part], target[part], relevance[part])
    curves = perturbation_curves(network(), inputs, target, relevance, **options)
    torch.testing.assert_close(metric.curves().outcomes, curves.outcomes, rtol=1e-5, atol=1e-6)
    expected = {name: values.mean() for name, values in all_scores(curves).items()}
    assert list(metric.compute()) == [
        *(f"{area}_{order}" for area in ("aopc", "aupc") for order in ("morf", "lerf", "amplitude")),
        *("srg", "comprehensiveness", "sufficiency"),
    ]
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-5, atol=1e-6)


def test_scores_are_those_that_orders_and_fractions_allow():
    inputs, target, relevance = examples()
    metric = Faithfulness(orders=["lerf", RandomOrder(2)], fractions=(0, 0.5, 1))
    metric.update(network(), inputs, target, relevance)
    assert list(metric.compute()) == ["aopc_lerf", "aopc_random", "aupc_lerf", "aupc_random"]


def test_options_reach_the_curves():
    signals = torch.randn(2, 1, 400, generator=torch.Generator().manual_seed(2))
    stft = STFT(400, torch.hann_window(40), 10)
    relevance = stft.spectrum(signals).abs()
    options = {"unit": Frames(4), "baseline": MatchedNoise(), "transform": stft, "seed": 5, "fractions": (0, 0.2, 1)}
    metric = Faithfulness(["morf", "random"], quantity="logit", chunk_size=3, **options)

    sizes = []

    def predict(values):
        sizes.append(len(values))
        return values[:, 0, :3]

    target = torch.tensor([0, 2])
    candidates = torch.rand(relevance.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    given = {"candidates": candidates, "index": torch.tensor([7, 3])}
    metric.update(predict, signals, target, relevance, **given)
    assert max(sizes) == 3
    curves = perturbation_curves(predict, signals, target, relevance, orders=["morf", "random"], **given, **options)
    assert torch.equal(metric.curves().outcomes, curves.outcomes)
    assert torch.equal(metric.compute()["aopc_random"], all_scores(curves, "logit")["aopc_random"].mean())


@pytest.mark.parametrize("quantity", ["probability", "logit", "accuracy"])
def test_a_single_output_has_scores(quantity):
    weight = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    inputs = examples()[0].double()
    contributions = inputs * weight
    fractions = (0, 0.25, 0.5, 1)
    metric = Faithfulness(["morf", "lerf"], fractions, quantity=quantity)
    metric.update(lambda x: x[:, 0] @ weight[:, None], inputs, torch.zeros(10, dtype=torch.long), contributions)

    areas = {}
    for order, sign in {"morf": -1, "lerf": 1}.items():
        falls = []
        for values in contributions[:, 0].numpy():
            logits = np.array([np.sort(sign * values)[round(40 * part) :].sum() * sign for part in fractions])
            answers = {"probability": 1 / (1 + np.exp(-logits)), "logit": logits, "accuracy": 1.0 * (logits > 0)}
            falls.append(scipy.integrate.trapezoid(answers[quantity][0] - answers[quantity], fractions))
        areas[order] = np.mean(falls)
    scores = metric.compute()
    assert {name: float(scores[f"aopc_{name}"]) for name in areas} == pytest.approx(areas, abs=1e-9)
    assert float(scores["srg"]) == pytest.approx(areas["morf"] - areas["lerf"], abs=1e-9)
    assert scores["srg"] > 0.1


def test_reset_forgets():
    inputs, target, relevance = examples()
    metric = Faithfulness(orders=["morf"], fractions=(0, 0.5, 1))
    metric.update(network(), inputs, target, relevance)
    first = metric.compute()
    metric.reset()
    with pytest.raises(UserError, match="Faithfulness has seen no examples"):
        metric.curves()
    metric.update(network(), inputs, target, relevance)
    assert metric.compute() == first
    metric.update(network(), -inputs, target, relevance)
    assert metric.compute() != first


def test_plot_draws_a_line_per_order():
    inputs, target, relevance = examples()
    metric = Faithfulness(orders=["morf", RandomOrder(3)], quantity="logit")
    metric.update(network(), inputs, target, relevance)
    figure, axes = metric.plot()
    curves = metric.curves()
    assert [line.get_label() for line in axes.get_lines()] == ["morf", "random"]
    for line, curve in zip(axes.get_lines(), curves.logit, strict=True):
        assert line.get_ydata().tolist() == curve.tolist()
    (band,) = axes.collections[1].get_paths()
    points = torch.stack([curves.fractions, curves.logit[1], curves.spread("random", "logit")], dim=1).tolist()
    for fraction, mean, spread in points:
        edges = band.vertices[band.vertices[:, 0] == fraction, 1]
        assert [edges.min(), edges.max()] == pytest.approx([mean - spread, mean + spread])
    assert metric.plot(ax=axes)[0] is figure
    matplotlib.pyplot.close(figure)


MASK = torch.arange(40) < 20


@pytest.mark.parametrize(
    ("metric", "function", "masked"),
    [
        (RelevanceMassAccuracy, relevance_mass_accuracy, True),
        (RelevanceRankAccuracy, relevance_rank_accuracy, True),
        (Sparseness, sparseness, False),
        (Complexity, complexity, False),
    ],
)
def test_means_over_batches(metric, function, masked):
    relevance = examples()[2]
    arguments = [MASK[None, None].expand(10, 1, 40)] if masked else []
    filled = metric()
    for part in (slice(0, 7), slice(7, 10)):
        filled.update(relevance[part], *(value[part] for value in arguments))
    expected = function(relevance, *arguments).mean()
    torch.testing.assert_close(filled.compute(), expected)
    nothing = torch.zeros(2, 1, 40, dtype=torch.bool)
    filled.update(nothing.float(), *(nothing for _ in arguments))  # have no score and are left out
    torch.testing.assert_close(filled.compute(), expected)
    figure, _ = filled.plot()
    matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("options", [{}, {"radius": 0.05, "num_samples": 2, "seed": 3}])
def test_max_sensitivity_over_batches(options):
    inputs, target, _ = examples()
    method, index = Captum("InputXGradient"), 100 + torch.arange(10)
    metric = MaxSensitivity(method, **options)
    for part in (slice(0, 4), slice(4, 10)):
        metric.update(network(), inputs[part], target[part], index[part])
    expected = max_sensitivity(method, network(), inputs, target, index=index, **options).mean()
    torch.testing.assert_close(metric.compute(), expected)


def test_metrics_form_a_collection():
    relevance = examples()[2]
    collection = MetricCollection([RelevanceMassAccuracy(), RelevanceRankAccuracy()])
    collection.update(relevance, MASK[None, None].expand(10, 1, 40))
    assert {name: value.item() for name, value in collection.compute().items()} == {
        "RelevanceMassAccuracy": pytest.approx(relevance_mass_accuracy(relevance, MASK[None, None]).mean().item()),
        "RelevanceRankAccuracy": pytest.approx(relevance_rank_accuracy(relevance, MASK[None, None]).mean().item()),
    }


def metrics_of(positions=range(7), at_once=7):
    """Metrics that have seen these of seven examples, so many at once."""
    inputs, target, relevance = examples(7)
    orders = ["morf", "lerf", "amplitude", RandomOrder(2)]
    curves = Faithfulness(orders, (0, 0.25, 0.5, 1), baseline=MatchedNoise())
    mass, sensitivity = RelevanceMassAccuracy(), MaxSensitivity(Amplitude(), num_samples=2)
    for begin in range(0, len(positions), at_once):
        part = torch.tensor(positions[begin : begin + at_once])
        curves.update(network(), inputs[part], target[part], relevance[part], index=100 + part)
        mass.update(relevance[part], MASK[None, None])
        sensitivity.update(network(), inputs[part], target[part], index=100 + part)
    return curves, mass, sensitivity


def results(metrics):
    curves, mass, sensitivity = metrics
    values = {**curves.compute(), "mass": mass.compute(), "sensitivity": sensitivity.compute()}
    return values, curves.curves().outcomes


def work(rank, folder, shares):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(results(metrics_of(shares[rank], at_once=2)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shares", [([0, 2, 4, 6], [1, 3, 5]), ([*range(7)], [])], ids=["uneven", "all and none"])
def test_two_processes_agree_with_one(tmp_path: Path, shares):
    spawn(work, (str(tmp_path), shares), nprocs=2)
    expected, outcomes = results(metrics_of())
    for rank in range(2):
        values, gathered = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(gathered, outcomes[:, :, shares[0] + shares[1]], rtol=1e-6, atol=1e-9)
