"""Tests of explanations: does the network mind when what they call important is removed?"""

from audio_lrp.faithfulness.baselines import Baseline, Interpolation, MatchedNoise, Silence
from audio_lrp.faithfulness.concentration import complexity, sparseness
from audio_lrp.faithfulness.curves import DEFAULT_FRACTIONS, QUANTITIES, PerturbationCurves, Quantity, joined_curves
from audio_lrp.faithfulness.localization import (
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)
from audio_lrp.faithfulness.methods import (
    LRP,
    METHODS,
    Amplitude,
    AttributionMethod,
    Captum,
    Occlusion,
    RandomRelevance,
    method_by_name,
)
from audio_lrp.faithfulness.metrics import (
    Complexity,
    Faithfulness,
    MaxSensitivity,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    Sparseness,
)
from audio_lrp.faithfulness.orders import (
    ORDERS,
    LeastRelevantFirst,
    LoudestFirst,
    MostRelevantFirst,
    Order,
    RandomOrder,
    Removable,
)
from audio_lrp.faithfulness.perturbation import perturbation_curves
from audio_lrp.faithfulness.randomization import Randomization, parameter_randomization, rank_correlation
from audio_lrp.faithfulness.scores import (
    Estimate,
    all_scores,
    aopc,
    aupc,
    bootstrap,
    comprehensiveness,
    srg,
    sufficiency,
)
from audio_lrp.faithfulness.sensitivity import max_sensitivity
from audio_lrp.faithfulness.units import Bands, Frames, Partition, Patches, Units, Windows

__all__ = [
    "DEFAULT_FRACTIONS",
    "LRP",
    "METHODS",
    "ORDERS",
    "QUANTITIES",
    "Amplitude",
    "AttributionMethod",
    "Bands",
    "Baseline",
    "Captum",
    "Complexity",
    "Estimate",
    "Faithfulness",
    "Frames",
    "Interpolation",
    "LeastRelevantFirst",
    "LoudestFirst",
    "MatchedNoise",
    "MaxSensitivity",
    "MostRelevantFirst",
    "Occlusion",
    "Order",
    "Partition",
    "Patches",
    "PerturbationCurves",
    "Quantity",
    "RandomOrder",
    "RandomRelevance",
    "Randomization",
    "RelevanceMassAccuracy",
    "RelevanceRankAccuracy",
    "Removable",
    "Silence",
    "Sparseness",
    "Units",
    "Windows",
    "all_scores",
    "aopc",
    "aupc",
    "bootstrap",
    "complexity",
    "comprehensiveness",
    "joined_curves",
    "max_sensitivity",
    "method_by_name",
    "parameter_randomization",
    "perturbation_curves",
    "rank_correlation",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "sparseness",
    "srg",
    "sufficiency",
]
