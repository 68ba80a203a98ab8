"""Scores of perturbation curves against values worked out by hand, intervals against theory and SciPy."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from audio_lrp.errors import UserError
from audio_lrp.faithfulness import (
    DEFAULT_FRACTIONS,
    PerturbationCurves,
    all_scores,
    aopc,
    aupc,
    bootstrap,
    comprehensiveness,
    joined_curves,
    srg,
    sufficiency,
)


def curves_of(fractions, probability, orders=("morf", "lerf"), repetitions=(1, 1)):
    """Curves whose probability is given [K, B, S]; accuracy is probability over a half, the logit ten times it."""
    probability = torch.tensor(probability, dtype=torch.float64)
    outcomes = torch.stack([(probability > 0.5).double(), probability, 10 * probability])
    return PerturbationCurves(torch.tensor(fractions, dtype=torch.float64), orders, repetitions, outcomes)


def line(start, slope, fractions=DEFAULT_FRACTIONS):
    return [start + slope * fraction for fraction in fractions]


def test_default_fractions():
    assert DEFAULT_FRACTIONS[:11] == tuple(step / 100 for step in range(11))
    assert DEFAULT_FRACTIONS[-1] == 1.0
    assert list(DEFAULT_FRACTIONS) == sorted(set(DEFAULT_FRACTIONS))


def test_points_are_found_but_for_rounding():
    curves = curves_of(DEFAULT_FRACTIONS, [[line(1, -0.8)], [line(1, -0.8)]])
    assert curves.has(0.1 + 0.2)  # 0.30000000000000004
    assert not curves.has(0.301)


def test_aopc_is_the_mean_fall_over_the_fraction_removed():
    curves = curves_of([0, 0.1, 0.5], [[[0.9, 0.5, 0.1]], [[0.9, 0.9, 0.9]]])
    expected = (0.1 * (0 + 0.4) / 2 + 0.4 * (0.4 + 0.8) / 2) / 0.5
    assert aopc(curves, "morf").tolist() == pytest.approx([expected], rel=1e-12)
    assert aopc(curves, "lerf").tolist() == pytest.approx([0], abs=1e-15)
    assert aupc(curves, "morf").tolist() == pytest.approx([0.9 - expected], rel=1e-12)
    assert aopc(curves, "morf", "logit").tolist() == pytest.approx([10 * expected], rel=1e-12)
    with pytest.raises(UserError, match="no curve for order 'random': this run has morf, lerf"):
        aopc(curves, "random")


@pytest.mark.parametrize("fractions", [(0, 0.5, 1), DEFAULT_FRACTIONS])
def test_areas_do_not_depend_on_how_the_grid_is_spaced(fractions):
    curves = curves_of(fractions, [[line(1, -0.6, fractions)], [line(1, -0.1, fractions)]])
    assert aopc(curves, "morf").item() == pytest.approx(0.3, rel=1e-12)
    assert srg(curves).item() == pytest.approx(0.25, rel=1e-12)


def test_mean_of_areas_is_the_area_of_the_mean():
    generator = np.random.default_rng(0)
    curves = curves_of(DEFAULT_FRACTIONS, generator.random((2, 30, len(DEFAULT_FRACTIONS))))
    area = integrate.trapezoid(curves.probability[0].numpy(), DEFAULT_FRACTIONS)
    assert aupc(curves, "morf").mean().item() == pytest.approx(area, rel=1e-12)
    assert srg(curves).mean().item() == pytest.approx(
        area * -1 + integrate.trapezoid(curves.probability[1].numpy(), DEFAULT_FRACTIONS), rel=1e-12
    )


def test_comprehensiveness_and_sufficiency():
    """A straight fall by 0.8 without the best part f loses 0.8 f; with only that part left, 0.8 (1 - f) of LeRF."""
    curves = curves_of(DEFAULT_FRACTIONS, [[line(1, -0.8), line(1, -0.4)], [line(1, -0.8), line(1, 0)]])
    mean_size = np.mean([0.01, 0.05, 0.1, 0.2, 0.5])
    np.testing.assert_allclose(comprehensiveness(curves).numpy(), [0.8 * mean_size, 0.4 * mean_size], rtol=1e-12)
    np.testing.assert_allclose(sufficiency(curves).numpy(), [0.8 * (1 - mean_size), 0], rtol=1e-12, atol=1e-15)
    assert comprehensiveness(curves, [0.5]).tolist() == pytest.approx([0.4, 0.2], rel=1e-12)
    with pytest.raises(UserError, match=r"no point of the curves has 0\.37 removed: this run has 0, 0\.01"):
        comprehensiveness(curves, [0.37])


def test_all_scores_are_of_the_quantity_asked_for():
    curves = curves_of(DEFAULT_FRACTIONS, [[line(1, -0.8), line(1, -0.4)], [line(1, -0.8), line(1, -0.2)]])
    of_probability = all_scores(curves)
    assert {"aopc_morf", "aupc_lerf", "srg", "comprehensiveness", "sufficiency"} <= of_probability.keys()
    for name, values in all_scores(curves, "logit").items():
        np.testing.assert_allclose(values, 10 * of_probability[name], rtol=1e-12, atol=1e-12)


def test_repetitions_are_averaged_and_their_spread_told():
    probability = [[[0.9, 0.5], [0.7, 0.1]], [[0.9, 0.3], [0.7, 0.3]], [[0.9, 0.0], [0.7, 0.0]]]
    curves = curves_of([0, 1], probability, orders=("random", "morf"), repetitions=(2, 1))
    np.testing.assert_allclose(curves.of_examples("random").numpy(), [[0.9, 0.4], [0.7, 0.2]])
    np.testing.assert_allclose(curves.probability.numpy(), [[0.8, 0.3], [0.8, 0.0]])
    np.testing.assert_allclose(curves.spread("random", "logit").numpy(), [0, 0], atol=1e-12)  # both means are 0.3
    np.testing.assert_allclose(curves.spread("random", "accuracy").numpy(), [0, 0])
    varied = curves_of([0, 1], [[[0.9, 0.5]], [[0.9, 0.3]]], orders=("random",), repetitions=(2,))
    np.testing.assert_allclose(varied.spread("random").numpy(), [0, np.std([0.5, 0.3], ddof=1)], atol=1e-15)
    assert curves.spread("morf").tolist() == [0, 0]
    assert curves.at("random", 1.0).tolist() == pytest.approx([0.4, 0.2])


def test_rows_make_a_table():
    single = curves_of([0, 1], [[[0.9, 0.5]], [[0.8, 0.25]]]).rows()
    assert single[1] == {"order": "morf", "fraction": 1.0, "accuracy": 0, "probability": 0.5, "logit": 5.0}
    assert [row["order"] for row in single] == ["morf", "morf", "lerf", "lerf"]
    probability = [[[0.9, 0.4]], [[0.9, 0.5]], [[0.9, 0.3]]]
    repeated = curves_of([0, 1], probability, orders=("morf", "random"), repetitions=(1, 2)).rows()
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(repeated[0]))
    writer.writeheader()
    writer.writerows(repeated)
    assert file.getvalue().splitlines()[0] == (
        "order,fraction,accuracy,probability,logit,accuracy_std,probability_std,logit_std"
    )
    assert repeated[1]["probability_std"] == 0
    assert repeated[3]["probability_std"] == pytest.approx(np.std([0.5, 0.3], ddof=1))


def test_batches_join():
    generator = np.random.default_rng(1)
    probability = generator.random((2, 7, 3))
    whole = curves_of([0, 0.5, 1], probability)
    parts = [curves_of([0, 0.5, 1], probability[:, part]) for part in (slice(0, 3), slice(3, 7))]
    assert torch.equal(joined_curves(parts).outcomes, whole.outcomes)


# --- confidence intervals ---


def test_interval_equals_scipys():
    values = np.random.default_rng(2).exponential(size=60)
    ours = bootstrap(torch.from_numpy(values), resamples=20000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=3).confidence_interval
    assert ours.mean == pytest.approx(values.mean(), rel=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_interval_of_groups_is_that_of_their_means():
    """Examples that agree within a group are worth no more than the group."""
    means = np.random.default_rng(4).normal(size=12)
    groups = torch.arange(12).repeat_interleave(50)
    clustered = bootstrap(torch.from_numpy(means).repeat_interleave(50), groups=groups, resamples=20000)
    expected = bootstrap(torch.from_numpy(means), resamples=20000, seed=1)
    naive = bootstrap(torch.from_numpy(means).repeat_interleave(50))
    assert clustered.low == pytest.approx(expected.low, abs=0.03)
    assert clustered.high == pytest.approx(expected.high, abs=0.03)
    assert clustered.high - clustered.low > 4 * (naive.high - naive.low)


def test_interval_of_unequal_groups_is_that_of_whole_groups():
    sizes, sums = np.tile([9, 1], 10), np.tile([0, 1], 10)  # every second group is of one example, whose value is 1
    groups = torch.from_numpy(np.repeat(np.arange(20), sizes))
    estimate = bootstrap((groups % 2).double(), groups=groups, resamples=20000)
    draws = np.random.default_rng(5).integers(20, size=(20000, 20))
    low, high = np.quantile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [0.025, 0.975])
    assert estimate.mean == pytest.approx(0.1, rel=1e-12)
    assert estimate.low == pytest.approx(low, abs=0.01)
    assert estimate.high == pytest.approx(high, abs=0.01)


def test_interval_is_seeded_and_leaves_the_global_generator_alone():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    first, again, other = (bootstrap(values, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other
    wide = bootstrap(values, confidence=0.99)
    assert wide.low < first.low < first.mean < first.high < wide.high


def test_a_single_group_gives_no_interval():
    estimate = bootstrap(torch.tensor([0.0, 1.0, 5.0]), groups=torch.tensor([7, 7, 7]))
    assert estimate.mean == 2
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence is 95: pass a share between 0 and 1"),
        ({"confidence": -0.5}, "confidence is -0.5: pass a share between 0 and 1"),
        ({"resamples": 0}, "resamples is 0: pass 1 or more"),
    ],
)
def test_bootstrap_refuses_intervals_that_are_none(options, message):
    with pytest.raises(UserError, match=message):
        bootstrap(torch.rand(5), **options)


def test_bootstrap_refuses_what_has_no_mean():
    with pytest.raises(UserError, match=r"values have shape \[0\]"):
        bootstrap(torch.zeros(0))
    with pytest.raises(UserError, match=r"groups have shape \[3\] but the values \[4\]"):
        bootstrap(torch.zeros(4), groups=torch.arange(3))
