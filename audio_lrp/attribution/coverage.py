"""Refuse networks whose relevance would be silently wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from zennit.core import Composite
from zennit.rules import Pass as StockPass
from zennit.types import BatchNorm, Convolution, Linear

from audio_lrp.attribution.graph import operation
from audio_lrp.attribution.rules import Pass
from audio_lrp.errors import UserError

# Operations that may stand between the rules because their gradient carries relevance as it should: they move values
# without changing them, or choose between them. Everything else (sums, products, normalisations) needs a rule.
_NEEDS_NO_RULE = frozenset(
    {
        *("torch::autograd::AccumulateGrad", "BackwardHookFunction"),
        *("Alias", "Clone", "ToCopy", "View", "UnsafeView", "ReshapeAlias", "Unflatten"),
        *("Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "Expand"),
        *("Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Cat", "Stack", "ConstantPadNd"),
        *("Relu", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
    }
)


class Coverage:
    """Watches one forward pass and refuses it where the composite's rules do not apply.

    Module types alone do not tell: a softmax, a sum or a normalisation may be called as a function. So the recorded
    graph is walked from the output to the input, skipping what happens inside modules that have a rule; what is left
    must be operations that need no rule.
    """

    def __init__(self, network: nn.Module, composite: Composite, composite_name: str) -> None:
        self._composite = composite_name
        self._names = {module: name for name, module in network.named_modules()}
        context: dict[Any, Any] = {}  # zennit's memory of what it has mapped, e.g. the first layer
        hooks = {module: composite.module_map(context, name, module) for module, name in self._names.items()}
        self._rules = {module: hook for module, hook in hooks.items() if hook is not None}
        # Handles of canonizers: ours know what they merged, so do zennit's.
        pairs = [getattr(handle, "merged", None) for handle in composite.handles]
        stock = [
            (linear, handle.batch_norm) for handle in composite.handles for linear in getattr(handle, "linears", ())
        ]
        self._merged = {norm: [layer] for layer, norm in filter(None, [*pairs, *stock])}
        self._norms = {layer: norm for norm, (layer,) in self._merged.items()}
        self._entries: dict[nn.Module, list[Node]] = {}  # where the latest call of a module with a rule began
        self._crossings: dict[Node, list[Node]] = {}  # from the end of a module with a rule to its beginning
        self._owners: dict[Node, nn.Module] = {}  # innermost module that ended in this operation

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook: refuse what the module's type or state rules out."""
        place = self._place(module)
        if isinstance(module, BatchNorm) and not _is_identity(module):
            raise UserError(
                f"no rule of {self._composite} covers {place}: it must follow a convolution or dense layer, "
                "in a composite whose canonizers merge it into that layer (MergeBatchNorm)"
            )
        if module in self._rules and not args:
            raise UserError(f"{place} gets its input by keyword, where no rule sees it: pass it by position")
        merged_into = self._merged.get(module, [])
        if merged_into and [self._owners.get(node) for node in _nodes(args)] != merged_into:
            raise UserError(
                f"{place} was merged into {self._place(merged_into[0])}, which comes before it where the network "
                "defines its modules but not where it calls them: define them in the order of the calls"
            )
        if merged_into and isinstance(merged_into[0], nn.Linear) and args[0].ndim != 2:
            raise UserError(
                f"{place} cannot be merged into {self._place(merged_into[0])}: of input {list(args[0].shape)} it "
                "normalises axis 1, but the layer's outputs run along the last"
            )
        if module not in self._rules:
            return
        if isinstance(module, nn.MultiheadAttention):  # zennit counts it among the elementwise activations
            raise UserError(f"no rule of {self._composite} covers {place}: replace it, or give it a rule of its own")
        if module in self._entries and not isinstance(self._rules[module], Pass | StockPass):
            raise UserError(
                f"{place} is used more than once in a forward pass, which LRP rules cannot tell apart: "
                "give each use its own module"
            )
        if isinstance(module, Linear):
            _check_layer(module, place, args[0])
        self._entries[module] = _nodes(args)

    def after(self, module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        """Forward hook: remember where the module ended."""
        for node in _nodes(output if isinstance(output, tuple) else (output,)):
            self._owners.setdefault(node, module)
            if module in self._rules:
                self._crossings.setdefault(node, self._entries[module])

    def verify(self, output: Tensor) -> None:
        """Refuse the forward pass that led to this output if something on its way has no rule.

        Raises:
            UserError: names the operation and the module.
        """
        following = _nodes((output,))
        self._check_merged(None, following)
        todo: list[tuple[Node, nn.Module | None]] = [(node, None) for node in following]
        seen: set[Node] = set()
        while todo:
            node, module = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._crossings:
                following, module = self._crossings[node], None
            else:
                module = self._owners.get(node, module)
                if operation(node) not in _NEEDS_NO_RULE:
                    self._refuse(operation(node), module)
                following = [origin for origin, _ in node.next_functions if origin is not None]
            self._check_merged(self._owners.get(node), following)
            todo += [(origin, module) for origin in following]

    def _check_merged(self, consumer: nn.Module | None, origins: list[Node]) -> None:
        """Refuse a layer with a merged norm whose output another consumer takes as well: merging changed it."""
        for layer in filter(None, map(self._owners.get, origins)):
            norm = self._norms.get(layer)
            if norm is not None and consumer is not norm:
                raise UserError(
                    f"{self._place(norm)} was merged into {self._place(layer)}, the layer defined before it, whose "
                    "output is also used without the normalisation: let nothing else take it, and remove a "
                    "normalisation that is never called"
                )

    def _refuse(self, name: str, module: nn.Module | None) -> None:
        place = "a function in the network's forward" if module is None else self._place(module)
        if "Softmax" in name:
            mend = "LRP explains logits, so let the network return what comes before the softmax"
        else:
            mend = "replace it by a layer that has a rule, or pass a zennit composite with a rule for it"
        raise UserError(f"no rule of {self._composite} covers {place} (operation {name}): {mend}")

    def _place(self, module: nn.Module) -> str:
        name = self._names[module]
        return f"module {name!r} ({type(module).__name__})" if name else f"the network {type(module).__name__}"


@contextmanager
def watched(network: nn.Module, coverage: Coverage) -> Iterator[None]:
    """Let ``coverage`` watch the forward pass run inside."""
    handles = []
    try:
        for module in network.modules():
            # Before zennit's own hook, which cuts the graph at a module's input.
            handles.append(module.register_forward_pre_hook(coverage.before, prepend=True))
            handles.append(module.register_forward_hook(coverage.after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nodes(values: tuple[Any, ...]) -> list[Node]:
    return [value.grad_fn for value in values if isinstance(value, Tensor) and value.grad_fn is not None]


def _is_identity(norm: Any) -> bool:
    """Whether a batch normalisation changes nothing in eval mode, as after merging it into the layer before."""
    if norm.running_mean is None or norm.running_var is None:
        return False  # normalises by the batch's own statistics
    return (
        not norm.running_mean.any()
        and bool(((norm.running_var + norm.eps - 1).abs() <= 1.1 * norm.eps).all())  # zennit 0.5.1 forgets about eps
        and (norm.weight is None or bool((norm.weight == 1).all()))
        and (norm.bias is None or not norm.bias.any())
    )


def _check_layer(layer: Any, place: str, value: Tensor) -> None:
    """Refuse parametrized weights and input that does not fit a convolution or dense layer."""
    if not {"weight", "bias"} <= layer._parameters.keys():
        raise UserError(
            f"{place} computes its weights anew in each forward pass (weight norm, spectral norm, pruning or another "
            "parametrization), which LRP rules cannot see through: make the weights plain parameters first"
        )
    if isinstance(layer, Convolution):
        fits = value.ndim == layer.weight.ndim and value.shape[1] == layer.in_channels
        wanted = f"[B, {layer.in_channels}{', size' * (layer.weight.ndim - 2)}]"
    else:
        fits = value.ndim >= 2 and value.shape[-1] == layer.in_features
        wanted = f"[B, ..., {layer.in_features}]"
    if not fits:
        raise UserError(
            f"{place} takes input of shape {wanted} but gets {list(value.shape)}: "
            "give the network input of the shape it was built for"
        )
