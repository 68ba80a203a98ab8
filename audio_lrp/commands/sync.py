"""``audio-lrp sync``: upload runs to W&B, also such as were made on another machine."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.errors import UserError
from audio_lrp.utils.arguments import CommandParser
from audio_lrp.utils.nearest import nearest_path


def sync(folders: Sequence[Path]) -> None:
    """Upload what W&B's server does not have yet of the runs in some folders.

    Args:
        folders: runs' folders, or folders that hold them.

    Raises:
        UserError: there are no runs, or W&B could not upload them.
    """
    from audio_lrp.tracking.moved_run import MissingFilesError, find_moved_files  # only now: it needs seconds

    for folder in folders:
        if not folder.is_dir():
            hint = nearest_path(folder) or "give the folder of a run, or one that holds runs"
            raise UserError(f"there is no folder {folder}: {hint}")
    files = sorted({path for folder in folders for path in folder.rglob("wandb/*run-*/run-*.wandb")})
    if not files:
        raise UserError(f"no W&B run lies in {', '.join(map(str, folders))}: were they made with trainer.logger false?")
    for path in files:
        try:
            moved = find_moved_files(path)
        except MissingFilesError as error:
            print(
                f"audio-lrp: warning: {path.parent.name} is uploaded without {len(error.paths)} files of its tables "
                f"and artifacts, which are not in {path.parents[2]}, such as {error.paths[0]}",
                file=sys.stderr,
            )
        else:
            if moved:
                print(f"{path.parent.name}: {moved} files found in their new place")
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *(str(path.parent) for path in files)]
    if subprocess.run(command, check=False).returncode:
        raise UserError("wandb sync failed, see above; what is not uploaded is still in the folders")


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp sync``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError: as `sync`.
        UsageError: a mistake in the options.
        SystemExit: with code 0 after ``--help``.
    """
    sync(parser().parse_args(args).folders)


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp sync",
        description="Upload runs to W&B, also such as were made on another machine and copied here.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder, or one of many runs")
    return parser
