"""Faults of a corpus: found, counted, drawn and listed."""
