"""Networks as plain modules, and the LightningModule that trains them."""

from audio_lrp.models.alexnet import AlexNet
from audio_lrp.models.audionet import AudioNet
from audio_lrp.models.classifier import Classifier
from audio_lrp.models.schedule import WarmupCosine

__all__ = ["AlexNet", "AudioNet", "Classifier", "WarmupCosine"]
