"""Presets: which LRP rule each layer gets, by name."""

import difflib
from collections.abc import Callable

from zennit.composites import COMPOSITES
from zennit.core import Composite

from audio_lrp.attribution.hooks import Rule
from audio_lrp.attribution.rule_map import RuleMap
from audio_lrp.attribution.rules import AlphaBeta, Epsilon, Flat, Gamma, MergeBatchNorm, ZBox, ZPlus
from audio_lrp.errors import UserError

Bounds = tuple[float, float]
"""Lowest and highest value the input can take."""


def _with_convolutions(rule: Rule) -> RuleMap:
    return RuleMap({"Convolution": rule, "Linear": Epsilon()})


def _epsilon_gamma_box(bounds: Bounds | None) -> Composite:
    low, high = _checked(bounds, "epsilon_gamma_box")
    return RuleMap({"Convolution": Gamma(), "Linear": Epsilon()}, first={"Convolution": ZBox(low, high)})


def _epsilon_alpha2_beta1_flat() -> Composite:
    return RuleMap({"Convolution": AlphaBeta(), "Linear": Epsilon()}, first={"Convolution": Flat(), "Linear": Flat()})


PRESETS: dict[str, Callable[[Bounds | None], Composite]] = {
    "lrp0": lambda _: RuleMap(
        {"BatchNorm": MergeBatchNorm(0), **dict.fromkeys(("Convolution", "Linear", "AvgPool", "Sum"), Epsilon(0))}
    ),
    "epsilon": lambda _: _with_convolutions(Epsilon()),
    "epsilon_plus": lambda _: _with_convolutions(ZPlus()),
    "epsilon_alpha2_beta1": lambda _: _with_convolutions(AlphaBeta(2, 1)),
    "epsilon_gamma_box": _epsilon_gamma_box,
    "epsilon_alpha2_beta1_flat": lambda _: _epsilon_alpha2_beta1_flat(),
}

STOCK_PREFIX = "zennit_"
"""Before the name of one of zennit's own composites, e.g. ``"zennit_epsilon_plus"``."""


def composite_by_name(name: str, bounds: Bounds | None = None) -> Composite:
    """A fresh composite that gives every layer its rule.

    ============================  =====================  =======================  ==========
    name                          first convolution      other convolutions       dense
    ============================  =====================  =======================  ==========
    ``lrp0``                      LRP-0                  LRP-0                    LRP-0
    ``epsilon``                   epsilon                epsilon                  epsilon
    ``epsilon_plus``              z-plus                 z-plus                   epsilon
    ``epsilon_alpha2_beta1``      alpha 2, beta 1        alpha 2, beta 1          epsilon
    ``epsilon_gamma_box``         z-box                  gamma 0.25               epsilon
    ``epsilon_alpha2_beta1_flat`` flat                   alpha 2, beta 1          epsilon
    ============================  =====================  =======================  ==========

    The rules are those of `audio_lrp.attribution.rules`, with a stabilizer of 1e-6 and biases that take their part.
    Batch normalisation is merged into a convolution or dense layer that it directly follows, and is an affine layer
    elsewhere (`MergeBatchNorm`); for other layers see `RuleMap`. "First" means first in the order in which the
    network's modules were defined; in a network without convolutions the flat rule goes to the first dense layer. With
    ``zennit_`` before it, a name stands for zennit's own composite of that name, such as ``zennit_epsilon_plus``: the
    same relevance by zennit's rules.

    Args:
        name: one of the names above.
        bounds: lowest and highest value the input can take; only z-box uses it.

    Raises:
        UserError: unknown name, or z-box without valid bounds.

    Example:
        >>> type(composite_by_name("epsilon_plus")).__name__
        'RuleMap'
        >>> type(composite_by_name("zennit_epsilon_plus")).__name__
        'EpsilonPlus'
    """
    if name in PRESETS:
        return PRESETS[name](bounds)
    stock = {STOCK_PREFIX + key: composite for key, composite in COMPOSITES.items() if key.startswith("epsilon")}
    if name in stock:
        if "box" not in name:
            return stock[name]()
        low, high = _checked(bounds, name)
        return stock[name](low=low, high=high)
    nearest = difflib.get_close_matches(name, [*PRESETS, *stock], n=1, cutoff=0.0)[0]
    raise UserError(
        f"unknown composite {name!r}: did you mean {nearest!r}? Choose one of {', '.join(PRESETS)}, "
        "or pass a zennit composite"
    )


def _checked(bounds: Bounds | None, name: str) -> Bounds:
    if bounds is None or not bounds[0] <= bounds[1]:
        raise UserError(
            f"{name} needs the range of the input: pass bounds=(lowest, highest), e.g. bounds=(0.0, 1.0); got {bounds}"
        )
    return bounds
