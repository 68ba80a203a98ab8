"""Layer-wise Relevance Propagation for any ``torch.nn.Module``: rules, composites and the attribution call."""

from audio_lrp.attribution.attribute import Explanation, attribute
from audio_lrp.attribution.composites import PRESETS, composite_by_name
from audio_lrp.attribution.conservation import Conservation, LayerAccount
from audio_lrp.attribution.hooks import Pass, Rule
from audio_lrp.attribution.rule_map import RuleMap
from audio_lrp.attribution.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    MergeBatchNorm,
    WSquare,
    ZBox,
    ZPlus,
)
from audio_lrp.constants import DEFAULT_COMPOSITE

__all__ = [
    "DEFAULT_COMPOSITE",
    "PRESETS",
    "AlphaBeta",
    "Conservation",
    "Epsilon",
    "Explanation",
    "Flat",
    "Gamma",
    "LayerAccount",
    "MergeBatchNorm",
    "Pass",
    "Rule",
    "RuleMap",
    "WSquare",
    "ZBox",
    "ZPlus",
    "attribute",
    "composite_by_name",
]
