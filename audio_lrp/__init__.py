"""Train classifiers on spoken digits and see, while they train, what they listen to."""

from importlib.metadata import version

__version__ = version("audio-lrp")
