"""W&B's distributions as variables that Optuna can draw.

Optuna draws uniformly, from a range, from the logarithm of a range, or among choices. Every other distribution is
given by its quantile function, applied to a uniform variable. The values of a choice are kept as JSON texts, since
Optuna takes ``1`` and ``true`` for the same choice and no lists at all.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from optuna import Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from audio_lrp.errors import UserError

_TAIL: Final = 1e-9
"""Probability cut off at either end of an unbounded distribution: six standard deviations of a normal one."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        variable: what Optuna draws.
        value: makes the parameter's value of what Optuna has drawn.
        logarithmic: whether its values are spread over orders of magnitude.
        grid: its values in a grid search, where it has countable ones.
    """

    variable: FloatDistribution | IntDistribution | CategoricalDistribution
    value: Callable[[Any], Any]
    logarithmic: bool = False
    grid: tuple[Any, ...] | None = None

    @property
    def is_constant(self) -> bool:
        """Whether it has a single value."""
        return self.variable.single()

    @property
    def example(self) -> Any:
        """One of its values."""
        variable = self.variable
        return self.value(variable.choices[0] if isinstance(variable, CategoricalDistribution) else variable.high)

    def draw(self, trial: Trial, name: str) -> Any:
        """A value for this trial."""
        match self.variable:
            case CategoricalDistribution(choices=choices):
                return self.value(trial.suggest_categorical(name, choices))
            case IntDistribution(low=low, high=high):
                return self.value(trial.suggest_int(name, low, high))
            case FloatDistribution(low=low, high=high, log=log):
                return self.value(trial.suggest_float(name, low, high, log=log))


def make_parameter(name: str, settings: Any) -> Parameter:
    """The parameter that W&B would make of its settings in a sweep's file.

    Args:
        name: the parameter's name.
        settings: what stands under it, e.g. ``{"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}``.

    Raises:
        UserError: settings are missing, unknown or out of range, or the distribution is one that Optuna cannot draw.

    Example:
        >>> parameter = make_parameter("model.mixup", {"min": 0.0, "max": 0.4})
        >>> parameter.variable
        FloatDistribution(high=0.4, log=False, low=0.0, step=None)
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"the parameter {name} has no settings: give it 'values', or 'min' and 'max'")
    if "parameters" in settings:
        raise UserError(
            f"the parameter {name} is nested, which makes no option of the command line: write it in dotted form, "
            f"{name}.{next(iter(settings['parameters'] or ()), 'NAME')}"
        )
    distribution = settings.get("distribution") or _inferred(name, settings)
    if distribution in ("beta", "q_beta"):
        raise UserError(f"the parameter {name} has the distribution {distribution}, which Optuna cannot draw")
    if distribution not in _MAKERS:
        raise UserError(
            f"the parameter {name} has the unknown distribution {distribution!r}: choose one of {', '.join(_MAKERS)}"
        )
    maker, required, optional = _MAKERS[distribution]
    given = {key: value for key, value in settings.items() if key != "distribution"}
    for key in required:
        if key not in given:
            raise UserError(f"the parameter {name} with the distribution {distribution} lacks {key!r}")
    for key, value in given.items():
        if key not in required and key not in optional:
            raise UserError(f"the parameter {name} with the distribution {distribution} takes no {key!r}")
        if key in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{key} of the parameter {name} is a number, not {value!r}")
    try:
        return maker(**{**optional, **given})
    except (ValueError, OverflowError) as error:
        raise UserError(f"the parameter {name} is not valid: {error}") from error


def on_grid(name: str, parameter: Parameter) -> Parameter:
    """The parameter as one of a grid search.

    Raises:
        UserError: its values cannot be counted.
    """
    if parameter.grid is None:
        raise UserError(
            f"the parameter {name} has no countable values, which a grid needs: give it 'values', "
            "or choose the method random or bayes"
        )
    return _categorical(list(parameter.grid))


def _inferred(name: str, settings: Mapping[str, Any]) -> str:
    """The distribution that W&B assumes where none is named."""
    if "value" in settings:
        return "constant"
    if "values" in settings:
        return "categorical_w_probabilities" if "probabilities" in settings else "categorical"
    if "min" in settings and "max" in settings:
        kinds = {type(settings["min"]), type(settings["max"])}
        if kinds == {int}:
            return "int_uniform"
        if kinds == {float}:
            return "uniform"
        raise UserError(
            f"the bounds of the parameter {name} are no two integers and no two fractions: "
            "write both alike, or name its distribution"
        )
    raise UserError(f"the parameter {name} has neither 'values' nor 'min' and 'max' nor a distribution")


def _constant(value: Any) -> Parameter:
    return _categorical([value])


def _categorical(values: Any) -> Parameter:
    if not isinstance(values, list) or not values:
        raise ValueError("its values are a list with one value or more")
    texts = [json.dumps(value) for value in values]
    if len(set(texts)) < len(texts):
        raise ValueError("one of its values stands there twice")
    return Parameter(CategoricalDistribution(texts), json.loads, grid=tuple(values))


def _categorical_w_probabilities(values: Any, probabilities: Any) -> Parameter:
    _categorical(values)
    if not isinstance(probabilities, list) or len(probabilities) != len(values):
        raise ValueError("it needs as many probabilities as values")
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1):
        raise ValueError("its probabilities do not add up to 1")
    bounds = np.cumsum(probabilities)[:-1]
    return Parameter(FloatDistribution(0, 1), partial(_choose, values, bounds))


def _int_uniform(min: int, max: int) -> Parameter:  # noqa: A002 (W&B's own names, here and below)
    if not (isinstance(min, int) and isinstance(max, int)):
        raise ValueError("its bounds are integers")
    _check_order(min, max)
    return Parameter(IntDistribution(min, max), int, grid=tuple(range(min, max + 1)))


def _uniform(min: float, max: float) -> Parameter:  # noqa: A002
    _check_order(min, max)
    return Parameter(FloatDistribution(min, max), float)


def _q_uniform(min: float, max: float, q: float) -> Parameter:  # noqa: A002
    steps = np.arange(min, max, q).tolist()  # without the upper bound, as W&B's grid has them
    return Parameter(_uniform(min, max).variable, partial(_rounded, q=_step(q)), grid=tuple(steps))


def _log_uniform_values(min: float, max: float) -> Parameter:  # noqa: A002
    _check_order(min, max)
    if min <= 0:
        raise ValueError("the logarithm of its lower bound does not exist: it must be above 0")
    return Parameter(FloatDistribution(min, max, log=True), float, logarithmic=True)


def _log_uniform(min: float, max: float) -> Parameter:  # noqa: A002
    return _log_uniform_values(math.exp(min), math.exp(max))


def _inv_log_uniform(min: float, max: float) -> Parameter:  # noqa: A002
    return _log_uniform_values(math.exp(-max), math.exp(-min))


def _q_log_uniform_values(min: float, max: float, q: float) -> Parameter:  # noqa: A002
    return Parameter(_log_uniform_values(min, max).variable, partial(_rounded, q=_step(q)), logarithmic=True)


def _q_log_uniform(min: float, max: float, q: float) -> Parameter:  # noqa: A002
    return _q_log_uniform_values(math.exp(min), math.exp(max), q)


def _normal(mu: float, sigma: float) -> Parameter:
    return Parameter(FloatDistribution(_TAIL, 1 - _TAIL), _quantiles(mu, sigma))


def _q_normal(mu: float, sigma: float, q: float) -> Parameter:
    return _of_normal(partial(_rounded, q=_step(q)), mu, sigma)


def _log_normal(mu: float, sigma: float) -> Parameter:
    return _of_normal(math.exp, mu, sigma, logarithmic=True)


def _q_log_normal(mu: float, sigma: float, q: float) -> Parameter:
    return _of_normal(partial(_rounded_exponential, q=_step(q)), mu, sigma, logarithmic=True)


def _of_normal(function: Callable[[float], float], mu: float, sigma: float, logarithmic: bool = False) -> Parameter:
    return Parameter(
        FloatDistribution(_TAIL, 1 - _TAIL), partial(_composed, function, _quantiles(mu, sigma)), logarithmic
    )


def _composed(outer: Callable[[float], float], inner: Callable[[float], float], drawn: float) -> float:
    return outer(inner(drawn))


def _quantiles(mu: float, sigma: float) -> Callable[[float], float]:
    if sigma <= 0:
        raise ValueError("its sigma must be above 0")
    return NormalDist(mu, sigma).inv_cdf


def _choose(choices: list[Any], bounds: Any, drawn: float) -> Any:
    return choices[int(np.searchsorted(bounds, drawn, side="right"))]


def _rounded(drawn: float, q: float) -> float:
    """The nearest multiple; an integer where ``q`` is one, as W&B has it."""
    return round(drawn / q) * q


def _rounded_exponential(drawn: float, q: float) -> float:
    return _rounded(math.exp(drawn), q)


def _step(q: float) -> float:
    if q <= 0:
        raise ValueError("its q must be above 0")
    return q


def _check_order(lower: float, upper: float) -> None:
    if lower >= upper:
        raise ValueError(f"its min {lower} is not below its max {upper}")


_NUMBERS = ("min", "max", "q", "mu", "sigma")
_RANGE = ("min", "max")
_MOMENTS = {"mu": 0.0, "sigma": 1.0}
_MAKERS: Final[dict[str, tuple[Callable[..., Parameter], tuple[str, ...], dict[str, float]]]] = {
    "constant": (_constant, ("value",), {}),
    "categorical": (_categorical, ("values",), {}),
    "categorical_w_probabilities": (_categorical_w_probabilities, ("values", "probabilities"), {}),
    "int_uniform": (_int_uniform, _RANGE, {}),
    "uniform": (_uniform, _RANGE, {}),
    "q_uniform": (_q_uniform, _RANGE, {"q": 1.0}),
    "log_uniform": (_log_uniform, _RANGE, {}),
    "log_uniform_values": (_log_uniform_values, _RANGE, {}),
    "q_log_uniform": (_q_log_uniform, _RANGE, {"q": 1.0}),
    "q_log_uniform_values": (_q_log_uniform_values, _RANGE, {"q": 1.0}),
    "inv_log_uniform": (_inv_log_uniform, _RANGE, {}),
    "inv_log_uniform_values": (_log_uniform_values, _RANGE, {}),  # 1 / x is spread like x: the same distribution
    "normal": (_normal, (), _MOMENTS),
    "q_normal": (_q_normal, (), {**_MOMENTS, "q": 1.0}),
    "log_normal": (_log_normal, (), _MOMENTS),
    "q_log_normal": (_q_log_normal, (), {**_MOMENTS, "q": 1.0}),
}
"""W&B's distributions: the function that makes a parameter, the settings it needs, and those with a default."""
