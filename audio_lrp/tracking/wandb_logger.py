"""W&B runs that lie in the run's folder, stay offline unless asked for otherwise, and end when the run ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_DATA_VARIABLE = "WANDB_DATA_DIR"


def make_wandb_logger(class_type: type[WandbLogger], *args: Any, **settings: Any) -> WandbLogger:
    """Instantiate W&B's logger from its settings in a configuration.

    A configuration spells out every setting, those left alone as ``None``, and Lightning hands them on to
    ``wandb.init``, where ``resume=None`` (a run cannot be taken up again) or ``dir=None`` is not the same as
    silence: so settings of ``None`` are left out here.

    Runs are offline unless the setting ``mode`` or the variable ``WANDB_MODE`` says otherwise, or a sweep's agent,
    which needs the server, started the process.

    Args:
        class_type: Lightning's logger or a subclass.
        *args: handed on.
        **settings: as in the configuration; ``save_dir`` is the run's folder.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    folder = Path(given["save_dir"])
    given.setdefault("name", f"{folder.parent.name}-{folder.name}")
    if given.pop("offline", False):  # Lightning would change WANDB_MODE for the rest of the process
        given["mode"] = "offline"
    elif not os.environ.keys() & {"WANDB_MODE", "WANDB_SWEEP_ID"}:
        given.setdefault("mode", "offline")
    # Pictures inside tables wait here for their upload, which for an offline run comes much later.
    os.environ.setdefault(_DATA_VARIABLE, str(folder / "wandb"))
    return class_type(*args, **given)


@contextmanager
def wandb_session() -> Iterator[None]:
    """End W&B's run when the block ends, as failed where it raises; stop W&B's service and reset ``WANDB_DATA_DIR``.

    Only then is an offline run's ``.wandb`` file complete, and a second run in the same process is a run of its own.
    """
    data_folder = os.environ.get(_DATA_VARIABLE)
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        if "wandb" in sys.modules:  # a second to import, for nothing where no run was started
            import wandb

            wandb.finish(exit_code)
            wandb.teardown()
        os.environ.pop(_DATA_VARIABLE, None)
        if data_folder is not None:
            os.environ[_DATA_VARIABLE] = data_folder
