"""The attribution call: which parts of an input made the network say what it says."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from zennit.core import Composite

from audio_lrp.attribution.composites import DEFAULT_COMPOSITE, Bounds, composite_by_name
from audio_lrp.attribution.coverage import Coverage, watched
from audio_lrp.attribution.guard import guarded, precision
from audio_lrp.errors import UserError

_INDEX_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of every input value for one class per sample.

    Attributes:
        relevance: what each input value contributed to the target's logit, in logits, same shape as the input
            [B, ...]; positive: it spoke for the target, negative: against it.
        output: the network's logits in eval mode [B, C].
        target: class explained, int64 [B].
        composite: name of the composite whose rules were used.
    """

    relevance: Tensor
    output: Tensor
    target: Tensor
    composite: str


def attribute(
    model: nn.Module,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Literal["predicted"] | Tensor = "predicted",
    composite: str | Composite = DEFAULT_COMPOSITE,
    *,
    bounds: Bounds | None = None,
    chunk_size: int = 16,
) -> Explanation:
    """Explain a network's decisions by Layer-wise Relevance Propagation (Bach et al., 2015).

    The relevance that starts at the output is the target's logit; each layer hands it down by the rule that the
    composite gives it. Works in fit, validate, test and predict alike, under ``torch.inference_mode``,
    ``torch.no_grad`` and autocast, and leaves the model as it was (see `audio_lrp.attribution.guard`).

    Args:
        model: network that maps the input to logits [B, C]; may be compiled or wrapped for data parallelism.
        input: [B, ...], floating-point, on the network's device.
        target: class index of each sample, integer [B]; or ``"predicted"``, the class of the largest logit.
        composite: name of a preset (see `composite_by_name`) or a zennit composite.
        bounds: lowest and highest value the input can take, for the z-box rule of ``epsilon_gamma_box``;
            None: the extremes of this input.
        chunk_size: how many samples are explained at once; bounds the memory, does not change the result.

    Returns:
        The explanation, in the network's precision (float32; float64 for a float64 network).

    Raises:
        UserError: unknown composite; wrong shape, type, device or class index; or a network for which the rules would
            give wrong relevance: modules used more than once, parametrized weights, layers or functions that no rule
            covers.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = nn.init.ones_(network[0].weight)
        >>> explanation = attribute(network, torch.tensor([[3.0, 1.0]]), composite="epsilon")
        >>> [round(value, 4) for value in explanation.relevance[0].tolist()]
        [3.0, 1.0]
    """
    _check_input(model, input, chunk_size)
    check_target(target, len(input))
    name = composite if isinstance(composite, str) else type(composite).__name__
    if isinstance(composite, str):
        if bounds is None:
            bounds = (input.min().item(), input.max().item())
        composite = composite_by_name(composite, bounds)

    relevances, outputs, targets = [], [], []
    with guarded(model, composite) as network:
        for start in range(0, len(input), chunk_size):
            part = slice(start, start + chunk_size)
            chunk = input[part].detach().to(precision(network)).clone().requires_grad_()
            coverage = Coverage(network, composite, name)
            with watched(network, coverage):
                output = network(chunk)
            _check_output(output, len(chunk))
            coverage.verify(output)
            chosen = output.argmax(dim=1) if isinstance(target, str) else target[part].to(output.device).long()
            check_target(chosen, len(chunk), output.shape[1])
            relevances.append(_relevance(output, chosen, chunk))
            outputs.append(output.detach())
            targets.append(chosen)
        return Explanation(torch.cat(relevances), torch.cat(outputs), torch.cat(targets), name)


def check_target(target: str | Tensor, batch_size: int, num_classes: int | None = None) -> None:
    """Refuse anything but ``"predicted"`` or an integer tensor [batch_size] of classes below ``num_classes``.

    Raises:
        UserError: says what was expected and what came.
    """
    if isinstance(target, str):
        if target != "predicted":
            raise UserError(f"unknown target {target!r}: pass 'predicted' or the class index of each sample")
        return
    if not isinstance(target, Tensor) or target.dtype not in _INDEX_TYPES:
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise UserError(f"target holds {kind}: pass an integer tensor with the class index of each sample")
    if target.shape != (batch_size,):
        raise UserError(f"target has shape {list(target.shape)}: pass one class index per sample, shape [{batch_size}]")
    if num_classes is not None and len(outside := target[(target < 0) | (target >= num_classes)]):
        raise UserError(f"target {outside[0].item()} does not exist: the network has classes 0 to {num_classes - 1}")


def _relevance(output: Tensor, target: Tensor, chunk: Tensor) -> Tensor:
    """Relevance of the chunk [B, ...]: with the hooks registered, autograd carries it down instead of a gradient."""
    seed = torch.zeros_like(output).scatter_(1, target[:, None], output.detach().gather(1, target[:, None]))
    (relevance,) = torch.autograd.grad(output, chunk, grad_outputs=seed)
    return relevance


def _check_input(model: nn.Module, value: Tensor, chunk_size: int) -> None:
    if value.ndim < 2 or len(value) == 0:
        raise UserError(f"input has shape {list(value.shape)}: pass a batch [B, ...] of at least one sample")
    if not value.is_floating_point():
        raise UserError(f"input holds {value.dtype}: pass floating-point values, as the network takes them")
    device = next((parameter.device for parameter in model.parameters()), value.device)
    if value.device != device:
        raise UserError(f"input lies on {value.device} but the network on {device}: move one of them to the other")
    if chunk_size < 1:
        raise UserError(f"chunk_size is {chunk_size}: pass the number of samples to explain at once, 1 or more")


def _check_output(output: object, batch_size: int) -> None:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != batch_size:
        found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"the network returned {found}: it must return logits, a tensor [{batch_size}, number of classes]"
        )
