"""Train classifiers on spoken digits and see, while they train, what they listen to."""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audio_lrp.checkpoints import load_network as load

__all__ = ["__version__", "load"]

__version__ = version("audio-lrp")


def __getattr__(name: str) -> object:
    """``audio_lrp.load``, without importing PyTorch for those who only ask for the version."""
    if name == "load":
        from audio_lrp.checkpoints import load_network

        return load_network
    raise AttributeError(f"module 'audio_lrp' has no attribute {name!r}")
