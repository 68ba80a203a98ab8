"""What a finished training leaves in W&B beside its metrics: checkpoints and relevance arrays, as artifacts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from audio_lrp.tracking.record import CONFIG_FILENAME, best_checkpoint, run_folder


def artifacts_wanted(choice: bool | None) -> bool:
    """Whether to log artifacts: where the user leaves it open, unless the run is one of many in a sweep."""
    return "WANDB_SWEEP_ID" not in os.environ if choice is None else choice


def log_artifacts(trainer: Trainer, metrics: Mapping[str, Tensor]) -> None:
    """Log the best checkpoint and the last relevance arrays to every W&B logger of a finished training.

    The checkpoint is a version of the artifact ``checkpoint-<run>``, of type ``model``, with the aliases ``best`` and
    ``latest`` (``latest`` alone where no metric chose it), its metrics as metadata, and the run's configuration beside
    it; the arrays are the artifact ``relevance-<run>``, of type ``relevance``. The files are not copied: an offline
    run's wait in its folder.

    Args:
        trainer: after ``fit``.
        metrics: last values of the logged metrics, for a checkpoint that no metric chose.
    """
    folder = run_folder(trainer)
    callback = best_checkpoint(trainer)
    for run in (logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)):
        if callback is not None:
            path = Path(callback.best_model_path)
            scores, aliases = {name: float(value) for name, value in metrics.items()}, ["latest"]
            if callback.monitor is not None and callback.best_model_score is not None:
                scores, aliases = {callback.monitor: float(callback.best_model_score)}, ["best", "latest"]
            files = {"model.ckpt": path, CONFIG_FILENAME: folder / CONFIG_FILENAME}
            _log(run, f"checkpoint-{run.id}", "model", files, aliases, {"metrics": scores, "file": path.name})
        arrays = {path.name: path for path in folder.glob("relevance-*.npz")}
        _log(run, f"relevance-{run.id}", "relevance", arrays, ["latest"], {})


def _log(
    run: Any, name: str, kind: str, files: Mapping[str, Path], aliases: list[str], metadata: dict[str, Any]
) -> None:
    import wandb  # takes a second to import, and only runs with W&B need it

    present = {name: path for name, path in files.items() if path.is_file()}
    if not present:
        return
    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for inside, path in present.items():
        artifact.add_file(str(path), name=inside, policy="immutable", skip_cache=True)
    try:
        run.log_artifact(artifact, aliases=aliases)
    except Exception as error:  # an online run asks the server before it takes an artifact; or W&B's service has died
        paths = ", ".join(map(str, present.values()))
        rank_zero_warn(f"W&B did not take the artifact {name} ({error}); its files are kept: {paths}")
