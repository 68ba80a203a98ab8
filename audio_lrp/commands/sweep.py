"""``audio-lrp sweep FILE``: a sweep without W&B's server."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.errors import UsageError
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp sweep``.

    Args:
        args: its arguments; by default the process's.

    Raises:
        UserError: the sweep, its storage or an option is wrong.
    """
    options = parser().parse_args(args)
    for name in ("trials", "workers"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} is a number above 0, not {getattr(options, name)}")
    print(_run(options))


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp sweep",
        description="Run a W&B sweep file without W&B's server, through Optuna. The same command typed again "
        "resumes a sweep that was stopped, or helps one that runs.",
    )
    parser.add_argument("sweep", metavar="FILE", type=Path, help="the sweep's YAML file")
    parser.add_argument(
        "--trials", metavar="N", type=int, help="trials of the sweep in all; by default its run_cap or its grid"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes on this machine, each with a trial (1)"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="a database for the job queue; by default a file in the sweep's folder"
    )
    parser.add_argument("--name", help="of the sweep, and of its folder in runs/sweeps; else the file's")
    return parser


def _run(options: Namespace) -> str:
    # Only now: they need PyTorch, and seconds.
    from audio_lrp.jobs import default_storage, storage_errors, supervise
    from audio_lrp.sweeps.options import printed_config
    from audio_lrp.sweeps.report import write_report
    from audio_lrp.sweeps.sweep_file import make_sweep, read_sweep
    from audio_lrp.sweeps.work import SweepWork
    from audio_lrp.training.places import place_in_file

    content = read_sweep(options.sweep)
    sweep = make_sweep(content)
    total = _total(options.trials, sweep.run_cap, len(sweep.grid) if sweep.method == "grid" else None)
    first = {name: parameter.example for name, parameter in sweep.parameters.items()}
    try:
        printed_config(sweep.arguments(first))  # refuse an option that does not exist now, not in every trial
    except UsageError as error:
        lost = [name for name in first if name.replace(".init_args.", ".") == error.option]
        place = place_in_file(options.sweep, f"parameters.{lost[0]}" if lost else "command")
        raise UsageError(f"{place}: {error}", error.option) from error
    name = options.name or options.sweep.stem
    folder = Path("runs/sweeps") / name
    folder.mkdir(parents=True, exist_ok=True)
    work = SweepWork(name, content, options.storage or default_storage(folder), total, folder.absolute())
    try:
        queue = supervise(work, options.workers, unit="trial")
    except KeyboardInterrupt as error:
        error.add_note("the same command resumes the sweep")
        raise
    with storage_errors(work.storage):
        return write_report(queue, sweep, folder)


def _total(wanted: int | None, run_cap: int | None, grid: int | None) -> int:
    """How many trials the sweep has: as many as asked for, and no more than its grid has points."""
    total = wanted or run_cap
    if grid is not None:
        return min(total or grid, grid)
    if total is None:
        raise UsageError("say how many trials the sweep should have: --trials 20")
    return total
