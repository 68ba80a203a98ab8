"""One HTML file about a run or a study: ``audio-lrp report FOLDER``."""

from audio_lrp.report.command import Report, main, report

__all__ = ["Report", "main", "report"]
