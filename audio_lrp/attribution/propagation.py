"""The data that rules are made of: parts of inputs and weights, and how relevance is propagated by them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

Part = Callable[[Tensor], Tensor]
"""Makes what a rule works with out of a layer's input, weight or bias."""


def whole(value: Tensor) -> Tensor:
    """The values as they are."""
    return value


def positive(value: Tensor) -> Tensor:
    """The positive values, zero elsewhere."""
    return value.clamp(min=0)


def negative(value: Tensor) -> Tensor:
    """The negative values, zero elsewhere."""
    return value.clamp(max=0)


@dataclass(frozen=True)
class Constant:
    """The same value everywhere, for every sample."""

    value: float

    def __call__(self, like: Tensor) -> Tensor:
        """One sample of the constant, which broadcasts over the batch."""
        return torch.full_like(like[:1], self.value)


@dataclass(frozen=True)
class Term:
    """A part of the input mapped by a part of the weights.

    Attributes:
        input: part of the input, or what takes its place.
        weight: part of the weights, or what takes their place.
    """

    input: Part
    weight: Part


@dataclass(frozen=True)
class Propagation:
    """A fraction of each output's relevance, propagated to the inputs in proportion to their contributions.

    If input i contributes ``c_ij`` to ``p_j = sum_i c_ij + bias_j``, summed over the terms, it is given
    ``fraction * sum_j c_ij R_j / (p_j + stabilizer * sign(p_j))``.

    Attributes:
        terms: the maps whose sum is p.
        bias: part of the bias that counts among the contributions; None: none.
        fraction: how much of the relevance is propagated; negative: with its sign turned.
        outputs: `positive` or `negative`: only the relevance of outputs of this sign is propagated (zero counts as
            positive); `whole`: that of all outputs.
        sign: `positive` or `negative`: no p has another sign, whatever the input; `whole`: p may have any.
    """

    terms: tuple[Term, ...]
    bias: Part | None = None
    fraction: float = 1.0
    outputs: Part = whole
    sign: Part = whole

    @property
    def is_layer(self) -> bool:
        """Whether p is the layer's own output."""
        return self.terms == (Term(whole, whole),) and self.bias is whole


def simplified(propagations: Sequence[Propagation], nonnegative: bool, rectified: bool) -> list[Propagation]:
    """The same propagations without the terms that are zero.

    Args:
        propagations: as the rule declares them.
        nonnegative: no input is below zero.
        rectified: no output below zero has relevance.
    """
    kept = []
    for propagation in propagations:
        if rectified and propagation.outputs is negative:
            continue
        terms = propagation.terms
        if nonnegative:
            terms = tuple(
                replace(term, input=whole) if term.input is positive else term
                for term in terms
                if term.input is not negative
            )
        kept.append(replace(propagation, terms=terms, outputs=whole if rectified else propagation.outputs))
    return kept


class PropagationRule(Protocol):
    """What the engine needs to know of a rule."""

    @property
    def stabilizer(self) -> float:
        """What moves denominators away from zero."""
        ...

    @property
    def proportional(self) -> bool:
        """Whether inputs of zero get no relevance, whatever the layer."""
        ...

    @property
    def active(self) -> bool:
        """Whether relevance goes by the rule; else the plain gradient, as inside zennit's ``Composite.inactive()``."""
        ...

    def propagations(self) -> tuple[Propagation, ...]:
        """The rule itself, as data."""
        ...
