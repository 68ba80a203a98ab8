"""Tests of explanations: does the network mind when what they call important is removed?"""

from audio_lrp.faithfulness.perturbation import (
    DEFAULT_FRACTIONS,
    ORDERS,
    PerturbationCurves,
    perturbation_curves,
)

__all__ = ["DEFAULT_FRACTIONS", "ORDERS", "PerturbationCurves", "perturbation_curves"]
