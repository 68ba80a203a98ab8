"""``audio-lrp dashboard``: build the W&B workspace and the report for this package's runs."""

import importlib.util
from collections.abc import Sequence

from audio_lrp.errors import UserError
from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run ``audio-lrp dashboard``.

    Args:
        args: its arguments, without the command's name; by default the process's.

    Raises:
        UserError: wandb-workspaces is not installed; W&B's own errors tell of keys and servers.
        UsageError: a mistake in the options.
        SystemExit: with code 0 after ``--help``.
    """
    options = parser().parse_args(args)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("wandb-workspaces is not installed: pip install 'audio-lrp[dashboard]'")
    from audio_lrp.tracking.dashboard import make_report, make_workspace  # only now: it needs seconds

    workspace = make_workspace(options.entity, options.project)
    if options.dry_run:  # the report shows the same panels, but asks the server for the project's number
        print(workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2))
        return
    import wandb

    wandb.login(verify=True)
    report = make_report(options.entity, options.project)
    print(f"workspace: {workspace.save().url}")
    print(f"report:    {report.save().url}")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp dashboard",
        description="Build a workspace and a report in a W&B project: training, relevance maps, sounds, perturbation "
        "curves, conservation and sweeps.",
    )
    parser.add_argument("--entity", required=True, help="user or team that the project belongs to")
    parser.add_argument("--project", default="audio-lrp", help="the project (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the workspace as JSON instead of saving anything")
    return parser
