"""The command line ``audio-lrp``."""

from audio_lrp.cli.main import main

__all__ = ["main"]
