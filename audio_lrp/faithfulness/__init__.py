"""Tests of explanations: does the network mind when what they call important is removed?"""

from audio_lrp.faithfulness.baselines import Baseline, Interpolation, MatchedNoise, Silence
from audio_lrp.faithfulness.curves import DEFAULT_FRACTIONS, QUANTITIES, PerturbationCurves, Quantity, joined_curves
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
from audio_lrp.faithfulness.scores import Estimate, aopc, aupc, bootstrap, comprehensiveness, srg, sufficiency
from audio_lrp.faithfulness.units import Bands, Frames, Partition, Patches, Units, Windows

__all__ = [
    "DEFAULT_FRACTIONS",
    "ORDERS",
    "QUANTITIES",
    "Bands",
    "Baseline",
    "Estimate",
    "Frames",
    "Interpolation",
    "LeastRelevantFirst",
    "LoudestFirst",
    "MatchedNoise",
    "MostRelevantFirst",
    "Order",
    "Partition",
    "Patches",
    "PerturbationCurves",
    "Quantity",
    "RandomOrder",
    "Removable",
    "Silence",
    "Units",
    "Windows",
    "aopc",
    "aupc",
    "bootstrap",
    "comprehensiveness",
    "joined_curves",
    "perturbation_curves",
    "srg",
    "sufficiency",
]
