"""The command line ``audio-lrp``."""

from audio_lrp.cli.entry import main

__all__ = ["main"]
