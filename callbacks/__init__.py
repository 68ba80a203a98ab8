"""Lightning callbacks: what joins training with attribution, tests of faithfulness and pictures."""

from audio_lrp.callbacks.confusion import ConfusionMatrixCallback
from audio_lrp.callbacks.finite_loss import FiniteLossCallback
from audio_lrp.callbacks.lrp import LRPCallback
from audio_lrp.callbacks.weight_averaging import WeightAveragingCallback

__all__ = ["ConfusionMatrixCallback", "FiniteLossCallback", "LRPCallback", "WeightAveragingCallback"]
