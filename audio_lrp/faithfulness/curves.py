"""Perturbation curves as data: what a network answered while its input was removed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from audio_lrp.errors import UserError

DEFAULT_FRACTIONS = (
    *(percent / 100 for percent in range(11)),
    *(tenth / 10 for tenth in range(2, 10)),
    *(0.95, 0.99, 1.0),
)
"""0 to 10 % in steps of 1 %, where good explanations differ most, to 90 % in steps of 10 %, and what is left of it."""

Quantity = Literal["accuracy", "probability", "logit"]

QUANTITIES: tuple[Quantity, ...] = ("accuracy", "probability", "logit")


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """How a network's answer changes while its input is removed, for several orders of removal.

    Attributes:
        fractions: removed fraction of each example's candidate units, first 0, float64 [S].
        orders: names of the orders.
        repetitions: how often each order was followed.
        outcomes: accuracy (0 or 1), probability (softmax; sigmoid of a single output) and logit of each example's
            target, float64 [3, K, B, S]; the K curves are the orders' repetitions one after the other.

    All tensors lie on the CPU.
    """

    fractions: Tensor
    orders: tuple[str, ...]
    repetitions: tuple[int, ...]
    outcomes: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of the examples whose target is predicted [O, S]."""
        return self._mean("accuracy")

    @property
    def probability(self) -> Tensor:
        """Mean probability of the target [O, S]."""
        return self._mean("probability")

    @property
    def logit(self) -> Tensor:
        """Mean logit of the target [O, S]."""
        return self._mean("logit")

    def of_examples(self, order: str, quantity: Quantity = "probability") -> Tensor:
        """Each example's own curve, averaged over repetitions, float64 [B, S].

        Raises:
            UserError: the curves were not computed for this order.
        """
        return self._repeated(order, quantity).mean(dim=0)

    def spread(self, order: str, quantity: Quantity = "probability") -> Tensor:
        """Standard deviation of the average curve over the repetitions of an order, 0 for a single one [S].

        Raises:
            UserError: the curves were not computed for this order.
        """
        means = self._repeated(order, quantity).mean(dim=1)
        return means.std(dim=0) if len(means) > 1 else torch.zeros_like(means[0])

    def at(self, order: str, fraction: float, quantity: Quantity = "probability") -> Tensor:
        """Each example's value where this fraction is removed, float64 [B].

        Raises:
            UserError: the curves were not computed for this order or fraction.
        """
        if not self.has(fraction):
            grid = ", ".join(f"{value:g}" for value in self.fractions)
            raise UserError(f"no point of the curves has {fraction:g} removed: this run has {grid}")
        step = int((self.fractions - fraction).abs().argmin())
        return self.of_examples(order, quantity)[:, step]

    def has(self, fraction: float) -> bool:
        """Whether the curves have a point with this fraction removed, but for rounding."""
        return bool(((self.fractions - fraction).abs() < 1e-9).any())

    def rows(self) -> list[dict[str, str | float]]:
        """One row per order and fraction, e.g. for a CSV file or a table.

        If an order was repeated, ``accuracy_std``, ... hold the spread over the repetitions.
        """
        columns: dict[str, Tensor] = {name: self._mean(name) for name in QUANTITIES}
        if max(self.repetitions) > 1:
            spreads = {name: [self.spread(order, name) for order in self.orders] for name in QUANTITIES}
            columns |= {f"{name}_std": torch.stack(values) for name, values in spreads.items()}
        rows: list[dict[str, str | float]] = []
        for index, order in enumerate(self.orders):
            for step, fraction in enumerate(self.fractions):
                values = {name: float(column[index, step]) for name, column in columns.items()}
                rows.append({"order": order, "fraction": float(fraction), **values})
        return rows

    def _mean(self, quantity: Quantity) -> Tensor:
        return torch.stack([self.of_examples(order, quantity).mean(dim=0) for order in self.orders])

    def _repeated(self, order: str, quantity: Quantity) -> Tensor:
        """The curves of an order [repetitions, B, S]."""
        if order not in self.orders:
            raise UserError(f"no curve for order {order!r}: this run has {', '.join(self.orders)}")
        index = self.orders.index(order)
        begin = sum(self.repetitions[:index])
        return self.outcomes[QUANTITIES.index(quantity), begin : begin + self.repetitions[index]]


def joined_curves(parts: Sequence[PerturbationCurves]) -> PerturbationCurves:
    """The curves of a set of examples out of those of its batches, computed with the same options."""
    first = parts[0]
    outcomes = torch.cat([part.outcomes for part in parts], dim=2)
    return PerturbationCurves(first.fractions, first.orders, first.repetitions, outcomes)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that do not begin with the clean input and rise.

    Raises:
        UserError: says what was expected and what came.
    """
    rising = all(left < right for left, right in itertools.pairwise(fractions))
    if len(fractions) < 2 or fractions[0] != 0 or fractions[-1] > 1 or not rising:
        raise UserError(f"fractions are {list(fractions)}: begin with 0 and rise strictly to at most 1, e.g. 0, 0.1, 1")
