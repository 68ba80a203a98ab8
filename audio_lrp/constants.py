"""Names that the command line offers in its help, which must not wait seconds for PyTorch to be imported."""

from typing import Final, Literal, get_args

DEFAULT_COMPOSITE: Final = "epsilon_alpha2_beta1"
"""The LRP preset that is taken where none is named (see `audio_lrp.attribution.composite_by_name`)."""

TaskName = Literal["digit", "gender"]
"""A classification task (see `audio_lrp.data.tasks`)."""

TASK_NAMES: Final[tuple[TaskName, ...]] = get_args(TaskName)
"""All tasks."""

BUDGETS: Final = ("tiny", "short", "full")
"""The shipped budgets of studies (see `audio_lrp.study.budget`)."""

SYNTHETIC: Final = "synthetic"
"""The corpus of studies that is synthesised on the spot."""

REPORT_FILENAME: Final = "report.html"
"""How a run's or a study's report is called in its folder."""
