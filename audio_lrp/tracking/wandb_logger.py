"""W&B runs that lie in the run's folder, stay offline unless asked for otherwise, and end when the run ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

_DATA_VARIABLE = "WANDB_DATA_DIR"
_PATIENCE = {"WANDB_FINISH_TIMEOUT": "300", "WANDB_FINISH_TIMEOUT_RAISES": "true"}
"""How many seconds a finished run waits for the server to take the rest of it; W&B itself waits for days."""

_LOGIN_PATIENCE = 10
"""Seconds to wait for the server before the run begins."""


def make_wandb_logger(class_type: type[WandbLogger], *args: Any, **settings: Any) -> WandbLogger:
    """Instantiate W&B's logger from its settings in a configuration.

    A configuration spells out every setting, those left alone as ``None``, and Lightning hands them on to
    ``wandb.init``, where ``resume=None`` (a run cannot be taken up again) or ``dir=None`` is not the same as
    silence: so settings of ``None`` are left out here.

    Runs are offline unless the setting ``mode`` or the variable ``WANDB_MODE`` says otherwise, or a sweep's agent,
    which needs the server, started the process; and where the server cannot be reached or refuses the key. A run
    whose folder holds a W&B run already goes on with it.

    Args:
        class_type: Lightning's logger or a subclass.
        *args: handed on.
        **settings: as in the configuration; ``save_dir`` is the run's folder.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    folder = Path(given["save_dir"])
    # Pictures inside tables wait here for their upload, which for an offline run comes much later.
    os.environ.setdefault(_DATA_VARIABLE, str(folder / "wandb"))
    given.setdefault("name", f"{folder.parent.name}-{folder.name}")
    earlier = _earlier_run(folder)
    if earlier is not None:
        given.setdefault("id", earlier)
    if given.pop("offline", False):  # Lightning would change WANDB_MODE for the rest of the process
        given["mode"] = "offline"
    elif not os.environ.keys() & {"WANDB_MODE", "WANDB_SWEEP_ID"}:
        given.setdefault("mode", "offline")
    if given.get("mode", os.environ.get("WANDB_MODE", "online")) == "online":
        obstacle = _obstacle()
        if obstacle is not None:
            given["mode"] = "offline"
            _warn(f"W&B cannot be used ({obstacle}): the run is kept offline, and wandb sync uploads it later")
    return class_type(*args, **given)


def _earlier_run(folder: Path) -> str | None:
    """ID of the last W&B run in a folder, which a training that is taken up again goes on with."""
    names = sorted(path.name.removeprefix("offline-") for path in folder.glob("wandb/*run-*-*"))
    return names[-1].rsplit("-", 1)[-1] if names else None  # run-<date>_<time>-<id>


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


def _finish(exit_code: int) -> None:
    import wandb

    run = wandb.run
    try:
        wandb.finish(exit_code)
    except TimeoutError:
        assert run is not None
        folder = Path(run.dir).parent
        _warn(f"W&B's server did not take the whole run; to upload it: wandb sync --include-online {folder}")
    wandb.teardown()


@rank_zero_only
def _warn(text: str) -> None:
    print(f"audio-lrp: warning: {text}", file=sys.stderr)
