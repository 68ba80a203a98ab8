"""W&B's distributions, as Optuna draws them."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from audio_lrp.errors import UserError
from audio_lrp.sweeps.parameters import Parameter, make_parameter

DISTRIBUTIONS: dict[str, tuple[dict[str, float], Any, float | None]] = {
    "uniform": ({"min": -1, "max": 3}, scipy.stats.uniform(-1, 4), None),
    "q_uniform": ({"min": 0.0, "max": 10.0, "q": 2}, scipy.stats.uniform(0, 10), 2),
    "log_uniform": ({"min": -3, "max": 1}, scipy.stats.loguniform(np.exp(-3), np.exp(1)), None),
    "log_uniform_values": ({"min": 1e-4, "max": 1e-1}, scipy.stats.loguniform(1e-4, 1e-1), None),
    "q_log_uniform": ({"min": 0, "max": 4, "q": 0.5}, scipy.stats.loguniform(1, np.exp(4)), 0.5),
    "q_log_uniform_values": ({"min": 8, "max": 256, "q": 8}, scipy.stats.loguniform(8, 256), 8),
    "inv_log_uniform": ({"min": 1, "max": 5}, scipy.stats.loguniform(np.exp(-5), np.exp(-1)), None),
    "inv_log_uniform_values": ({"min": 0.01, "max": 0.5}, scipy.stats.loguniform(0.01, 0.5), None),
    "normal": ({"mu": 2, "sigma": 0.5}, scipy.stats.norm(2, 0.5), None),
    "q_normal": ({"mu": 0, "sigma": 30, "q": 5}, scipy.stats.norm(0, 30), 5),
    "log_normal": ({"mu": -2, "sigma": 0.7}, scipy.stats.lognorm(s=0.7, scale=np.exp(-2)), None),
    "q_log_normal": ({"mu": 3, "sigma": 1, "q": 4}, scipy.stats.lognorm(s=1, scale=np.exp(3)), 4),
}


def values_at(parameter: Parameter, quantiles: np.ndarray) -> list[Any]:
    """The parameter's values where Optuna, drawing uniformly, arrives at these quantiles."""
    low, high = parameter.variable.low, parameter.variable.high
    if parameter.variable.log:
        return [parameter.value(low * (high / low) ** quantile) for quantile in quantiles]
    return [parameter.value(low + quantile * (high - low)) for quantile in quantiles]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_those_of_scipy(name: str) -> None:
    settings, reference, q = DISTRIBUTIONS[name]
    quantiles = np.linspace(0.001, 0.999, 501)
    expected = reference.ppf(quantiles)
    if q is not None:
        expected = np.round(expected / q) * q
    values = values_at(make_parameter("x", {"distribution": name, **settings}), quantiles)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
    assert all(isinstance(value, int if isinstance(q, int) else float) for value in values)


def test_choices_keep_their_kind() -> None:
    values = [1, True, 1.0, "1", None, [1, 2], {"class_path": "A"}]
    parameter = make_parameter("x", {"values": values})
    found = [parameter.value(text) for text in parameter.variable.choices]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in values]
    assert make_parameter("x", {"value": 3}).is_constant


def test_probabilities() -> None:
    settings = {"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}
    drawn = values_at(make_parameter("x", settings), np.arange(0.0005, 1, 0.001))
    assert [drawn.count(value) for value in settings["values"]] == [200, 500, 300]


def test_integers_are_inclusive() -> None:
    parameter = make_parameter("x", {"min": 2, "max": 4})
    assert parameter.grid == (2, 3, 4)
    assert (parameter.variable.low, parameter.variable.high) == (2, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": {"lr": {"value": 1}}}, r"x is nested.*dotted form, x\.lr"),
        ({"distribution": "beta", "a": 1, "b": 2}, "beta, which Optuna cannot draw"),
        ({"distribution": "q_beta"}, "q_beta, which Optuna cannot draw"),
        ({"distribution": "unifrom", "min": 0, "max": 1}, "unknown distribution 'unifrom': choose one of constant"),
        ({"distribution": "uniform", "min": 0}, "lacks 'max'"),
        ({"distribution": "uniform", "min": 0, "max": 1, "q": 1}, "takes no 'q'"),
        ({"distribution": "uniform", "min": "1e-4", "max": 1}, "min of the parameter x is a number, not '1e-4'"),
        ({"min": 0, "max": 1.5}, "no two integers and no two fractions"),
        ({"min": 3, "max": 2}, "its min 3 is not below its max 2"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "must be above 0"),
        ({"distribution": "log_uniform", "min": 0, "max": 10000}, "x is not valid"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": -1}, "q must be above 0"),
        ({"distribution": "normal", "sigma": 0}, "sigma must be above 0"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 3}, "bounds are integers"),
        ({"values": []}, "one value or more"),
        ({"values": [1, 1]}, "stands there twice"),
        ({"values": [1, 2], "probabilities": [0.5]}, "as many probabilities as values"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "do not add up to 1"),
        ({}, "neither 'values' nor"),
        (0.1, "has no settings"),
    ],
)
def test_refusals(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_parameter("x", settings)
