"""``audio-lrp report FOLDER``: one HTML file about a run, a checkpoint or a study."""

import sys
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.constants import REPORT_FILENAME
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp report``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError: as `audio_lrp.report.document.report`.
        UsageError: a mistake in the options.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    from audio_lrp.report.document import report  # only now: it needs PyTorch, and seconds

    written = report(options.folder, options.output, plugins=options.plugin)
    for problem in written.problems:
        print(f"audio-lrp: warning: {problem}", file=sys.stderr)
    print(f"report: {written.path}")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp report",
        description="Write one HTML file about a run or a study: results, curves, relevance maps and sounds.",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="the folder of a run, runs/NAME/TIME, or of a study; a checkpoint",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the file ({REPORT_FILENAME} in the folder)")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose classes the run may name, beside installed plugins",
    )
    return parser
