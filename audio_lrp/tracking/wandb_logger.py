"""W&B runs that lie in the run's folder, stay offline unless asked for otherwise, and end when the run ends."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from audio_lrp.tracking.wandb_file import is_complete, read_records
from audio_lrp.tracking.wandb_variables import check_wandb_variables

_DATA_VARIABLE = "WANDB_DATA_DIR"
_PATIENCE = {
    "WANDB_FINISH_TIMEOUT": "300",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
    "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS": "15",
}
"""How many seconds a finished run waits for the server to take the rest of it; W&B itself waits for days.

That time begins only after a table that is on its way, which W&B offers 20 times more: at most 15 seconds apart, that
is 5 minutes, too, instead of 20.
"""

_LITTLE_SPACE = 1 << 20
"""Bytes of free space below which a disk counts as full."""

_LOGIN_PATIENCE = 10
"""Seconds to wait for the server before the run begins."""


class SurvivingWandbLogger(WandbLogger):
    """Lightning's logger, whose failures cost numbers and one warning, not the training.

    W&B's service, a process of its own, may be ended from outside, for want of memory for example.
    """

    _has_failed = False

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._wandb_init.pop("anonymous", None)  # it means nothing any more, and W&B warns of it in every run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log as Lightning does; whatever goes wrong, the training goes on."""
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                _warn(f"W&B takes no numbers any more ({type(error).__name__}: {error}); the training goes on")


def make_wandb_logger(class_type: type[WandbLogger], *args: Any, **settings: Any) -> WandbLogger:
    """Instantiate W&B's logger from its settings in a configuration.

    A configuration spells out every setting, those left alone as ``None``, and Lightning hands them on to
    ``wandb.init``, where ``resume=None`` (a run cannot be resumed) or ``dir=None`` is not the same as
    silence: so settings of ``None`` are left out here.

    Settings win over W&B's variables, and these over what is chosen here. Runs are offline unless the setting ``mode``
    or the variable ``WANDB_MODE`` says otherwise, or a sweep's agent, which needs the server, started the process; and
    where the server cannot be reached or refuses the key. A training that resumes keeps its W&B run.

    Args:
        class_type: Lightning's logger or a subclass.
        *args: handed on.
        **settings: as in the configuration; ``save_dir`` is the run's folder.

    Raises:
        UserError: a variable of W&B's has a value that it cannot have.
    """
    check_wandb_variables()
    given = {name: value for name, value in settings.items() if value is not None}
    folder = Path(given["save_dir"])
    # Pictures inside tables wait here for their upload, which for an offline run comes much later.
    os.environ.setdefault(_DATA_VARIABLE, str(folder / "wandb"))
    _fill(given, folder)
    if given.pop("offline", False):  # Lightning would change WANDB_MODE for the rest of the process
        given["mode"] = "offline"
    elif not os.environ.keys() & {"WANDB_MODE", "WANDB_SWEEP_ID"}:
        given.setdefault("mode", "offline")
    if given.get("mode", os.environ.get("WANDB_MODE", "online")) == "online":
        obstacle = _obstacle()
        if obstacle is not None:
            given["mode"] = "offline"
            _warn(f"W&B cannot be used ({obstacle}): the run is kept offline; audio-lrp sync uploads it later")
    return (SurvivingWandbLogger if class_type is WandbLogger else class_type)(*args, **given)


def _fill(given: dict[str, Any], folder: Path) -> None:
    """Complete the settings, where neither the user nor a variable has said otherwise."""
    if "WANDB_DIR" in os.environ:
        _warn(f"WANDB_DIR is not used, as W&B's run lies in the run's own folder, {folder}: choose it by --run.root")
    chosen = {"name": f"{folder.parent.name}-{folder.name}", "project": "audio-lrp"} | _earlier_run(folder)
    for name, value in chosen.items():
        if f"WANDB_{'RUN_ID' if name == 'id' else name.upper()}" not in os.environ:
            given.setdefault(name, value)
    if "WANDB_RESUME" in os.environ:  # Lightning would say "allow"
        given.setdefault("resume", os.environ["WANDB_RESUME"])


def _earlier_run(folder: Path) -> dict[str, str]:
    """What identifies the last W&B run in a folder, which a training that resumes continues; else nothing."""
    paths = sorted(folder.glob("wandb/*run-*-*/*.wandb"), key=lambda path: path.parent.name.removeprefix("offline-"))
    if not paths:
        return {}
    from wandb.proto.wandb_internal_pb2 import Record

    records = map(Record.FromString, read_records(paths[-1].read_bytes()))
    run = next((record.run for record in records if record.HasField("run")), None)
    if run is None:
        return {}
    found = {"id": run.run_id, "entity": run.entity, "project": run.project, "name": run.display_name}
    return {name: value for name, value in found.items() if value}


def _obstacle() -> str | None:
    """Why the server cannot be used, asked by the first process alone; None where nothing is in the way."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        return None
    import wandb

    try:
        wandb.login(verify=True, timeout=_LOGIN_PATIENCE)
    except wandb.Error as error:
        return " ".join(str(error).split()).rstrip(".")
    return None


@contextmanager
def wandb_session() -> Iterator[None]:
    """End W&B's run when the block ends, as failed where it raises; stop W&B's service and reset its variables.

    Only then is an offline run's ``.wandb`` file complete, and a second run in the same process is a run of its own.
    A server that has stopped to answer holds the process up for minutes, not for days.
    """
    variables = {name: os.environ.get(name) for name in (_DATA_VARIABLE, *_PATIENCE)}
    os.environ.update({name: value for name, value in _PATIENCE.items() if variables[name] is None})
    # W&B keeps a log of its own in the run's folder: no tracebacks of log lines for which the disk has no space.
    talkative, logging.raiseExceptions = logging.raiseExceptions, False
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        if "wandb" in sys.modules:  # a second to import, for nothing where no run was started
            _finish(exit_code)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        logging.raiseExceptions = talkative


def _finish(exit_code: int) -> None:
    import wandb

    run = wandb.run
    file = None if run is None or run.disabled else Path(run.settings.sync_file)
    timed_out = False
    try:
        wandb.finish(exit_code)
    except TimeoutError:
        timed_out = True
    except Exception as error:  # seen in the file
        logging.getLogger(__name__).debug("W&B's run did not end: %s", error)
    with suppress(Exception):
        wandb.teardown()
    if file is not None and not is_complete(file):
        _warn(
            f"W&B has not written all of its run to {file.parent}, because {_cause(file.parent)}: what is missing "
            "there is lost, the checkpoints are not; audio-lrp sync uploads the rest"
        )
    elif file is not None and timed_out:
        _warn(f"W&B's server did not take the whole run; to upload it: audio-lrp sync {file.parents[2]}")


def _cause(folder: Path) -> str:
    """What has probably kept W&B from writing a run."""
    if shutil.disk_usage(folder).free < _LITTLE_SPACE:
        return "the disk is full (free space before the next run)"
    return "the disk was full or W&B's service was ended from outside"


@rank_zero_only
def _warn(text: str) -> None:
    print(f"audio-lrp: warning: {text}", file=sys.stderr)
