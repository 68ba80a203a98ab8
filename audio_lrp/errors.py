"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
    """A mistake in the input, answered with one sentence and no traceback.

    The message names the thing, the place where it stands and the mend, e.g.
    ``"fold 7 does not exist: AudioMNIST has folds 0 to 4 for the digit task; choose one with --data.fold"``.
    The command line prints it and exits with a code other than 0; library users may catch it.
    """


class UsageError(UserError):
    """A mistake in the options, found before anything runs: the command ends with exit code 2.

    Attributes:
        option: the option's dotted name without ``init_args``, where the message is about one.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option
