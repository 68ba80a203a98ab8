"""Robustness: does the explanation stay when the input changes imperceptibly?"""

import torch
from torch import Tensor, nn

from audio_lrp.errors import UserError
from audio_lrp.faithfulness.draws import drawn, example_generators
from audio_lrp.faithfulness.methods import AttributionMethod


def max_sensitivity(
    method: AttributionMethod,
    network: nn.Module,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Tensor,
    *,
    radius: float = 0.02,
    num_samples: int = 10,
    seed: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    """Largest relative change of an explanation within a small neighbourhood of the input.

    Yeh et al., 2019 (arXiv 1901.09392, def. 3), estimated by Monte Carlo: the largest of
    ``norm(R(x + d) - R(x)) / norm(R(x))`` over noise d, uniform in [-radius, radius] for each value. The paper does
    not divide; without it, methods of different units cannot be compared.

    Args:
        method: the attribution method; called ``num_samples + 1`` times.
        network: what is explained.
        input: [B, ...].
        target: class index of each example, integer [B].
        radius: largest change of a value, in the input's units.
        num_samples: how many noises are tried.
        seed: of the noise; torch's global generators are neither used nor advanced.
        index: a number for each example, on which its noise depends; see `perturbation_curves`.

    Returns:
        Sensitivity of each example, float64 [B]; lower is more robust.

    Raises:
        UserError: a radius or number of samples that is not positive.
    """
    if radius <= 0 or num_samples < 1:
        raise UserError(f"radius {radius} and num_samples {num_samples} must be positive")
    generators = example_generators(len(input), index, seed)
    original = method(network, input, target).flatten(1).double()
    size = torch.linalg.vector_norm(original, dim=1)
    worst = torch.zeros_like(size)
    for _ in range(num_samples):
        noise = radius * (2 * drawn(torch.rand, input.shape[1:], generators, like=input) - 1)
        changed = method(network, input + noise, target).flatten(1).double()
        worst = torch.maximum(worst, torch.linalg.vector_norm(changed - original, dim=1))
    relative: Tensor = worst / size
    return relative
