"""The configuration that the command line makes of a trial's options, without running anything."""

import contextlib
import io
from collections.abc import Sequence

from audio_lrp.training.from_checkpoint import with_stored_configuration
from audio_lrp.training.lightning_cli import AudioLRPCLI


def printed_config(arguments: Sequence[str]) -> str:
    """The whole configuration that stands behind a command.

    Args:
        arguments: the command line's, e.g. ``["fit", "--config", "quickstart"]``.

    Returns:
        YAML that ``--config`` takes back.

    Raises:
        UserError: an option does not exist (the nearest ones are named), or has a value of the wrong type.
    """
    output = io.StringIO()
    with (
        with_stored_configuration([*arguments, "--print_config"]) as complete,
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        AudioLRPCLI(complete)
    return output.getvalue()
