"""What the recorded graph of a forward pass proves about values, so that rules may leave out what is zero."""

import re
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

# Operations as autograd names them, without "Backward" and the overload's number.
_SAME_ORDER = frozenset({"Alias", "Clone", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"})
_SAME_VALUES = _SAME_ORDER | {
    *("ToCopy", "Unflatten", "Permute", "Transpose", "T", "Expand"),
    *("Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Cat", "Stack"),
}
_MAXIMA = frozenset({"MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"})


def operation(node: Node) -> str:
    """The operation a node of the graph stands for, e.g. ``"Relu"``."""
    return re.sub(r"(Backward\d*)+$", "", node.name())


def is_nonnegative(value: Tensor) -> bool:
    """Whether no entry is below zero: those of the input are looked at, behind it the graph has to prove it.

    It does where nothing but moving, choosing or averaging follows a ReLU or such an input.
    """
    return _nonnegative(value.grad_fn)


def _nonnegative(node: Node | None) -> bool:
    if node is None:
        return False
    if operation(node) == "Relu" or getattr(node, "nonnegative", False):
        return True
    if (leaf := getattr(node, "variable", None)) is not None:
        return bool((leaf >= 0).all())
    origins = [origin for origin, _ in node.next_functions]
    return operation(node) in _SAME_VALUES | _MAXIMA | {"Identity"} and all(map(_nonnegative, origins))


class Graph:
    """The graph of a forward pass, seen from the output.

    Tells each layer with a rule of ours whether its outputs below zero can have relevance at all.

    Args:
        output: the network's output.
    """

    def __init__(self, output: Tensor) -> None:
        self._consumers: dict[Node, list[Any]] = {}
        todo = [] if output.grad_fn is None else [output.grad_fn]
        seen = set(todo)
        while todo:
            node = todo.pop()
            for origin, _ in node.next_functions:
                if origin is None:
                    continue
                self._consumers.setdefault(origin, []).append(node)
                if origin not in seen:
                    seen.add(origin)
                    todo.append(origin)
        self.layers: list[Any] = [node for node in seen if operation(node) == "Redistribution"]
        """The layers with a rule of ours, as nodes of the graph (see `Redistribution`), in no order."""
        for layer in self.layers:
            layer.rectified = self._every_consumer(layer, self._drops_negative)

    def entry(self, value: Tensor) -> Any:
        """The layer with a rule of ours that alone takes ``value``, a leaf of the graph, at most reshaped, or None."""
        leaves = (node for node in self._consumers if getattr(node, "variable", None) is value)
        node: Any = next(leaves, None)
        while node is not None:
            consumers = self._consumers.get(node, [])
            if len(consumers) != 1:
                return None
            (node,) = consumers
            if operation(node) == "Redistribution":
                return node
            if operation(node) not in _SAME_ORDER:
                return None
        return None  # pragma: no cover: an input that takes no part in the output is refused before

    def _every_consumer(self, node: Node, condition: Any) -> bool:
        consumers = self._consumers.get(node, [])
        return bool(consumers) and all(map(condition, consumers))

    def _drops_negative(self, node: Any) -> bool:
        """Whether a consumer hands no relevance to values below zero."""
        if operation(node) == "Relu":
            return True
        if getattr(node, "rectifies", False):  # relevance passes: none as long as nothing gives any to zeros
            return self._every_consumer(node, self._spares_zeros)
        return operation(node) in _SAME_VALUES | _MAXIMA and self._every_consumer(node, self._drops_negative)

    def _spares_zeros(self, node: Any) -> bool:
        """Whether a consumer hands no relevance to values of zero."""
        if operation(node) == "Redistribution":
            return bool(node.rule.proportional)
        return operation(node) in _SAME_VALUES | _MAXIMA and self._every_consumer(node, self._spares_zeros)
