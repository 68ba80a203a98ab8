"""The command line ``audio-lrp``."""

from audio_lrp.commands.entry import main

__all__ = ["main"]
