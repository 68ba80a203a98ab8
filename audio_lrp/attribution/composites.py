"""Presets: which LRP rule each layer gets, by name."""

import difflib
from collections.abc import Callable

from torch import nn
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    LayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import Epsilon
from zennit.types import Convolution

from audio_lrp.errors import UserError

DEFAULT_COMPOSITE = "epsilon_alpha2_beta1"

Bounds = tuple[float, float]
"""Lowest and highest value the input can take."""


def _epsilon(_: Bounds | None) -> Composite:
    return LayerMapComposite([*layer_map_base(), (Convolution, Epsilon()), (nn.Linear, Epsilon())])


def _epsilon_gamma_box(bounds: Bounds | None) -> Composite:
    if bounds is None or not bounds[0] <= bounds[1]:
        raise UserError(
            "epsilon_gamma_box needs the range of the input: "
            f"pass bounds=(lowest, highest), e.g. bounds=(0.0, 1.0); got {bounds}"
        )
    low, high = bounds
    return EpsilonGammaBox(low=low, high=high)


PRESETS: dict[str, Callable[[Bounds | None], Composite]] = {
    "epsilon": _epsilon,
    "epsilon_plus": lambda _: EpsilonPlus(),
    "epsilon_alpha2_beta1": lambda _: EpsilonAlpha2Beta1(),
    "epsilon_gamma_box": _epsilon_gamma_box,
    "epsilon_alpha2_beta1_flat": lambda _: EpsilonAlpha2Beta1Flat(),
}


def composite_by_name(name: str, bounds: Bounds | None = None) -> Composite:
    """A fresh zennit composite that gives every layer its rule.

    ============================  =====================  =======================  ==========
    name                          first convolution      other convolutions       dense
    ============================  =====================  =======================  ==========
    ``epsilon``                   epsilon                epsilon                  epsilon
    ``epsilon_plus``              z-plus                 z-plus                   epsilon
    ``epsilon_alpha2_beta1``      alpha 2, beta 1        alpha 2, beta 1          epsilon
    ``epsilon_gamma_box``         z-box                  gamma 0.25               epsilon
    ``epsilon_alpha2_beta1_flat`` flat                   alpha 2, beta 1          epsilon
    ============================  =====================  =======================  ==========

    Activations pass relevance on, average pooling shares it out by contribution, max pooling gives it to the maximum.
    "First" means first in the order in which the network's modules were defined; in a network without convolutions
    the flat rule goes to the first dense layer. Sources: epsilon and alpha-beta: Bach et al., 2015,
    doi:10.1371/journal.pone.0130140, eq. 58 and 60; z-plus and z-box: Montavon et al., 2017, arXiv 1512.02479; gamma:
    Montavon et al., 2019, doi:10.1007/978-3-030-28954-6_10; flat: Lapuschkin et al., 2019, arXiv 1902.10178.

    Args:
        name: one of the names above.
        bounds: lowest and highest value the input can take; only z-box uses it.

    Raises:
        UserError: unknown name, or ``epsilon_gamma_box`` without valid bounds.

    Example:
        >>> type(composite_by_name("epsilon_plus")).__name__
        'EpsilonPlus'
    """
    if name not in PRESETS:
        nearest = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"unknown composite {name!r}: did you mean {nearest!r}? Choose one of {', '.join(PRESETS)}, "
            "or pass a zennit composite"
        )
    return PRESETS[name](bounds)
