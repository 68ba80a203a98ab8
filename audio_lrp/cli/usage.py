"""The exception for mistakes on the command line and in configuration files."""

from audio_lrp.errors import UserError


class UsageError(UserError):
    """A mistake in the options, found before anything runs: the command ends with exit code 2.

    Attributes:
        option: the option's dotted name without ``init_args``, where the message is about one.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option
