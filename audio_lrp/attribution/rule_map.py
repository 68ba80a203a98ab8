"""A composite that says in plain words which layer gets which rule."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from zennit.canonizers import Canonizer
from zennit.core import Composite, Hook
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, ConvolutionStandard

from audio_lrp.attribution.hooks import Pass
from audio_lrp.attribution.rules import Epsilon, MergeBatchNorm
from audio_lrp.errors import UserError

_GROUPS: dict[str, Any] = {
    "Convolution": ConvolutionStandard,
    "AvgPool": AvgPool,
    "Activation": Activation,
    "BatchNorm": nn.modules.batchnorm._BatchNorm,  # with SyncBatchNorm, which zennit's type leaves out
    "Sum": Sum,
}


class RuleMap(Composite):  # type: ignore[misc]
    """Gives each layer the rule that was named for it.

    A layer's rule is the one for its name, else, for the first layer, the one in ``first``, else the one for its type;
    types are searched in the order given. Unless named, activations pass relevance through, batch normalisations are
    affine layers (`MergeBatchNorm`), and average pooling and sums propagate it by contribution. Max pooling gives it to
    the maximum and needs no rule.

    Args:
        types: a rule for each type of layer: a class of ``torch.nn`` (``"Conv1d"``, ``"Linear"``, ...) or one of the
            groups ``"Convolution"`` (all dimensions), ``"AvgPool"``, ``"Activation"``, ``"BatchNorm"``, ``"Sum"``.
        names: a rule for layers by their name in ``named_modules()``, e.g. ``"features.0"``, wildcards allowed.
        first: rules by type, as in ``types``, for the first layer that has one of these types, in the order in which
            the network's modules were defined.
        canonizers: of zennit's, to prepare the network.

    Raises:
        UserError: unknown type of layer, or, when registered, a name that no layer has.

    Example:
        >>> from audio_lrp.attribution import AlphaBeta, attribute
        >>> composite = RuleMap({"Convolution": AlphaBeta(1, 0), "Linear": Epsilon(0.01)}, first={"Conv2d": Epsilon()})

        The same in a configuration, wherever a composite is asked for::

            class_path: audio_lrp.attribution.RuleMap
            init_args:
              types:
                Convolution: {class_path: audio_lrp.attribution.AlphaBeta, init_args: {alpha: 1, beta: 0}}
                Linear: {class_path: audio_lrp.attribution.Epsilon, init_args: {epsilon: 0.01}}
              first:
                Conv2d: {class_path: audio_lrp.attribution.Epsilon}
    """

    def __init__(
        self,
        types: Mapping[str, Hook] | None = None,
        names: Mapping[str, Hook] | None = None,
        first: Mapping[str, Hook] | None = None,
        canonizers: Sequence[Canonizer] = (),
    ) -> None:
        self._names = dict(names or {})
        self._first = [(_layer_type(name), rule) for name, rule in (first or {}).items()]
        usual = {"Activation": Pass(), "BatchNorm": MergeBatchNorm(), "AvgPool": Epsilon(), "Sum": Epsilon()}
        self._types = [(_layer_type(name), rule) for name, rule in [*(types or {}).items(), *usual.items()]]
        super().__init__(module_map=self.rule_of, canonizers=list(canonizers))

    def rule_of(self, context: dict[str, bool], name: str, module: nn.Module) -> Hook | None:
        """The rule for a layer; None: it needs or has none. ``context`` remembers whether the first one has passed."""
        special = None
        if not context.get("first has passed"):
            special = next((rule for kind, rule in self._first if isinstance(module, kind)), None)
            context["first has passed"] = special is not None
        named = next((rule for pattern, rule in self._names.items() if fnmatch.fnmatchcase(name, pattern)), None)
        general = next((rule for kind, rule in self._types if isinstance(module, kind)), None)
        return next((rule for rule in (named, special, general) if rule is not None), None)

    def register(self, module: nn.Module) -> None:
        """Register the rules with a network's layers.

        Raises:
            UserError: a name in ``names`` is no layer's.
        """
        present = [name for name, _ in module.named_modules() if name]
        for pattern in self._names:
            if not fnmatch.filter(present, pattern):
                raise UserError(f"no layer is called {pattern!r}: the network has {', '.join(present)}")
        super().register(module)


def _layer_type(name: str) -> Any:
    if name in _GROUPS:
        return _GROUPS[name]
    kind = getattr(nn, name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    known = [*_GROUPS, *(key for key, value in vars(nn).items() if isinstance(value, type))]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise UserError(f"unknown type of layer {name!r}: did you mean {nearest!r}? Name a class of torch.nn")
