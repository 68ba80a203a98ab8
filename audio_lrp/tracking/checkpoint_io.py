"""Checkpoints that are whole or not there, also when the disk is full or the process is killed."""

import io
import os
from pathlib import Path
from typing import Any, Final

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO

from audio_lrp.utils.files import replacing

_FIX: Final = "choose another place with --run.root; earlier checkpoints are kept: resume from them with --ckpt_path"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, and lets it take that place when all of it is on the disk.

    Lightning's own is first written to the folder for temporary files and then moved, which for a folder on another
    file system is to copy it over the checkpoint that is there: where the disk is full then, or the process is killed,
    neither the old checkpoint nor the new one is left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint; to places that are no local files, as Lightning does.

        Raises:
            UserError: it cannot be written; the file that was there before still is.
        """
        if "file" not in get_filesystem(path).protocol:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        for stale in place.parent.glob(".*.ckpt.*.part"):  # of a process that was killed: they are large
            stale.unlink(missing_ok=True)
        write_checkpoint(checkpoint, place, _FIX)


def write_checkpoint(checkpoint: dict[str, Any], path: Path, fix: str) -> None:
    """Write a checkpoint that is whole or not there.

    Args:
        checkpoint: what :func:`torch.save` takes.
        path: its place.
        fix: what the user can do where it cannot be written.

    Raises:
        UserError: it cannot be written; the file that was there before still is.
    """
    content = io.BytesIO()  # torch.save itself says of a full disk no more than that its writer failed
    torch.save(checkpoint, content)
    with replacing(path, fix) as temporary, temporary.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())  # some file systems tell only now that they are full
