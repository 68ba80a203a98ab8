"""What is explained: the relevance that starts at the network's output."""

from typing import Literal

import torch
from torch import Tensor

from audio_lrp.errors import UserError

Target = Literal["predicted", "all"] | Tensor
OutputRelevance = Literal["logit", "one", "difference"]

_INDEX_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
        there = "a single output, whose target is 0" if num_classes == 1 else f"classes 0 to {num_classes - 1}"
        raise UserError(f"target {outside[0].item()} does not exist: the network has {there}")


def check_request(target: Target, output_relevance: OutputRelevance, batch_size: int) -> None:
    """Refuse a target or output relevance that cannot be explained, as far as that shows before the network has run.

    Raises:
        UserError: says what was expected and what came.
    """
    if output_relevance not in ("logit", "one", "difference"):
        raise UserError(f"unknown output_relevance {output_relevance!r}: choose 'logit', 'one' or 'difference'")
    if isinstance(target, str) and target == "all":
        return
    if isinstance(target, str) or not is_weights(target):
        check_target(target, batch_size)
    elif len(target) != batch_size:
        raise UserError(f"target has shape {list(target.shape)}: pass output weights [{batch_size}, number of classes]")
    elif output_relevance == "difference":
        raise UserError(
            "output_relevance 'difference' compares one class with its runner-up: pass class indices, not weights"
        )


def is_weights(target: Target) -> bool:
    """Whether the target is a matrix of output weights [B, C]."""
    return isinstance(target, Tensor) and target.dim() == 2 and target.is_floating_point()


def relevance_of_output(output: Tensor, target: Target, kind: OutputRelevance) -> tuple[Tensor, Tensor]:
    """Relevance of the outputs, and what it stands for.

    Args:
        output: logits [B, C].
        target: ``"predicted"``, ``"all"``, class indices [B] or weights [B, C].
        kind: ``output_relevance`` of `audio_lrp.attribution.attribute`.

    Returns:
        Relevance [B, C], for ``"all"`` [C, B, C] (class explained first); and the target: class indices [B], for
        ``"all"`` [B, C], or the weights [B, C].

    Raises:
        UserError: a class or a number of weights that the output does not have, or a single class without runner-up.
    """
    output = output.detach()
    size, num_classes = output.shape
    if kind == "difference" and num_classes == 1:
        raise UserError(
            "output_relevance 'difference' compares a class with its runner-up, but the network has a single output"
        )
    if isinstance(target, Tensor) and is_weights(target):
        if target.shape != output.shape:
            raise UserError(f"target has {target.shape[1]} weights per sample but the network {num_classes} outputs")
        weights = target.to(output)
        return weights if kind == "one" else weights * output, weights
    if isinstance(target, str) and target == "all":
        classes = torch.arange(num_classes, device=output.device)
        relevance = torch.stack([_of_class(output, index.expand(size), kind) for index in classes])
        return relevance, classes.expand(size, -1)
    chosen = output.argmax(dim=1) if isinstance(target, str) else target.to(output.device).long()
    check_target(chosen, size, num_classes)
    return _of_class(output, chosen, kind), chosen


def _of_class(output: Tensor, chosen: Tensor, kind: OutputRelevance) -> Tensor:
    """Relevance [B, C] for the class chosen for each sample [B]."""
    index = chosen[:, None]
    if kind == "one":
        return torch.zeros_like(output).scatter_(1, index, 1.0)
    relevance = torch.zeros_like(output).scatter_(1, index, output.gather(1, index))
    if kind == "difference":
        runner_up = output.scatter(1, index, float("-inf")).argmax(dim=1, keepdim=True)
        relevance.scatter_(1, runner_up, -output.gather(1, runner_up))
    return relevance
