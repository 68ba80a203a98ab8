"""``audio-lrp study``: the paper's experiments on any corpus, by one command that can be interrupted at any time."""

from collections.abc import Sequence
from pathlib import Path

from audio_lrp.constants import BUDGETS, SYNTHETIC, TASK_NAMES
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp study``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError, UsageError: as `audio_lrp.study.run.run_study`.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    from audio_lrp.study.run import run_study  # only now: it needs PyTorch, and seconds

    try:
        run_study(options)
    except KeyboardInterrupt as error:
        error.add_note("the same command resumes the study")
        raise


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp study",
        description="Train every network on every task and fold, test it, explain it, and test the explanations. "
        "Run the same command again to resume after an interruption, or elsewhere at the same time to share the work.",
    )
    parser.add_argument(
        "--corpus", required=True, metavar="NAME_OR_FOLDER", help=f"{SYNTHETIC!r}, or the folder of a corpus"
    )
    parser.add_argument("--exclude", metavar="FILE", help="a list of recordings to leave out, or audiomnist")
    parser.add_argument(
        "--budget", required=True, metavar="NAME", help=f"{', '.join(BUDGETS)}, or a YAML file of your own"
    )
    parser.add_argument("--folds", nargs="+", type=int, metavar="FOLD", help="which folds (all)")
    parser.add_argument("--networks", nargs="+", metavar="NETWORK", help="which networks (alexnet audionet)")
    parser.add_argument("--tasks", nargs="+", choices=TASK_NAMES, help="which tasks (all)")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="the study's folder, new or begun (study-NAME of the corpus)"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (1)")
    parser.add_argument(
        "--storage", metavar="URL", help="a database for the job queue; by default a file in the study's folder"
    )
    return parser
