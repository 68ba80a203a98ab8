"""Run a sweep without W&B's server: ``audio-lrp sweep sweeps/audionet.yaml --trials 20``."""

import importlib.util
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.errors import UsageError, UserError
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: its arguments; by default the process's.

    Raises:
        UserError: Optuna is missing, or the sweep, its storage or an option is wrong.
    """
    options = parser().parse_args(args)
    for name in ("trials", "workers"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} is a number above 0, not {getattr(options, name)}")
    if importlib.util.find_spec("optuna") is None:
        raise UserError("sweeps without W&B need Optuna: pip install 'audio-lrp[sweeps]'")
    print(_run(options))


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp sweep",
        description="Run a W&B sweep file without W&B's server, through Optuna. The same command typed again goes on "
        "with a sweep that was stopped, or helps one that runs.",
    )
    parser.add_argument("sweep", metavar="FILE", type=Path, help="the sweep's YAML file")
    parser.add_argument(
        "--trials", metavar="N", type=int, help="trials of the sweep in all; by default its run_cap or its grid"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes on this machine, each with a trial (1)"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="of a database that several machines share; else a file in the folder"
    )
    parser.add_argument("--name", help="of the sweep, and of its folder in runs/sweeps; else the file's")
    return parser


def _run(options: Namespace) -> str:
    # Only now: they need Optuna, and seconds.
    import optuna

    from audio_lrp.sweeps.options import printed_config
    from audio_lrp.sweeps.report import write_report
    from audio_lrp.sweeps.study import default_storage, open_study, told_as_user_errors
    from audio_lrp.sweeps.supervisor import supervise
    from audio_lrp.sweeps.sweep_file import make_sweep, read_sweep
    from audio_lrp.sweeps.worker import Job
    from audio_lrp.training.places import place_in_file

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since 2021
    content = read_sweep(options.sweep)
    sweep = make_sweep(content)
    total = _total(options.trials, sweep.run_cap, len(sweep.grid) if sweep.method == "grid" else None)
    first = {name: parameter.example for name, parameter in sweep.parameters.items()}
    try:
        printed_config(sweep.arguments(first))  # an option that does not exist is told now, not by every trial
    except UsageError as error:
        lost = [name for name in first if name.replace(".init_args.", ".") == error.option]
        place = place_in_file(options.sweep, f"parameters.{lost[0]}" if lost else "command")
        raise UsageError(f"{place}: {error}", error.option) from error
    name = options.name or options.sweep.stem
    folder = Path("runs/sweeps") / name
    folder.mkdir(parents=True, exist_ok=True)
    storage = options.storage or default_storage(folder.absolute())
    study = open_study(storage, name, sweep, content)
    try:
        supervise(study, sweep, Job(name, content, storage, total, folder.absolute(), options.workers))
    except KeyboardInterrupt as error:
        error.add_note("the same command goes on with the sweep")
        raise
    with told_as_user_errors(storage):
        return write_report(study, sweep, folder)


def _total(wanted: int | None, run_cap: int | None, grid: int | None) -> int:
    """How many trials the sweep has: as many as asked for, and no more than its grid has points."""
    total = wanted or run_cap
    if grid is not None:
        return min(total or grid, grid)
    if total is None:
        raise UsageError("say how many trials the sweep should have: --trials 20")
    return total
