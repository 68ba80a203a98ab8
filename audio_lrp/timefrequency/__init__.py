"""Relevance of waveforms in time and frequency, by bands, and made audible."""

from audio_lrp.timefrequency.stft import STFT, HannSTFT

__all__ = ["STFT", "HannSTFT"]
