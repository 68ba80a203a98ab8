"""Packed clips as batches: datasets, loaders and their worker processes."""
