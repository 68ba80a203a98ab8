"""``audio-lrp faithfulness --checkpoint CKPT``: whether a network's relevance maps can be trusted, on any corpus."""

from collections.abc import Sequence

from audio_lrp.commands.checkpoint_options import add_source, source_of
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp faithfulness``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError, UsageError: as `audio_lrp.study.checkpoint.measure_faithfulness`.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    from audio_lrp.study.checkpoint import measure_faithfulness  # only now: it needs PyTorch, and seconds

    folder, tables = measure_faithfulness(source_of(options), options.output, options.composite, options.clips)
    print(f"{'score':<28}mean   95 % interval over speakers")
    for row in tables["scores"]:
        interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"{row['score']:<25}{row['mean']:>7.3f}   {interval}")
    print(f"tables: {folder / 'tables'}\nfigures: {folder / 'figures'}")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp faithfulness",
        description="Explain recordings by LRP and test the maps: what is left of the accuracy when the most relevant, "
        "the least relevant, random or the loudest parts go; areas over these curves (AOPC), symmetric "
        "relevance gain (SRG), relevance mass, sensitivity, randomised parameters.",
    )
    add_source(parser)
    parser.add_argument(
        "--composite", default=DEFAULT_COMPOSITE, metavar="NAME", help=f"the LRP preset ({DEFAULT_COMPOSITE})"
    )
    parser.add_argument(
        "--clips", type=int, default=100, metavar="N", help="how many recordings, spread over the classes (100)"
    )
    return parser
