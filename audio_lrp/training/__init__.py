"""Trainings from the command line: Lightning's command line, its configurations, messages, trainer and summary."""
