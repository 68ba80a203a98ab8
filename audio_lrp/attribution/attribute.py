"""The attribution call: which parts of an input made the network say what it says."""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from zennit.core import Composite

from audio_lrp.attribution.composites import Bounds, composite_by_name
from audio_lrp.attribution.conservation import Conservation, LayerAccount, joined
from audio_lrp.attribution.coverage import Coverage, watched
from audio_lrp.attribution.graph import Graph
from audio_lrp.attribution.guard import guarded, holds_nothing, precision
from audio_lrp.attribution.target import OutputRelevance, Target, check_request, relevance_of_output
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.errors import UserError

TOLERATED_ERROR = 1e-4
"""Fraction of the relevance that rounding in float32 may leave unaccounted for; more is warned of."""

TOLERATED_CHANGE = 1e-3
"""Relative change of the logits that canonizers may cause by rounding; zennit 0.5.1 forgets about eps."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of every input value.

    Has a length, and can be indexed by sample: ``explanation[2]``, ``explanation[:4]``.

    Attributes:
        input: what was explained [B, ...].
        relevance: what each input value contributed to what was explained, in its units (logits), same shape as the
            input [B, ...]; for all classes [B, C, ...]. Positive: evidence for the target, negative: against it.
        output: the network's logits in eval mode [B, C].
        target: what was explained: the class of each sample, int64 [B]; for all classes, int64 [B, C]; or the output
            weights that were given [B, C].
        composite: name of the composite whose rules were used.
        conservation: what became of the relevance on its way, layer by layer, in the whole batch.
        modified_gradient: relevance divided by the input, without the rounding of a division, 0 where the input is 0,
            same shape as the relevance; None where the first layer's rule (flat, w-square, z-box) propagates
            relevance regardless of the input, or is not ours.
    """

    input: Tensor
    relevance: Tensor
    output: Tensor
    target: Tensor
    composite: str
    conservation: Conservation
    modified_gradient: Tensor | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.input)

    def __getitem__(self, sample: int | slice) -> "Explanation":
        """The explanation of some samples, or of one, without the axis of the batch."""
        modified_gradient = self.modified_gradient
        return replace(
            self,
            input=self.input[sample],
            relevance=self.relevance[sample],
            output=self.output[sample],
            target=self.target[sample],
            modified_gradient=None if modified_gradient is None else modified_gradient[sample],
        )


def attribute(
    model: nn.Module,
    input: Tensor,  # noqa: A002 (torch's own name for it)
    target: Target = "predicted",
    composite: str | Composite = DEFAULT_COMPOSITE,
    *,
    output_relevance: OutputRelevance = "logit",
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
        output_relevance: relevance that propagation starts with: ``"logit"``, the target's logit; ``"one"``, 1;
            ``"difference"``, its logit, and minus the logit of the runner-up (the largest other one), which explains
            why it is not that class.
        bounds: lowest and highest value the input can take, for the z-box rule of ``epsilon_gamma_box``;
            None: the extremes of this input.
        chunk_size: how many samples are explained at once; bounds the memory, does not change the result.

    Returns:
        The explanation, in the network's precision (float32; float64 for a float64 network).

    Raises:
        UserError: unknown composite; wrong shape, type, device or class index; a network with several inputs, without
            weights, in TorchScript or on an Apple GPU (MPS); or one with a layer or function that no rule covers.

    Warns:
        UserWarning: more than 1e-4 of the relevance is not accounted for.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = nn.init.ones_(network[0].weight)
        >>> explanation = attribute(network, torch.tensor([[3.0, 1.0]]), composite="epsilon")
        >>> [round(value, 4) for value in explanation.relevance[0].tolist()]
        [3.0, 1.0]
    """
    _check_input(model, input, chunk_size)
    if not isinstance(composite, str | Composite):
        raise UserError(f"composite is a {type(composite).__name__}: pass the name of a preset or a zennit composite")
    check_request(target, output_relevance, len(input))
    name = composite if isinstance(composite, str) else type(composite).__name__
    if isinstance(composite, str):
        if bounds is None:
            bounds = (input.min().item(), input.max().item())
        composite = composite_by_name(composite, bounds)

    parts: list[Explanation] = []
    with guarded(model) as network:
        _check_network(network, input)
        with _registered(composite, network):
            begin = 0
            while begin < len(input):
                part = slice(begin, begin + chunk_size)
                chunk = input[part].detach().to(precision(network)).clone().requires_grad_()
                coverage = Coverage(network, composite, name)
                try:
                    with watched(network, coverage):
                        output = network(chunk.clone())  # which it may change in place
                except Exception as error:
                    raise coverage.failure(error, chunk.shape) from error
                _check_output(output, len(chunk), coverage)
                coverage.verify(output)
                graph = Graph(output)
                if len(chunk) > 1 and any(len(call.account) != len(chunk) for call in graph.calls):
                    # Windows or steps of time take the place of samples: only alone is it sure whose they are.
                    parts, begin, chunk_size = [], 0, 1
                    continue
                relevance, explained = relevance_of_output(
                    output, target[part] if isinstance(target, Tensor) else target, output_relevance
                )
                try:
                    parts.append(_explain(chunk, graph, output, relevance, explained, name, coverage))
                except RuntimeError as error:
                    problem = " ".join(str(error).split())
                    raise UserError(f"relevance by {name} cannot be propagated: {problem}") from error
                begin += len(chunk)
        if composite.canonizers:
            _check_canonized(network, input[:chunk_size], parts[0].output, name)
        explanation = _joined(parts)
    conservation = explanation.conservation
    if not conservation.error <= TOLERATED_ERROR:
        warnings.warn(
            f"relevance by {name} is not accounted for: {conservation.error:.1e} of it is missing or added at "
            f"{conservation.largest_gap}, where rounding explains {TOLERATED_ERROR:.0e} at most; do not trust this map",
            stacklevel=2,
        )
    return explanation


@contextmanager
def _registered(composite: Composite, network: nn.Module) -> Iterator[None]:
    try:
        composite.register(network)
        for module in network.modules():  # zennit 1's canonizers leave weights that require a gradient
            computed = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
            vars(module).update({name: value.detach() for name, value in computed.items() if value.grad_fn is not None})
        yield
    finally:
        composite.remove()


def _explain(
    chunk: Tensor,
    graph: Graph,
    output: Tensor,
    relevance: Tensor,
    target: Tensor,
    composite: str,
    coverage: Coverage,
) -> Explanation:
    """Propagate relevance: with the rules registered, autograd carries it instead of a gradient.

    Args:
        chunk: input [B, ...], a leaf of the graph.
        graph: of the forward pass.
        output: logits [B, C].
        relevance: where it starts [B, C], or for all classes [C, B, C].
        target: see `Explanation`.
        composite: its name.
        coverage: what watched the forward pass.
    """
    names = coverage.names
    order = {module: position for position, module in enumerate(names)}
    calls = sorted(graph.calls, key=lambda call: (order[call.module], call.position))
    entries = graph.entries(chunk)
    proportional = bool(entries) and all(entry.rule.proportional for entry in entries)
    for call in calls:
        call.wants_account, call.wants_modified_gradient = True, proportional and call in entries
        call.serves_many = relevance.dim() == 3
    wanted = [chunk, *(call.account for call in calls), *(entry.modified_gradient for entry in entries if proportional)]

    def propagate(upper: Tensor, keep: bool) -> list[Tensor]:
        lower, *rest = torch.autograd.grad(output, wanted, upper, retain_graph=True)
        modified_gradients = rest[len(calls) :]
        if modified_gradients:
            inputs = [entry.operator.input for entry in entries]
            (modified_gradient,) = torch.autograd.grad(inputs, chunk, modified_gradients, retain_graph=keep)
            rest[len(calls) :] = [modified_gradient]
        return [lower, *rest]

    if relevance.dim() == 3:
        maps = [propagate(upper, keep=True) for upper in relevance]
        found = [torch.stack(values, dim=1) for values in zip(*maps, strict=True)]  # the class after the sample
        relevance = relevance.transpose(0, 1)
    else:
        found = propagate(relevance, keep=False)
    lower = found[0]
    number: Counter[str] = Counter()
    accounts = []
    for call, account in zip(calls, found[1:], strict=False):  # behind the accounts comes the modified gradient
        place = names[call.module]
        number[place] += 1
        if len(chunk) == 1:
            account = account.sum(dim=0, keepdim=True)  # whatever the layer took for samples
        accounts.append(
            LayerAccount(
                place if number[place] == 1 else f"{place} (call {number[place]})",
                type(call.module).__name__,
                type(call.rule).__name__,
                *account.unbind(dim=-1),
            )
        )
    conservation = Conservation(
        relevance.sum(dim=-1).double(),
        lower.sum(dim=tuple(range(relevance.dim() - 1, lower.dim()))).double(),
        tuple(accounts),
        coverage.complete,
    )
    modified_gradient = found[-1] if proportional else None
    return Explanation(chunk.detach(), lower, output.detach(), target, composite, conservation, modified_gradient)


def _joined(parts: Sequence[Explanation]) -> Explanation:
    modified_gradients = [part.modified_gradient for part in parts if part.modified_gradient is not None]
    return Explanation(
        torch.cat([part.input for part in parts]),
        torch.cat([part.relevance for part in parts]),
        torch.cat([part.output for part in parts]),
        torch.cat([part.target for part in parts]),
        parts[0].composite,
        joined([part.conservation for part in parts]),
        torch.cat(modified_gradients) if modified_gradients else None,
    )


def _check_input(model: nn.Module, value: Tensor, chunk_size: int) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is a {type(model).__name__}: pass a torch.nn.Module")
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        found = f"a {value.layout} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"input is {found}: pass a dense torch.Tensor")
    if value.ndim < 2 or len(value) == 0:
        raise UserError(f"input has shape {list(value.shape)}: pass a batch [B, ...] of at least one sample")
    if not value.is_floating_point():
        raise UserError(f"input holds {value.dtype}: pass floating-point values, as the network takes them")
    if holds_nothing(value):
        raise UserError("input lies on the meta device, which holds no values")
    if chunk_size < 1:
        raise UserError(f"chunk_size is {chunk_size}: pass the number of samples to explain at once, 1 or more")


def _check_network(network: nn.Module, value: Tensor) -> None:
    hooks = [hook for module in network.modules() for hook in module._forward_pre_hooks.values()]
    if any(isinstance(getattr(hook, "__self__", None), Coverage) for hook in hooks):
        raise UserError(
            "the network is being explained already: attribute was called in its forward or in a hook of it; call it "
            "when the forward pass is over"
        )
    device = next((parameter.device for parameter in network.parameters()), value.device)
    if value.device != device:
        raise UserError(f"input lies on {value.device} but the network on {device}: move one of them to the other")
    needed = [
        parameter.name
        for parameter in inspect.signature(network.forward).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise UserError(
            f"the network takes {len(needed)} inputs ({', '.join(needed)}) but one is explained: pass a module that "
            "takes this one alone and calls the network with the others"
        )


def _check_output(output: object, batch_size: int, coverage: Coverage) -> None:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != batch_size or output.shape[1] == 0:
        found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"the network returned {found}: it must return logits, a tensor [{batch_size}, number of classes]"
        )
    if not output.requires_grad:
        raise UserError(
            "the network's logits do not depend on its input, or are cut off from it"
            f"{coverage.cut_off}: look for detach(), no_grad(), quantised values or a way through NumPy there, which "
            "no relevance can take"
        )


def _check_canonized(network: nn.Module, value: Tensor, output: Tensor, composite: str) -> None:
    """Refuse canonizers that changed what the network computes, as for modules called in another order than defined."""
    with torch.no_grad():
        plain = network(value.to(output, copy=True))  # which it may change in place
    difference = (plain - output).abs().max() / plain.abs().max()
    if difference > TOLERATED_CHANGE:
        raise UserError(
            f"the canonizers of {composite} change the network's logits by {difference.item():.0%}: leave them out; "
            "the presets of audio_lrp, such as epsilon_plus, need none"
        )
