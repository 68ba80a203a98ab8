"""``audio-lrp scaling --checkpoint CKPT``: the paper's scaling of the frequency axis, on any corpus."""

from collections.abc import Sequence

from audio_lrp.commands.checkpoint_options import add_source, source_of
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp scaling``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError, UsageError: as `audio_lrp.study.checkpoint.measure_scaling`.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    from audio_lrp.study.checkpoint import measure_scaling  # only now: it needs PyTorch, and seconds

    folder, tables = measure_scaling(source_of(options), options.output)
    print(f"{'manipulation':<28}{'voices':<8}recordings   accuracy in %, 95 % interval over speakers")
    for row in tables["frequency_scaling"]:
        accuracy, low, high = (_percent(row[column]) for column in ("accuracy", "low", "high"))
        interval = f"   {low} to {high}" if low else ""  # of a single speaker there is none
        print(f"{row['manipulation']:<28}{row['speakers']:<8}{row['clips']:>10}{accuracy:>11}{interval}")
    print(f"tables: {folder / 'tables'}\nfigures: {folder / 'figures'}")


def _percent(share: str | float | None) -> str:
    return "" if share is None else f"{100 * float(share):.1f}"


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp scaling",
        description="Scale the frequency axis of spectrograms so that pitch matches the other gender's (male voices "
        "by 1.5, female ones by 0.66), and see what is left of the accuracy: of gender, whether the network hears "
        "pitch; of digits, whether it understands voices of another pitch. Controls: away from the other gender, there "
        "and back, and scaling of time.",
    )
    add_source(parser)
    return parser
