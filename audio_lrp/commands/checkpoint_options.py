"""The options that name a command's checkpoint and corpus."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audio_lrp.constants import SYNTHETIC
from audio_lrp.utils.arguments import CommandParser

if TYPE_CHECKING:
    from audio_lrp.study.checkpoint import Source


def add_source(parser: CommandParser) -> None:
    """Add what `source_of` reads, and the folder for the results."""
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="CKPT", help="a .ckpt file of audio-lrp fit")
    parser.add_argument(
        "--corpus",
        metavar="NAME_OR_FOLDER",
        help=f"the folder of a corpus, all of whose recordings are taken, or {SYNTHETIC!r} (the run's test speakers)",
    )
    parser.add_argument("--exclude", metavar="FILE", help="a list of recordings to leave out, or audiomnist")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help=f"a new folder ({parser.prog.split()[-1]}-NAME of the corpus)"
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose classes the checkpoint may name, beside installed plugins",
    )


def source_of(options: Namespace) -> "Source":
    """The checkpoint and the corpus that are meant."""
    from audio_lrp.study.checkpoint import Source

    return Source(options.checkpoint, options.corpus, options.exclude, options.plugin)
