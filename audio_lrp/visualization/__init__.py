"""Figures of relevance, curves and confusion matrices."""
