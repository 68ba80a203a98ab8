"""What the recorded graph of a forward pass proves about values, so that rules may leave out what is zero."""

import re
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from audio_lrp.attribution.calls import RuleCall, call_of

# Operations as autograd names them, without "Backward" and the overload's number.
_SAME_VALUES = frozenset(
    {
        *("Alias", "Clone", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "ToCopy", "Unflatten"),
        *(
            "Permute",
            "Transpose",
            "T",
            "Expand",
            "Slice",
            "Select",
            "Split",
            "SplitWithSizes",
            "Unbind",
            "Cat",
            "Stack",
        ),
        *("ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D"),
        *("ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D"),
    }
)
_MAXIMA = frozenset({"MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"})
FOLLOWS_VALUES = _SAME_VALUES | _MAXIMA | {"Relu", "ConstantPadNd"}
"""What moves values without changing them, or chooses between them: its gradient carries relevance as it should."""


def operation(node: Node) -> str:
    """The operation a node of the graph stands for, e.g. ``"Relu"``."""
    return re.sub(r"(Backward\d*)+$", "", node.name().removeprefix("torch::autograd::"))


def is_nonnegative(value: Tensor) -> bool:
    """Whether no entry is below zero: those of the input are looked at, behind it the graph has to prove it.

    It does where nothing but moving, choosing or averaging follows a ReLU or such an input.
    """
    todo: list[Any] = [value.grad_fn]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if node is None:
            return False
        if operation(node) == "Relu" or getattr(node, "nonnegative", False):
            continue
        if (leaf := getattr(node, "variable", None)) is not None:
            if not (leaf >= 0).all():
                return False
        elif operation(node) in _SAME_VALUES | _MAXIMA | {"Identity"}:
            origins = {origin for origin, _ in node.next_functions} - seen
            seen |= origins
            todo += origins
        else:
            return False
    return True


class Graph:
    """The graph of a forward pass, seen from the output.

    Tells each call with a rule of ours whether its outputs below zero can have relevance at all.

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
        self.calls: list[RuleCall] = []
        """The calls whose relevance goes by a rule of ours, in no order."""
        for node in seen:
            if call := call_of(node):
                call.rectified = self._drops_negative(node)
                self.calls.append(call)

    def entries(self, value: Tensor) -> list[RuleCall]:
        """The calls that take ``value``, a leaf of the graph, as it is, moved or chosen from.

        Empty if something else takes it, too.
        """
        todo = [node for node in self._consumers if getattr(node, "variable", None) is value]
        seen = set(todo)
        found: list[RuleCall] = []
        while todo:
            for consumer in self._consumers.get(todo.pop(), []):
                if consumer in seen:
                    continue
                seen.add(consumer)
                if call := call_of(consumer):
                    found.append(call)
                elif operation(consumer) in FOLLOWS_VALUES:
                    todo.append(consumer)
                else:
                    return []
        return found

    def _drops_negative(self, layer: Node) -> bool:
        """Whether no output of a layer that is below zero can get relevance."""
        todo = [(layer, False)]  # a node, and whether its values below zero have become zeros on the way
        seen = set(todo)
        while todo:
            node, are_zeros = todo.pop()
            if node not in self._consumers:
                return False  # the network's output
            for consumer in self._consumers[node]:
                if not are_zeros and operation(consumer) == "Relu":
                    continue
                if are_zeros and (call := call_of(consumer)):
                    if not call.rule.proportional:
                        return False
                    continue
                if not are_zeros and getattr(consumer, "rectifies", False):
                    following = (consumer, True)  # relevance passes: none as long as nothing gives any to zeros
                elif operation(consumer) in _SAME_VALUES | _MAXIMA:
                    following = (consumer, are_zeros)
                else:
                    return False
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return True
