"""Layer-wise Relevance Propagation for any ``torch.nn.Module``: rules, composites and the attribution call."""

from audio_lrp.attribution.attribute import Explanation, attribute
from audio_lrp.attribution.composites import DEFAULT_COMPOSITE, PRESETS, composite_by_name

__all__ = ["DEFAULT_COMPOSITE", "PRESETS", "Explanation", "attribute", "composite_by_name"]
