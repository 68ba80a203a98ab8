"""Linear calls of a forward pass whose relevance goes by a rule, as nodes of the recorded graph hold them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from audio_lrp.attribution.operators import Operator
from audio_lrp.attribution.propagation import PropagationRule


@dataclass(eq=False)
class RuleCall:
    """One call: what is known of it in the forward pass, and what is asked of its backward pass.

    Two placeholders take part in the graph besides the input. What autograd takes for their gradients are by-products
    of the backward pass, made only where they are wanted.

    Attributes:
        rule: how relevance is propagated.
        operator: the call.
        module: the layer that made it.
        constant: whether its weights and bias do not depend on what is explained.
        nonnegative: whether it is known that no input is below zero.
        account: placeholder [B, 4] for the relevance of the outputs, the inputs, the bias and the stabilizer.
        modified_gradient: placeholder, shaped like the input, for relevance divided by input, 0 where the input is 0.
        position: place in the order of the forward pass.
        rectified: whether no output below zero has relevance, which the graph tells when it is complete.
        wants_account: whether the account is wanted.
        wants_modified_gradient: whether the modified gradient is wanted.
        serves_many: whether there will be several backward passes; what does not depend on the relevance is kept.
        prepared: what was kept.
    """

    rule: PropagationRule
    operator: Operator
    module: nn.Module
    constant: bool
    nonnegative: bool
    account: Tensor
    modified_gradient: Tensor
    position: int = 0
    rectified: bool = False
    wants_account: bool = False
    wants_modified_gradient: bool = False
    serves_many: bool = False
    prepared: Any = None


def call_of(node: Node) -> RuleCall | None:
    """The call that a node of the graph stands for; None: relevance goes by no rule of ours there."""
    return getattr(node, "call", None)
