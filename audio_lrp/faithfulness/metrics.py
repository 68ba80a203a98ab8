"""Tests of explanations as torchmetrics Metrics, for any training or evaluation loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from audio_lrp.errors import UserError
from audio_lrp.faithfulness.baselines import Baseline
from audio_lrp.faithfulness.concentration import complexity, sparseness
from audio_lrp.faithfulness.curves import DEFAULT_FRACTIONS, QUANTITIES, PerturbationCurves, Quantity
from audio_lrp.faithfulness.localization import relevance_mass_accuracy, relevance_rank_accuracy
from audio_lrp.faithfulness.methods import AttributionMethod
from audio_lrp.faithfulness.orders import ORDERS, Order, orders_by_name
from audio_lrp.faithfulness.perturbation import Predict, perturbation_curves
from audio_lrp.faithfulness.scores import all_scores
from audio_lrp.faithfulness.sensitivity import max_sensitivity
from audio_lrp.faithfulness.units import Units
from audio_lrp.timefrequency.stft import STFT


class Faithfulness(Metric):
    """Scores of perturbation curves over all batches and processes.

    ``compute`` returns the mean over the examples of every score that orders and fractions allow, see `all_scores`:
    ``aopc_<order>``, ``aupc_<order>``, ``srg``, ``comprehensiveness``, ``sufficiency``. ``curves`` returns the curves
    themselves, for rows of a table or confidence intervals; ``plot`` draws them. Several processes get what one would
    that sees all their examples, also along random orders where each example's index is given.

    Args:
        orders: names out of `ORDERS`, or orders of your own.
        fractions: strictly increasing from 0 to at most 1.
        unit: what is removed at once, see `perturbation_curves`.
        baseline: what takes its place; a number stands for silence of that value.
        transform: removes bins, frames or bands of waveforms in this STFT's plane.
        quantity: what the scores are made of.
        seed: of random orders and noise.
        chunk_size: how many perturbed inputs are predicted at once.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
        >>> signals, target = torch.ones(3, 1, 8), torch.tensor([0, 1, 1])
        >>> metric = Faithfulness(orders=["morf", "lerf"], fractions=(0, 0.5, 1))
        >>> metric.update(network, signals, target, relevance=torch.rand(3, 1, 8))
        >>> sorted(metric.compute())
        ['aopc_lerf', 'aopc_morf', 'aupc_lerf', 'aupc_morf', 'srg']
    """

    full_state_update = False
    is_differentiable = False
    outcomes: list[Tensor]

    def __init__(
        self,
        orders: Sequence[str | Order] = ORDERS,
        fractions: Sequence[float] = DEFAULT_FRACTIONS,
        unit: int | Units = 1,
        baseline: float | Baseline = 0.0,
        transform: STFT | None = None,
        quantity: Quantity = "probability",
        seed: int = 0,
        chunk_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.quantity = quantity
        self._options: dict[str, Any] = {
            "orders": orders_by_name(orders),
            "fractions": tuple(fractions),
            "unit": unit,
            "baseline": baseline,
            "transform": transform,
            "seed": seed,
            "chunk_size": chunk_size,
        }
        self.add_state("outcomes", default=[], dist_reduce_fx="cat")

    def update(
        self,
        predict: Predict,
        input: Tensor,  # noqa: A002
        target: Tensor,
        relevance: Tensor,
        candidates: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Follow the curves of a batch; for the arguments see `perturbation_curves`."""
        given: dict[str, Any] = {"candidates": candidates, "index": index}
        curves = perturbation_curves(predict, input, target, relevance, **given, **self._options)
        self.outcomes.append(curves.outcomes.movedim(2, 0).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Mean of each score over the examples, on the metric's device."""
        curves = self._curves()
        return {name: values.mean().to(self.device) for name, values in all_scores(curves, self.quantity).items()}

    def curves(self) -> PerturbationCurves:
        """The curves of all examples of all processes; call it in all of them."""
        with self.sync_context():
            return self._curves()

    def plot(self, val: None = None, ax: Any = None) -> tuple[Any, Any]:
        """Draw the mean curve of each order, with the spread of repeated ones.

        Args:
            val: not used; torchmetrics' signature.
            ax: matplotlib axes to draw into; None: new ones.

        Returns:
            Figure and axes.
        """
        import matplotlib.pyplot as plt

        curves = self.curves()
        ax = plt.subplots()[1] if ax is None else ax
        for order in curves.orders:
            mean, spread = curves.of_examples(order, self.quantity).mean(dim=0), curves.spread(order, self.quantity)
            (line,) = ax.plot(curves.fractions, mean, label=order)
            ax.fill_between(curves.fractions, mean - spread, mean + spread, color=line.get_color(), alpha=0.2)
        ax.set(xlabel="fraction removed", ylabel=self.quantity)
        ax.legend()
        return ax.get_figure(), ax

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Let a process without examples give none of the others' shape and type: torchmetrics' are of another."""
        if not self.outcomes:
            curves = sum(order.repetitions for order in self._options["orders"])
            shape = (0, len(QUANTITIES), curves, len(self._options["fractions"]))
            self.outcomes = [torch.empty(shape, dtype=torch.float64, device=self.device)]
        super()._sync_dist(*args, **kwargs)

    def _curves(self) -> PerturbationCurves:
        if not len(self.outcomes):
            raise UserError("Faithfulness has seen no examples: call update before compute, curves or plot")
        orders = self._options["orders"]
        return PerturbationCurves(
            torch.tensor(self._options["fractions"], dtype=torch.float64),
            tuple(order.name for order in orders),
            tuple(order.repetitions for order in orders),
            dim_zero_cat(self.outcomes).movedim(0, 2).cpu(),
        )


class _ExampleMean(Metric):
    """Mean of a score over the examples of all batches and processes, NaN left out."""

    full_state_update = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean; NaN if no example has a score."""
        return self.total / self.count

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the mean, or values of several steps; see `torchmetrics.Metric.plot`."""
        return self._plot(val, ax)

    def _add(self, values: Tensor) -> None:
        self.total += values.nansum().to(self.total)
        self.count += (~values.isnan()).sum().to(self.count)


class RelevanceMassAccuracy(_ExampleMean):
    """Mean share of the positive relevance inside a mask, see `relevance_mass_accuracy`.

    Example:
        >>> metric = RelevanceMassAccuracy()
        >>> metric.update(torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([[True, False, False]]))
        >>> metric.compute().item()
        0.75
    """

    higher_is_better = True

    def update(self, relevance: Tensor, mask: Tensor) -> None:
        """Add a batch: relevance [B, ...] and a mask broadcastable to it."""
        self._add(relevance_mass_accuracy(relevance, mask))


class RelevanceRankAccuracy(_ExampleMean):
    """Mean share of the most relevant values inside a mask, see `relevance_rank_accuracy`."""

    higher_is_better = True

    def update(self, relevance: Tensor, mask: Tensor) -> None:
        """Add a batch: relevance [B, ...] and a mask broadcastable to it."""
        self._add(relevance_rank_accuracy(relevance, mask))


class Sparseness(_ExampleMean):
    """Mean Gini index of maps, see `sparseness`."""

    higher_is_better = True

    def update(self, relevance: Tensor) -> None:
        """Add a batch of relevance [B, ...]."""
        self._add(sparseness(relevance))


class Complexity(_ExampleMean):
    """Mean entropy of maps in nats, see `complexity`."""

    higher_is_better = False

    def update(self, relevance: Tensor) -> None:
        """Add a batch of relevance [B, ...]."""
        self._add(complexity(relevance))


class MaxSensitivity(_ExampleMean):
    """Mean of the largest change of maps under noise, see `max_sensitivity`.

    Args:
        method: the attribution method.
        radius: largest change of a value, in the input's units.
        num_samples: how many noises are tried.
        seed: of the noise.
        kwargs: of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(
        self, method: AttributionMethod, radius: float = 0.02, num_samples: int = 10, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.method = method
        self.radius = radius
        self.num_samples = num_samples
        self.seed = seed

    def update(
        self,
        network: nn.Module,
        input: Tensor,  # noqa: A002
        target: Tensor,
        index: Tensor | None = None,
    ) -> None:
        """Explain a batch; for the arguments see `max_sensitivity`."""
        self._add(
            max_sensitivity(
                *(self.method, network, input, target),
                radius=self.radius,
                num_samples=self.num_samples,
                seed=self.seed,
                index=index,
            )
        )
