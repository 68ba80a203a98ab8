"""One HTML file about a run or a study: ``audio-lrp report FOLDER``."""
