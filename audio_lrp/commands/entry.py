"""Where the command line begins: help, version, one of the commands, and every mistake answered in one sentence.

Nothing here imports PyTorch, which takes seconds; the commands that need it do.
"""

import importlib
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from audio_lrp import __version__
from audio_lrp.commands import completion
from audio_lrp.commands.table import COMMANDS, LIGHTNING, overview
from audio_lrp.errors import (
    NO_SPACE,
    UsageError,
    UserError,
    lost_worker,
    not_writable,
    out_of_reach,
    too_many_files,
    wrongly_encoded,
)
from audio_lrp.training.complaints import complaint
from audio_lrp.utils.launcher import forget_what_is_no_number, stand_alone
from audio_lrp.utils.nearest import did_you_mean
from audio_lrp.utils.signals import interruption, orderly_end


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: its arguments; by default the process's.

    Raises:
        SystemExit: with code 2 after a mistake in the options, 1 after any other that the user can fix, 130 after
            an interruption, 143 after SIGTERM, 128 and its number after another signal. A message stands on standard
            error then, and no traceback. With code 141, and without a word, where what reads the output has ended, as
            ``head`` does.
    """
    args = sys.argv[1:] if args is None else args
    try:
        with orderly_end():
            _run(args)
            sys.stdout.flush()  # a full disk is told of here, and not by Python itself at its very end
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if (stop := interruption(error)) is not None:
            notes = stop.notes or (["the training had not begun"] if "fit" in args[:1] else [])
            _fail("; ".join([stop.name, *notes]), stop.exit_code)
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(141)
        mistake = _mistake(error)
        if mistake is None:
            raise
        text = " ".join(str(mistake).split())
        if not isinstance(mistake, UsageError):
            _fail(text, 1)
        _fail(text if "--help" in text else f"{text} (see {_help(args)})", 2)


def _run(args: Sequence[str]) -> None:
    for argument in args:
        argument.encode()  # fails for names that are not in UTF-8, which configurations could not hold
    match args:
        case []:
            raise UsageError("no command: begin with audio-lrp fit, or see audio-lrp --help")
        case ["-h" | "--help", *_]:
            print(overview())
        case ["--version", *_]:
            print(f"audio-lrp {__version__}")
        case [name, *_] if name.startswith("-"):
            hint = did_you_mean(name, ("--help", "--version"))
            raise UsageError(f"{name}: {hint or 'options come after the command, audio-lrp fit --config NAME'}")
        case [name, *rest]:
            run_command(name, rest)


def run_command(name: str, args: Sequence[str]) -> None:
    """Run one of the commands.

    Args:
        name: its name.
        args: its arguments, without its name.

    Raises:
        UserError: there is no such command, or what it has to say of its arguments and their files.
    """
    if name not in COMMANDS:
        hint = did_you_mean(name, (*COMMANDS, "--help", "--version")) or f"choose from {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {name!r}: {hint}")
    module = COMMANDS[name].module
    if module is None:
        completion.main(args)
    elif module == LIGHTNING:  # one parser over four commands, which needs their names
        forget_what_is_no_number()
        importlib.import_module(module).main([name, *args])
    else:  # its trainings, if any, are of one process each
        stand_alone()
        importlib.import_module(module).main(args)


def _help(args: Sequence[str]) -> str:
    """The command that tells more about the one that was given."""
    return f"audio-lrp {args[0]} --help" if args and args[0] in COMMANDS else "audio-lrp --help"


def _mistake(error: BaseException) -> BaseException | None:
    """What the user can fix among the causes of an error; jsonargparse wraps errors of constructors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return not_writable(cause.filename or "the output", cause)
        for known in (out_of_reach, wrongly_encoded, lost_worker, too_many_files, complaint):
            if mistake := known(cause):
                return mistake
        cause = cause.__cause__
    return None


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has ended; other pipes break as well."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return bool(output.poll(0))


def _fail(text: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:  # what could not be written would be tried again, with a complaint of Python's own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with suppress(OSError):  # a terminal that is gone, which SIGHUP tells of
        print(f"audio-lrp: error: {text}", file=sys.stderr)
    sys.exit(code)
