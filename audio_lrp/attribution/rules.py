"""The rules of Layer-wise Relevance Propagation, declared as data for one engine.

Notation: a layer has inputs ``x_i``, weights ``w_ij``, biases ``b_j`` and outputs ``z_j = sum_i x_i w_ij + b_j``;
``R_j`` is the relevance of an output, ``R_i`` of an input; ``v+ = max(v, 0)``, ``v- = min(v, 0)``. Every denominator
is moved away from zero by ``stabilizer``. With ``bias="absorb"`` biases take their part of the relevance, with
``bias="ignore"`` they are left out of the denominators and inputs get all of it.

All rules are `zennit.core.Hook` objects and may be used in any zennit composite, beside zennit's own rules.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from audio_lrp.attribution.hooks import Rule
from audio_lrp.attribution.propagation import Constant, Part, Propagation, Term, negative, positive, whole
from audio_lrp.errors import UserError


@dataclass(eq=False)
class Epsilon(Rule):
    """Epsilon rule: ``R_i = sum_j x_i w_ij R_j / (z_j + epsilon sign(z_j))``.

    With ``epsilon=0`` this is LRP-0. Average pooling and sums may have it as well. Source: Bach et al., 2015,
    doi:10.1371/journal.pone.0130140, eq. 58.

    Attributes:
        epsilon: takes relevance where outputs are small; in the units of the outputs.

    Example:
        >>> Epsilon(epsilon=0.01)
        Epsilon(bias='absorb', epsilon=0.01)
    """

    needs_weights: ClassVar[bool] = False

    stabilizer: float = field(default=1e-6, init=False, repr=False)
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        self.stabilizer = self.epsilon
        super().__post_init__()

    def propagations(self) -> tuple[Propagation, ...]:
        """All contributions alike."""
        return (Propagation((Term(whole, whole),), self.bias_part(whole)),)


@dataclass(eq=False)
class MergeBatchNorm(Epsilon):
    """Rule of batch normalisations: merged into the convolution or dense layer before it, else an affine layer.

    By running statistics ``gamma (x - mean) / sqrt(variance + eps) + beta`` is ``s x + t`` for each channel. Where x is
    the output of a convolution or dense layer, both are one linear layer, with weights ``s w`` and bias ``s b + t``,
    that gets relevance by that layer's rule (Guillemot et al., 2020, arXiv 2009.02266). Elsewhere, as after an
    activation or pooling or first in the network, it is a layer of its own under the epsilon rule.
    """

    merges: ClassVar[bool] = True


_POSITIVE = (Term(positive, positive), Term(negative, negative))
_NEGATIVE = (Term(positive, negative), Term(negative, positive))


@dataclass(eq=False)
class AlphaBeta(Rule):
    """Alpha-beta rule: ``R_i = sum_j (alpha (x_i w_ij)+ / p+_j - beta (x_i w_ij)- / p-_j) R_j``.

    ``p+_j = sum_i (x_i w_ij)+ + b_j+`` gathers the evidence for an output, ``p-_j = sum_i (x_i w_ij)- + b_j-`` that
    against it. Source: Bach et al., 2015, doi:10.1371/journal.pone.0130140, eq. 60.

    Attributes:
        alpha: weight of the evidence for an output.
        beta: weight of the evidence against it, not negative; ``alpha - beta`` is 1.

    Example:
        >>> [propagation.fraction for propagation in AlphaBeta(alpha=2, beta=1).propagations()]
        [2, -1]
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0 or not math.isclose(self.alpha - self.beta, 1):
            raise UserError(
                f"alpha is {self.alpha} and beta {self.beta}: the rule needs alpha - beta = 1 and beta of at least 0"
            )

    def propagations(self) -> tuple[Propagation, ...]:
        """The evidence for an output and, unless beta is 0, that against it."""
        evidence_for = Propagation(_POSITIVE, self.bias_part(positive), self.alpha, sign=positive)
        evidence_against = Propagation(_NEGATIVE, self.bias_part(negative), -self.beta, sign=negative)
        return (evidence_for, evidence_against) if self.beta else (evidence_for,)


@dataclass(eq=False)
class ZPlus(Rule):
    """Z-plus rule: ``R_i = sum_j (x_i w_ij)+ / p+_j R_j``, with ``p+_j = sum_i (x_i w_ij)+ + b_j+``.

    The alpha-beta rule with alpha 1 and beta 0. Source: Montavon et al., 2017, arXiv 1512.02479, for inputs that are
    not negative; for all inputs Bach et al., 2015, doi:10.1371/journal.pone.0130140, eq. 60.
    """

    def propagations(self) -> tuple[Propagation, ...]:
        """The evidence for an output."""
        return (Propagation(_POSITIVE, self.bias_part(positive), sign=positive),)


@dataclass(frozen=True)
class _Strengthened:
    """``v + gamma * part(v)``; equal ones compare equal."""

    gamma: float
    part: Part

    def __call__(self, value: Tensor) -> Tensor:
        return value + self.gamma * self.part(value)


@dataclass(eq=False)
class Gamma(Rule):
    """Generalised gamma rule: contributions of the output's own sign are strengthened by gamma.

    ``R_i = sum_j (x_i w_ij + gamma (x_i w_ij)+) / (z_j + gamma p+_j) R_j`` over outputs of at least 0, and the same
    with ``(x_i w_ij)-`` and ``p-_j`` over outputs below 0; p+ and p- as in `AlphaBeta`. Sources: Montavon et al.,
    2019, doi:10.1007/978-3-030-28954-6_10, for inputs that are not negative; Andéol et al., 2021, arXiv 2104.11548.

    Attributes:
        gamma: how much; 0 is the epsilon rule, infinity z-plus.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < float("inf"):
            raise UserError(f"gamma is {self.gamma}: pass a number of at least 0")

    def propagations(self) -> tuple[Propagation, ...]:
        """Outputs that are not negative, and negative ones."""
        more, less = _Strengthened(self.gamma, positive), _Strengthened(self.gamma, negative)
        return (
            Propagation((Term(positive, more), Term(negative, less)), self.bias_part(more), outputs=positive),
            Propagation((Term(positive, less), Term(negative, more)), self.bias_part(less), outputs=negative),
        )


@dataclass(eq=False)
class Flat(Rule):
    """Flat rule: ``R_i = sum_j R_j / n_j``, every input connected to an output gets the same.

    ``n_j`` counts the connections, so neither input nor weights matter. For the first layer. Source: Lapuschkin et
    al., 2019, arXiv 1902.10178.
    """

    proportional: ClassVar[bool] = False

    def propagations(self) -> tuple[Propagation, ...]:
        """One for every connection."""
        return (Propagation((Term(Constant(1.0), torch.ones_like),), sign=positive),)


def _squared(value: Tensor) -> Tensor:
    return value.square()


@dataclass(eq=False)
class WSquare(Rule):
    """W-square rule: ``R_i = sum_j w_ij^2 / (sum_i w_ij^2 + b_j^2) R_j``, whatever the input.

    For a first layer whose input may take any value. Source: Montavon et al., 2017, arXiv 1512.02479 (without bias).
    """

    proportional: ClassVar[bool] = False

    def propagations(self) -> tuple[Propagation, ...]:
        """Squared weights."""
        return (Propagation((Term(Constant(1.0), _squared),), self.bias_part(_squared), sign=positive),)


@dataclass(eq=False)
class ZBox(Rule):
    """Z-box rule: ``R_i = sum_j (x_i w_ij - low w_ij+ - high w_ij-) / p_j R_j``, p_j the sum of the same over i.

    For a first layer whose input lies between ``low`` and ``high``; biases cancel. Source: Montavon et al., 2017,
    arXiv 1512.02479.

    Attributes:
        low: lowest value the input can take.
        high: highest value the input can take.

    Example:
        >>> ZBox(low=0.0, high=1.0).proportional
        False
    """

    proportional: ClassVar[bool] = False

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise UserError(f"low is {self.low} and high {self.high}: the box rule needs the range of the input")

    def propagations(self) -> tuple[Propagation, ...]:
        """Contributions above the least that each input could contribute."""
        least = (Term(Constant(-self.low), positive), Term(Constant(-self.high), negative))
        return (Propagation((Term(whole, whole), *least)),)
