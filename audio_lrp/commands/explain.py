"""``audio-lrp explain --checkpoint CKPT PATH...``: what a trained network hears in recordings."""

import sys
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.errors import UserError
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp explain``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError: as `audio_lrp.explain.recordings.explain`; also, when all others are explained, that a recording
            could not be.
        UsageError: a mistake in the options.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    from audio_lrp.explain.recordings import explain  # only now: it needs PyTorch, and seconds

    report = explain(
        options.checkpoint,
        options.paths,
        options.output,
        target=options.target,
        composite=options.composite,
        band=tuple(options.band) if options.band else None,
        plugins=options.plugin,
    )
    for note in report.notes:
        print(f"audio-lrp: warning: {note}", file=sys.stderr)
    for name, reason in report.unusable.items():
        print(f"audio-lrp: warning: {name} is not explained: {reason}", file=sys.stderr)
    for recording in report.recordings:
        print(f"{recording.name}: {recording.prediction} ({recording.probabilities[recording.prediction]:.1%})")
    print(f"explanations: {report.page}")
    if report.unusable:
        total = len(report.recordings) + len(report.unusable)
        raise UserError(f"{len(report.unusable)} of {total} recordings could not be explained, see the warnings above")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp explain",
        description="Explain what a trained network hears in recordings: predictions, pictures, sounds, arrays.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="recordings, or folders of them")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="CKPT", help="a .ckpt file of audio-lrp fit")
    parser.add_argument(
        "--output", type=Path, default=Path("explanations"), metavar="FOLDER", help="a new folder (explanations)"
    )
    parser.add_argument(
        "--target", default="predicted", metavar="CLASS", help="the class to explain (each window's predicted one)"
    )
    parser.add_argument(
        "--composite", default=DEFAULT_COMPOSITE, metavar="NAME", help=f"the LRP preset ({DEFAULT_COMPOSITE})"
    )
    parser.add_argument(
        "--band",
        nargs=2,
        type=float,
        metavar=("LOWEST", "HIGHEST"),
        help="also sounds of these frequencies alone, in Hz",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose network the checkpoint may name, beside installed plugins",
    )
    return parser
