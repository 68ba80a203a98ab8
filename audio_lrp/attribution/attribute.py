"""The attribution call: which parts of an input made the network say what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from zennit.core import Composite

from audio_lrp.attribution.composites import Bounds, composite_by_name
from audio_lrp.attribution.conservation import Conservation, LayerAccount, joined
from audio_lrp.attribution.coverage import Coverage, watched
from audio_lrp.attribution.graph import Graph
from audio_lrp.attribution.guard import guarded, precision
from audio_lrp.attribution.seed import Seed, Target, check_request, start
from audio_lrp.errors import UserError
from audio_lrp.names import DEFAULT_COMPOSITE


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of every input value.

    Attributes:
        relevance: what each input value contributed to what was explained, in its units (logits), same shape as the
            input [B, ...]; for all classes [B, C, ...]. Positive: it spoke for the target, negative: against it.
        output: the network's logits in eval mode [B, C].
        target: what was explained: the class of each sample, int64 [B]; for all classes, int64 [B, C]; or the output
            weights that were given [B, C].
        composite: name of the composite whose rules were used.
        conservation: what became of the relevance on its way, layer by layer.
        modified_gradient: relevance divided by the input, without the rounding of a division, 0 where the input is 0,
            same shape as the relevance; None where the first layer's rule (flat, w-square, z-box) shares relevance
            out regardless of the input, or is not ours.
    """

    relevance: Tensor
    output: Tensor
    target: Tensor
    composite: str
    conservation: Conservation
    modified_gradient: Tensor | None = None


def attribute(
    model: nn.Module,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Target = "predicted",
    composite: str | Composite = DEFAULT_COMPOSITE,
    *,
    seed: Seed = "logit",
    bounds: Bounds | None = None,
    chunk_size: int = 16,
) -> Explanation:
    """Explain a network's decisions by Layer-wise Relevance Propagation (Bach et al., 2015).

    Relevance starts at the output; each layer hands it down by the rule that the composite gives it. Works in fit,
    validate, test and predict alike, under ``torch.inference_mode``, ``torch.no_grad`` and autocast, and leaves the
    model as it was (see `audio_lrp.attribution.guard`).

    Args:
        model: network that maps the input to logits [B, C]; may be compiled or wrapped for data parallelism.
        input: [B, ...], floating-point, on the network's device.
        target: class index of each sample, integer [B]; ``"predicted"``, the class of the largest logit; ``"all"``,
            every class, each at little more than the cost of a backward pass; or output weights, floating-point
            [B, C], to explain a sum of outputs.
        composite: name of a preset (see `composite_by_name`) or a zennit composite, such as a `RuleMap`.
        seed: relevance that the target starts with: ``"logit"``, its logit; ``"one"``, 1; ``"difference"``, its logit,
            and minus the logit of the runner-up (the largest other one), which explains why it is not that class.
        bounds: lowest and highest value the input can take, for the z-box rule of ``epsilon_gamma_box``;
            None: the extremes of this input.
        chunk_size: how many samples are explained at once; bounds the memory, does not change the result.

    Returns:
        The explanation, in the network's precision (float32; float64 for a float64 network).

    Raises:
        UserError: unknown composite; wrong shape, type, device or class index; or a network for which the rules would
            give wrong relevance: modules used more than once, parametrized weights, layers or functions that no rule
            covers; or one on an Apple GPU (MPS).

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = nn.init.ones_(network[0].weight)
        >>> explanation = attribute(network, torch.tensor([[3.0, 1.0]]), composite="epsilon")
        >>> [round(value, 4) for value in explanation.relevance[0].tolist()]
        [3.0, 1.0]
    """
    _check_input(model, input, chunk_size)
    check_request(target, seed, len(input))
    name = composite if isinstance(composite, str) else type(composite).__name__
    if isinstance(composite, str):
        if bounds is None:
            bounds = (input.min().item(), input.max().item())
        composite = composite_by_name(composite, bounds)

    parts: list[Explanation] = []
    with guarded(model, composite) as network:
        names = {module: path for path, module in network.named_modules()}
        for begin in range(0, len(input), chunk_size):
            part = slice(begin, begin + chunk_size)
            chunk = input[part].detach().to(precision(network)).clone().requires_grad_()
            coverage = Coverage(network, composite, name)
            with watched(network, coverage):
                output = network(chunk.view_as(chunk))  # torch's FLOP counter fails on leaves of the graph
            _check_output(output, len(chunk))
            coverage.verify(output)
            relevance, explained = start(output, target[part] if isinstance(target, Tensor) else target, seed)
            parts.append(_explain(chunk, output, relevance, explained, name, names))
        return _joined(parts)


def _explain(
    chunk: Tensor, output: Tensor, relevance: Tensor, target: Tensor, composite: str, names: dict[nn.Module, str]
) -> Explanation:
    """Hand relevance down: with the rules registered, autograd carries it instead of a gradient.

    Args:
        chunk: input [B, ...], a leaf of the graph.
        output: logits [B, C].
        relevance: where it starts [B, C], or for all classes [C, B, C].
        target: see `Explanation`.
        composite: its name.
        names: the modules' names, in the network's order.
    """
    graph = Graph(output)
    order = {module: position for position, module in enumerate(names)}
    layers = sorted(graph.layers, key=lambda layer: order[layer.rule.module])
    for layer in layers:
        layer.wants_account = True
    wanted = [chunk, *(layer.account for layer in layers)]
    entry = graph.entry(chunk)
    if proportional := entry is not None and entry.rule.proportional:
        entry.wants_quotient = True
        wanted.append(entry.quotient)
    if relevance.dim() == 3:
        for layer in layers:
            layer.serves_many = True
        maps = [torch.autograd.grad(output, wanted, seed, retain_graph=True) for seed in relevance]
        found = tuple(torch.stack(values, dim=1) for values in zip(*maps, strict=True))  # the class after the sample
        relevance = relevance.transpose(0, 1)
    else:
        found = torch.autograd.grad(output, wanted, relevance)
    lower, accounts = found[0], found[1 : 1 + len(layers)]
    conservation = Conservation(
        relevance.sum(dim=-1).double(),
        lower.sum(dim=tuple(range(relevance.dim() - 1, lower.dim()))).double(),
        tuple(
            LayerAccount(
                names[layer.rule.module],
                type(layer.rule.module).__name__,
                type(layer.rule).__name__,
                *account.unbind(dim=-1),
            )
            for layer, account in zip(layers, accounts, strict=True)
        ),
    )
    quotient = found[-1].reshape(lower.shape) if proportional else None
    return Explanation(lower, output.detach(), target, composite, conservation, quotient)


def _joined(parts: Sequence[Explanation]) -> Explanation:
    quotients = [part.modified_gradient for part in parts if part.modified_gradient is not None]
    return Explanation(
        torch.cat([part.relevance for part in parts]),
        torch.cat([part.output for part in parts]),
        torch.cat([part.target for part in parts]),
        parts[0].composite,
        joined([part.conservation for part in parts]),
        torch.cat(quotients) if quotients else None,
    )


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
    if not output.requires_grad:
        raise UserError(
            "the network's logits do not depend on its input, or are cut off from it: look for detach(), no_grad() or "
            "a way through NumPy in its forward method, which no relevance can take"
        )
