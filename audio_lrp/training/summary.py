"""What is printed when a run ends: what came out, where it lies, what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from audio_lrp.data import CorpusDataModule
from audio_lrp.data.corpora.listing import left_out_summary
from audio_lrp.tracking import best_checkpoint, run_folder
from audio_lrp.tracking.record import CONFIG_FILENAME


def summary(
    trainer: Trainer, subcommand: str, metrics: Mapping[str, Tensor], seen: Sequence[tuple[str, str]] = ()
) -> str:
    """The run's results, files and next steps, one a line.

    Args:
        trainer: after ``subcommand``; its W&B run may still be open.
        subcommand: what ran, e.g. ``"fit"``.
        metrics: last values of the logged metrics.
        seen: lines on the recordings that the run has seen, by name.
    """
    folder = run_folder(trainer)
    lines = [("test accuracy", _percent(metrics.get("test/accuracy"))), _validation_line(trainer, metrics), *seen]
    keeper = best_checkpoint(trainer)
    checkpoint = keeper.best_model_path if keeper is not None and subcommand == "fit" else ""
    lines += [
        ("checkpoint", _relative(checkpoint) or _no_checkpoint(trainer, subcommand)),
        ("configuration", _existing(folder / CONFIG_FILENAME)),
    ]
    lines += [("left out", _left_out(trainer))]
    lines += [("predictions", ", ".join(map(_relative, sorted(folder.glob("predictions*.csv")))))]
    lines += [("pictures", _pictures(folder)), *_wandb_lines(trainer)]
    if checkpoint:
        command = f"audio-lrp test --config {quoted(folder / CONFIG_FILENAME)} --ckpt_path {quoted(checkpoint)}"
        lines += [("to test it again", command), ("to see it all", f"audio-lrp report {quoted(folder)}")]
    width = max((len(name) for name, value in lines if value), default=0)
    return "\n".join(f"{name + ':':<{width + 1}} {value}" for name, value in lines if value)


def _percent(share: Tensor | None) -> str:
    return "" if share is None else f"{100 * float(share):.1f} %"


def _validation_line(trainer: Trainer, metrics: Mapping[str, Tensor]) -> tuple[str, str]:
    keeper = best_checkpoint(trainer)
    if keeper is None or keeper.best_model_score is None or keeper.monitor != "val/accuracy":
        return "validation accuracy", _percent(metrics.get("val/accuracy"))
    return "validation accuracy", f"{_percent(keeper.best_model_score)} (best checkpoint)"


def _left_out(trainer: Trainer) -> str:
    """The files in the corpora's folders that look like recordings and were not read."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    corpora = [data.corpus, *data.training_corpora] if isinstance(data, CorpusDataModule) else []
    return "; ".join(left_out_summary(corpus.left_out) for corpus in corpora if corpus.left_out)


def _no_checkpoint(trainer: Trainer, subcommand: str) -> str:
    """Why a training that keeps checkpoints has kept none."""
    if subcommand != "fit" or best_checkpoint(trainer) is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return ""
    return "none, the training ended before its first validation (see trainer.val_check_interval)"


def _pictures(folder: Path) -> str:
    """The folder of relevance maps: the run's own, or W&B's media where they were logged there."""
    if (folder / "lrp").is_dir():
        return _relative(folder / "lrp")
    media = sorted(folder.glob("wandb/*run-*/files/media/images/lrp"))
    return _relative(media[-1]) if media else ""


def _wandb_lines(trainer: Trainer) -> list[tuple[str, str]]:
    lines = []
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            folder = Path(run.dir).parent
            lines.append(("W&B run", _relative(folder) if run.offline else run.url))
            if run.offline:
                lines.append(("to upload it", f"audio-lrp sync {quoted(run_folder(trainer))}"))
    return lines


def _existing(path: Path) -> str:
    return _relative(path) if path.exists() else ""


def _relative(path: Path | str) -> str:
    """The path from the working directory where that is shorter."""
    if not path:
        return ""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def quoted(path: Path | str) -> str:
    """The path as a word of a shell's command, from the working directory where that is shorter."""
    return shlex.quote(_relative(path))
