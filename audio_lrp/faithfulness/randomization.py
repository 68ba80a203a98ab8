"""Model parameter randomisation test: does the explanation depend on what the network has learnt?"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from audio_lrp.attribution.guard import unwrap
from audio_lrp.errors import UserError
from audio_lrp.faithfulness.methods import AttributionMethod


@dataclass(frozen=True, eq=False)
class Randomization:
    """How much of the explanations is left when more and more layers have forgotten what they learnt.

    Attributes:
        layers: names of the layers in the order of their randomisation, from the output down.
        correlation: Spearman rank correlation of each example's relevance with the original, after this layer and
            all before it were randomised, float64 [L, B]; NaN where a map is constant.
    """

    layers: tuple[str, ...]
    correlation: Tensor

    def rows(self) -> list[dict[str, str | float]]:
        """One row per layer: its name, mean and standard deviation over the examples, without NaN."""
        rows: list[dict[str, str | float]] = []
        for name, values in zip(self.layers, self.correlation, strict=True):
            defined = values[~values.isnan()]
            rows.append({"layer": name, "mean": defined.mean().item(), "std": defined.std(correction=0).item()})
        return rows


def parameter_randomization(
    method: AttributionMethod,
    network: nn.Module,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Tensor,
    *,
    mask: Tensor | None = None,
    seed: int = 0,
) -> Randomization:
    """Model parameter randomisation test (MPRT), cascading (Adebayo et al., 2018, arXiv 1810.03292).

    Layer by layer, from the output to the input, parameters are drawn anew as before training, on a copy; a method
    whose maps stay similar does not explain what the network has learnt. A layer is a module with parameters of its
    own; one without ``reset_parameters`` gets Gaussian ones with the mean and deviation they had.

    Args:
        method: the attribution method; called once per layer and once before.
        network: what is explained; it is left as it was.
        input: [B, ...].
        target: class index of each example, integer [B].
        mask: values that are compared, bool, broadcastable to the input; None: all. Padding, which has no relevance
            before and after, makes maps look alike: leave it out.
        seed: of the parameters; torch's global generators are left as they were.

    Returns:
        The rank correlations.

    Raises:
        UserError: a network without parameters.
    """
    with torch.inference_mode(False):
        changed = deepcopy(unwrap(network))
    layers = [(name, module) for name, module in changed.named_modules() if [*module.parameters(recurse=False)]][::-1]
    if not layers:
        raise UserError(f"{type(changed).__name__} has no parameters to randomise: pass a network with layers")
    compared = torch.ones_like(input, dtype=torch.bool) if mask is None else mask.expand_as(input)
    original = _ranks(method(network, input, target), compared)
    correlations = []
    devices = [device for device in {value.device for value in changed.parameters()} if device.type == "cuda"]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for _, layer in tqdm(layers, desc="randomising layers", unit="layer", leave=False, disable=None):
            _draw_anew(layer)
            correlations.append(_correlation(original, _ranks(method(changed, input, target), compared)))
    return Randomization(tuple(name for name, _ in layers), torch.stack(correlations))


def _draw_anew(layer: nn.Module) -> None:
    with torch.inference_mode(False), torch.no_grad():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
            return
        for value in layer.parameters(recurse=False):
            value.normal_(value.mean().item(), value.std(correction=0).item())


def rank_correlation(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps, example by example; equal values share their mean rank.

    Args:
        first: [B, ...].
        second: same shape.
        mask: values that are compared, bool, same shape.

    Returns:
        Correlation, -1 to 1, float64 [B]; NaN where a map is constant.

    Example:
        >>> first, second = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[10.0, 30.0, 20.0]])
        >>> round(rank_correlation(first, second, torch.ones(1, 3, dtype=torch.bool)).item(), 6)
        0.5
    """
    return _correlation(_ranks(first, mask), _ranks(second, mask))


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of ranks [B, N] whose mean is 0 [B]."""
    products = [(left * right).sum(dim=1) for left, right in ((first, second), (first, first), (second, second))]
    return products[0] / (products[1] * products[2]).sqrt()


def _ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Ranks among the masked values [B, ...], less their mean, 0 elsewhere, float64 [B, N]."""
    mask = mask.flatten(1)
    values = values.flatten(1).masked_fill(~mask, torch.inf)  # behind all that are compared
    rising = values.sort(dim=1).values
    first, last = (torch.searchsorted(rising, values, side=side) for side in ("left", "right"))
    ranks = (first + last).double() / 2
    mean = (ranks * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    return (ranks - mean) * mask
