"""Recordings read, resampled and packed into one memory-mapped file."""
