"""What is kept of a run: its folder, its configuration, its W&B run."""

from audio_lrp.tracking.artifacts import artifacts_wanted, log_artifacts
from audio_lrp.tracking.checkpoint_io import WholeCheckpointIO
from audio_lrp.tracking.record import RunRecord, best_checkpoint, run_folder
from audio_lrp.tracking.run import Run, discard_empty_folders, last_run_folder
from audio_lrp.tracking.wandb_logger import make_wandb_logger, wandb_session

__all__ = [
    "Run",
    "RunRecord",
    "WholeCheckpointIO",
    "artifacts_wanted",
    "best_checkpoint",
    "discard_empty_folders",
    "last_run_folder",
    "log_artifacts",
    "make_wandb_logger",
    "run_folder",
    "wandb_session",
]
