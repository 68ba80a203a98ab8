"""Refusal of networks whose relevance would be silently wrong."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from zennit.core import BasicHook, Composite
from zennit.rules import Pass as StockPass
from zennit.types import AvgPool, Linear

from audio_lrp.attribution.calls import call_of
from audio_lrp.attribution.graph import FOLLOWS_VALUES, operation
from audio_lrp.attribution.hooks import NOT_ELEMENTWISE, Pass, Rule, is_elementwise
from audio_lrp.attribution.operators import LayerError
from audio_lrp.errors import UserError

_NEEDS_NO_RULE = FOLLOWS_VALUES | {
    *("AccumulateGrad", "BackwardHookFunction"),
    *("Redistribution", "PassThrough"),  # those of our rules
}
_TORCHS_COMPLAINTS = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError)


class Coverage:
    """Watches one forward pass and refuses it where the composite's rules do not apply.

    Module types alone do not tell what a network computes: a softmax or a sum may be called as a function, a subclass
    of a layer have a forward of its own, a hook change what it returns. So the recorded graph is walked from the output
    to the input: what is neither tied by a rule of ours nor inside a module with a rule of zennit's must be an
    operation that needs no rule. Rules of zennit's trust a module's forward and parameters, and so are checked against
    what the module returned, with one sample.
    """

    def __init__(self, network: nn.Module, composite: Composite, composite_name: str) -> None:
        self._composite = composite_name
        self.names = {module: name for name, module in network.named_modules()}
        context: dict[Any, Any] = {}  # zennit's memory of what it has mapped, e.g. the first layer
        hooks = {module: composite.module_map(context, name, module) for module, name in self.names.items()}
        self._rules = {module: hook for module, hook in hooks.items() if hook is not None}
        self._running: list[tuple[nn.Module, int]] = []  # modules whose forward runs, and where in the graph it began
        self._calls: list[tuple[int, int, nn.Module]] = []  # where the forwards of modules began and ended
        self._entries: dict[nn.Module, tuple[list[Node], Tensor]] = {}  # where the latest call of a module began
        self._crossings: dict[
            Node, list[Node]
        ] = {}  # from the end of a module with a rule of zennit's to its beginning
        self._thread = threading.get_ident()
        self._cut_at: nn.Module | None = None
        self.complete = True
        """Whether every relevance that was redistributed stands in the ledger, as it does by our rules."""

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook: refuse what the module's state or input rules out."""
        if threading.get_ident() != self._thread:
            return
        self._running.append((module, _get_sequence_nr()))
        rule = self._rules.get(module)
        if rule is None or isinstance(rule, Rule | Pass):
            return
        place = self._place(module)
        if not args or not isinstance(args[0], Tensor):
            raise UserError(
                f"{place} gets its input by keyword, where no rule of zennit's sees it: pass it by position"
            )
        if module in self._entries and not isinstance(rule, StockPass):
            raise UserError(
                f"{place} is used more than once in a forward pass, which zennit's rules cannot tell apart: "
                "give it a rule of audio_lrp's, or each use its own module"
            )
        self._entries[module] = _nodes(args), args[0][:1].detach().clone()  # the module may work in place

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: remember where the module ended, and refuse what no rule of zennit's covers."""
        if threading.get_ident() != self._thread:
            return
        outputs = output if isinstance(output, tuple) else (output,)
        _, begin = self._running.pop()
        self._calls.append((begin, _get_sequence_nr(), module))
        if self._cut_at is None and torch.is_grad_enabled() and _cuts_off((*args, *kwargs.values()), outputs):
            self._cut_at = module
        if module in self._entries:
            nodes, sample = self._entries[module]
            self._check_stock(module, args, sample, output)
            for node in _nodes(outputs):
                self._crossings.setdefault(node, nodes)

    @property
    def cut_off(self) -> str:
        """Where a module gave values without their way back to the input, for a message."""
        return f" by {self._place(self._cut_at)}" if self._cut_at else ""

    def failure(self, error: Exception, shape: torch.Size) -> Exception:
        """The error to raise for one that ended the forward pass: it names the module where that happened."""
        is_understood = isinstance(error, (LayerError, *_TORCHS_COMPLAINTS))
        if (
            not is_understood
            or (isinstance(error, UserError) and not isinstance(error, LayerError))
            or not self._running
        ):
            return error
        place = self._place(self._running[-1][0])
        if isinstance(error, LayerError):
            return UserError(f"no rule of {self._composite} covers {place}: {error}")
        problem = " ".join(str(error).split())
        return UserError(f"{place} fails on the network's input {list(shape)}: {problem}")

    def verify(self, output: Tensor) -> None:
        """Refuse the forward pass that led to this output if something on its way has no rule.

        Raises:
            UserError: names the operation and the module.
        """
        todo = [(node, True) for node in _nodes((output,))]  # a node, and whether nothing with a rule follows it
        seen: set[Node] = set()
        while todo:
            node, is_last = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._crossings:
                following, is_last = self._crossings[node], False
            else:
                call = call_of(node)
                if operation(node) not in _NEEDS_NO_RULE or (call and not call.constant):
                    self._refuse(node, is_last)
                is_last = is_last and call is None
                following = [origin for origin, _ in node.next_functions if origin is not None]
            todo += [(origin, is_last) for origin in following]

    def _check_stock(self, module: Any, args: tuple[Any, ...], sample: Tensor, output: Any) -> None:
        """Refuse a module with a rule of zennit's whose output is not what the rule takes it for."""
        rule, place = self._rules[module], self._place(module)
        if isinstance(rule, StockPass):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if not _is_identity(module):
                    raise UserError(
                        f"no rule of {self._composite} covers {place}: zennit's canonizer SequentialMergeBatchNorm "
                        "merges it where it directly follows a convolution or dense layer, and the presets of "
                        "audio_lrp, such as epsilon_plus, explain it anywhere"
                    )
            elif len(args) > 1 or not is_elementwise(module.forward, sample, output):
                raise UserError(f"no rule of {self._composite} covers {place}: {NOT_ELEMENTWISE}")
            return
        self.complete = False
        trusts = isinstance(rule, BasicHook) and isinstance(module, Linear | AvgPool)
        if trusts and not _is_what_its_parameters_say(module, sample, output):
            raise UserError(
                f"no rule of {self._composite} covers {place}: hooks or a forward of its own make it return something "
                "else than its weights and bias say, which zennit's rules go by; the presets of audio_lrp, such as "
                "epsilon_plus, go by the calls it makes"
            )

    def refuse_write(self) -> None:
        """Refuse a change in place that autograd does not see, unless a layer with the rule Pass works in place."""
        module = self._running[-1][0] if self._running else next(iter(self.names))
        if not isinstance(self._rules.get(module), Pass):
            raise UserError(
                f"{self._place(module)} changes values in place under no_grad() or through detach() or .data, which no "
                "relevance can follow: change them where gradients are on"
            )

    def _refuse(self, node: Any, is_last: bool) -> None:
        around = [(end - begin, module) for begin, end, module in self._calls if begin <= node._sequence_nr() < end]
        module = min(around, key=lambda call: call[0])[1]
        place, name = self._place(module), operation(node)
        is_layer = self.names[module] != "" and next(module.children(), None) is None
        if not is_layer:
            place = "a function in " + (f"the forward of {place}" if self.names[module] else "the network's forward")
        if "Softmax" in name and is_last:
            advice = "LRP explains logits, so let the network return what comes before the softmax"
        elif call_of(node):
            advice = "its weights depend on the network's input, which LRP rules take for constants"
        elif isinstance(self._rules.get(module), Rule):
            advice = "its forward or a hook does more than the linear call that has a rule: let layers with rules do it"
        elif is_layer:
            advice = (
                "replace it by a layer that has a rule, or pass a zennit composite with a rule for it, such as "
                f"RuleMap(names={{{self.names[module]!r}: ...}})"
            )
        else:
            advice = "replace it by layers that have a rule"
        raise UserError(f"no rule of {self._composite} covers {place} (operation {name}): {advice}")

    def _place(self, module: nn.Module) -> str:
        name = self.names[module]
        return f"module {name!r} ({type(module).__name__})" if name else f"the network {type(module).__name__}"


@contextmanager
def watched(network: nn.Module, coverage: Coverage) -> Iterator[None]:
    """Let ``coverage`` watch the forward pass run inside."""
    handles = []
    try:
        for module in network.modules():
            # Before zennit's own hook, which cuts the graph at a module's input.
            handles.append(module.register_forward_pre_hook(coverage.before, prepend=True, with_kwargs=True))
            handles.append(module.register_forward_hook(coverage.after, with_kwargs=True))
        with _Writes(coverage.refuse_write):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Writes(TorchFunctionMode):
    """Notices when values that depend on the input are changed in place where autograd does not look.

    Args:
        found: called then.
    """

    def __init__(self, found: Callable[[], None]) -> None:
        super().__init__()
        self._found = found
        self._aliases: dict[int, Tensor] = {}  # by their memory: tensors outside the graph that share it with the graph

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call, looked at."""
        kwargs = kwargs or {}
        written = kwargs.get("out", args[0] if args else None)
        if not isinstance(written, Tensor) or written.is_inference():
            return func(*args, **kwargs)
        before, in_graph = written._version, written.requires_grad
        result = func(*args, **kwargs)
        if func == _DATA.__set__ or (written._version != before and not (in_graph and torch.is_grad_enabled())):
            if in_graph or _memory(written) in self._aliases:
                self._found()
        elif in_graph:
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, Tensor) and not value.requires_grad and _memory(value) == _memory(written):
                    self._aliases[_memory(written)] = value
        return result


_DATA: Any = Tensor.data


def _memory(value: Tensor) -> int:
    return value.untyped_storage()._cdata if value.layout is torch.strided else id(value)


def _cuts_off(inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> bool:
    """Whether values that depend on the input went in, and only such came out that do not."""
    values = [value for value in outputs if isinstance(value, Tensor)]
    return (
        any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
        and len(values) == len(outputs)
        and all(not value.requires_grad and (value.is_floating_point() or value.is_quantized) for value in values)
    )


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


def _is_what_its_parameters_say(layer: Any, sample: Tensor, output: Tensor) -> bool:
    """Whether a layer returned what its forward makes of its input, and that in proportion to its parameters.

    Args:
        layer: the layer.
        sample: the first sample of its input [1, ...].
        output: what it returned for the whole batch [B, ...].
    """
    parameters, attributes = layer._parameters, vars(layer)
    changed = {name: None if value is None else -2 * value for name, value in parameters.items()}
    # zennit 1's canonizers put others before them.
    others = {name: value for name, value in attributes.items() if name in parameters and isinstance(value, Tensor)}
    with torch.no_grad():
        found = layer.forward(sample)
        try:
            layer._parameters = changed
            attributes.update({name: -2 * value for name, value in others.items()})
            proportional = layer.forward(sample)
        finally:
            layer._parameters = parameters
            attributes.update(others)
    expected = output[:1].detach()
    tolerance = 1e-4 * expected.abs().nan_to_num().max().item()
    factor = -2 if changed else 1
    return all(
        torch.allclose(value, times * expected, rtol=0, atol=tolerance, equal_nan=True)
        for value, times in ((found, 1), (proportional, factor))
    )
