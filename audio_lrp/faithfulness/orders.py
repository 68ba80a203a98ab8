"""Orders: which units of an input are removed first."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from audio_lrp.errors import UserError
from audio_lrp.faithfulness.draws import drawn
from audio_lrp.faithfulness.units import Partition


@dataclass(frozen=True, eq=False)
class Removable:
    """What an order may look at.

    Attributes:
        input: the inputs [B, C, ...].
        relevance: score of each value, same shape.
        candidates: which values may be removed, bool, same shape.
        silence: the value that stands for silence.
        partition: sums values over units, [B, C, ...] to [B, U].
    """

    input: Tensor
    relevance: Tensor
    candidates: Tensor
    silence: float
    partition: Partition


class Order(ABC):
    """Ranks the units of each input.

    Attributes:
        name: how results call it.
        repetitions: how often it is followed, with generators seeded anew each time.
    """

    name: ClassVar[str]
    repetitions: int = 1

    @abstractmethod
    def scores(self, removable: Removable, generators: Sequence[torch.Generator]) -> Tensor:
        """Score of each unit [B, U]: the highest goes first, of equal ones the one that comes first in the input.

        Args:
            removable: the inputs and their units.
            generators: one for each example, for random scores: the same numbers in every batch and on every device.
        """


class MostRelevantFirst(Order):
    """MoRF (Samek et al., 2017): by falling relevance. The sooner the network minds, the more faithful the map."""

    name = "morf"

    def scores(self, removable: Removable, generators: Sequence[torch.Generator]) -> Tensor:
        """Sum of the relevance of each unit's candidates."""
        return removable.partition.sum(removable.relevance * removable.candidates)


class LeastRelevantFirst(Order):
    """LeRF: by rising relevance, from what speaks most against the class. The later the network minds, the better."""

    name = "lerf"

    def scores(self, removable: Removable, generators: Sequence[torch.Generator]) -> Tensor:
        """Minus the sum of the relevance of each unit's candidates."""
        return -removable.partition.sum(removable.relevance * removable.candidates)


class RandomOrder(Order):
    """Uniformly at random: what any explanation must beat.

    Args:
        repetitions: how many random orders are followed; results hold their mean and spread.
    """

    name = "random"

    def __init__(self, repetitions: int = 1) -> None:
        if repetitions < 1:
            raise UserError(f"repetitions of RandomOrder is {repetitions}: pass 1 or more")
        self.repetitions = repetitions

    def scores(self, removable: Removable, generators: Sequence[torch.Generator]) -> Tensor:
        """Uniform numbers."""
        like = torch.empty(0, dtype=torch.float64, device=removable.input.device)
        return drawn(torch.rand, [removable.partition.count], generators, like)


class LoudestFirst(Order):
    """By falling distance from silence: what any explanation of audio must beat."""

    name = "amplitude"

    def scores(self, removable: Removable, generators: Sequence[torch.Generator]) -> Tensor:
        """Sum of the distances from silence of each unit's candidates."""
        return removable.partition.sum((removable.input - removable.silence).abs() * removable.candidates)


_NAMED: dict[str, type[Order]] = {
    order.name: order for order in (MostRelevantFirst, LeastRelevantFirst, RandomOrder, LoudestFirst)
}

ORDERS = tuple(_NAMED)
"""Names of the shipped orders."""


def orders_by_name(orders: Sequence[str | Order]) -> list[Order]:
    """The orders, names replaced by what they stand for.

    Raises:
        UserError: an unknown name, none, or the same twice.
    """
    unknown = [order for order in orders if not isinstance(order, Order) and order not in _NAMED]
    made = [order if isinstance(order, Order) else _NAMED[order]() for order in orders if order not in unknown]
    names = [order.name for order in made]
    if unknown or not names or len(set(names)) < len(names):
        given = [order.name if isinstance(order, Order) else order for order in orders]
        raise UserError(f"orders are {given}: choose from {', '.join(ORDERS)}, each at most once")
    return made


def positions(scores: Tensor, removable: Tensor) -> Tensor:
    """Position of each unit when the highest score goes first; units that stay come last.

    Args:
        scores: [B, U].
        removable: whether a unit holds candidates, bool [B, U].

    Returns:
        Positions from 0, int32 [B, U].
    """
    order = scores.masked_fill(~removable, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(places).scatter_(1, order, places)
