"""Reading a checkpoint file as data alone."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import torch

from audio_lrp.errors import UserError
from audio_lrp.nearest import nearest_path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, mapped into memory; nothing in the file is executed.

    Raises:
        UserError: the file does not exist, cannot be read safely, or is something else.
    """
    if path.is_dir():
        inside = sorted([*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt")])
        hint = f"name a checkpoint in it, such as {inside[-1]}" if inside else "give the path of a .ckpt file"
        raise UserError(f"{path} is a folder: {hint}")
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: {nearest_path(path) or 'give the path of a .ckpt file'}")
    try:
        is_archive = is_zipfile(path)
    except BadZipFile:  # damaged in the records at its end, which say how many parts the archive has
        is_archive = False
    if not is_archive:
        raise UserError(f"{path} is no checkpoint: give a .ckpt file that audio-lrp fit has written")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a file that is no checkpoint makes the unpickler fail in any possible way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be loaded as a checkpoint of weights alone ({reason[:150]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} is not a Lightning checkpoint: it holds no state_dict")
    return content
