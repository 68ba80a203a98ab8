"""SIGTERM and its like: how a command ends, with which exit code, and what it says of resuming."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code, only_folder, tiny_run
from lightning.pytorch import Callback, Trainer

from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.training.lightning_cli import AudioLRPCLI
from audio_lrp.utils.signals import Terminated, end_if_terminated, interruption, orderly_end

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: 138}


class Signalled(Callback):
    """Sends its process a signal where a hook is called.

    Args:
        hook: the hook's name.
        epoch: which of the training.
        number: the signal's.
        times: how many one after the other.
        lost: whether the exception for it gets lost, as in a finalizer.
        clean_up: whether another comes while the first one's end is under way.
    """

    def __init__(
        self,
        hook: str = "on_train_batch_end",
        epoch: int = 0,
        number: int = 15,
        times: int = 1,
        lost: bool = False,
        clean_up: bool = False,
    ) -> None:
        self.epoch, self.number, self.times, self.lost, self.clean_up = epoch, number, times, lost, clean_up
        setattr(self, hook, self._send)

    def _send(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.current_epoch != self.epoch or trainer.sanity_checking:
            return
        if self.lost:
            Finalized(self.number)
        for _ in range(0 if self.lost else self.times):
            os.kill(os.getpid(), self.number)

    def on_exception(self, *_: Any) -> None:
        if self.clean_up:
            os.kill(os.getpid(), self.number)


class Finalized:
    """Gone as soon as it is made, with a signal while Python finalizes it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


def signalled(**settings: Any) -> list[str]:
    options = [f"--trainer.callbacks.init_args.{name}={value}" for name, value in settings.items()]
    return ["--trainer.callbacks=test_signals.Signalled", *options]


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """A test run may be one that heeds no SIGHUP or Ctrl-C, as by nohup or in a shell's background."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in CODES if number != signal.SIGINT}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [*tiny_run(tmp_path / "tones"), "--trainer.max_epochs=2"]


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that the command ended with."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("audio-lrp: error: ")]
    return line.removeprefix("audio-lrp: error: ")


@pytest.mark.parametrize(
    ("hook", "number"),
    [
        ("on_train_batch_end", signal.SIGINT),
        ("on_train_batch_end", signal.SIGTERM),
        ("on_validation_batch_end", signal.SIGTERM),
        ("on_validation_end", signal.SIGTERM),
        ("on_validation_batch_end", signal.SIGHUP),
        ("on_train_batch_end", signal.SIGUSR1),
    ],
)
def test_a_training_tells_how_to_resume_it(
    run: list[str], hook: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code("fit", *run, "--run.experiment=a b", *signalled(hook=hook, epoch=1, number=int(number)))
    assert code == CODES[number]
    name, _, command = error(capsys).partition("; to resume the training: ")
    assert name == ("interrupted" if number == signal.SIGINT else f"ended by {number.name}")
    folder = only_folder(Path("runs"))
    assert shlex.split(command) == [
        "audio-lrp", "fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last",
    ]  # fmt: skip
    assert exit_code(*shlex.split(command)[1:], "--trainer.callbacks=null") == 0
    assert only_folder(Path("runs")) == folder
    assert max(read_checkpoint(path)["epoch"] for path in folder.glob("checkpoints/*.ckpt")) == 1


@pytest.mark.parametrize("hook", ["setup", "on_train_batch_end"])
def test_a_training_without_checkpoint_says_so(run: list[str], hook: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("fit", *run, *signalled(hook=hook)) == 143
    told = "no checkpoint was written yet from which the training could be resumed"
    assert error(capsys) == f"ended by SIGTERM; {told}"


def test_before_the_training(
    run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AudioLRPCLI, "instantiate_classes", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert exit_code("fit", *run) == 143
    assert error(capsys) == "ended by SIGTERM; the training had not begun"


def test_a_checkpoint_in_a_folder_of_the_users_own(run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    keep = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=kept"]
    assert exit_code("fit", *run, *signalled(epoch=1), *keep) == 143
    command = shlex.split(error(capsys).partition("; to resume the training: ")[2])
    assert command[-1].startswith("kept/")
    assert exit_code(*command[1:], "--trainer.callbacks=null") == 0


def test_during_the_test_after_the_training(run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    testing = ["--run.test_after_fit=true", *signalled(hook="on_test_batch_end", epoch=2)]
    assert exit_code("fit", *run, *testing) == 143
    command = shlex.split(error(capsys).partition("; to resume the training: ")[2])
    assert exit_code(*command[1:], "--trainer.callbacks=null") == 0
    assert "test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_without_training(run: list[str], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    hook = "on_validation_batch_end" if command == "validate" else f"on_{command}_batch_end"
    assert exit_code(command, *run, *signalled(hook=hook)) == 143
    assert error(capsys) == "ended by SIGTERM"


@pytest.mark.parametrize("settings", [{"times": 3}, {"clean_up": "true"}, {"lost": "true"}])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_several_signals_and_lost_ones(
    run: list[str], settings: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert exit_code("fit", *run, *signalled(epoch=1, **settings)) == 143
    assert "ended by SIGTERM; to resume the training: " in error(capsys)


def test_nohup(run: list[str]) -> None:
    """Whoever ignores the terminal's end is left in peace."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_code("fit", *run, *signalled(number=int(signal.SIGHUP))) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in CODES]
    with pytest.raises(Terminated), orderly_end():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in CODES] == before
    with pytest.raises(Terminated):
        end_if_terminated()
    with orderly_end():
        end_if_terminated()  # the former block's signal is not this one's


def test_a_forked_process_ends_by_itself() -> None:
    with orderly_end():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def failing(cause: Callable[[], None]) -> BaseException:
    try:
        try:
            cause()
        except BaseException:
            raise RuntimeError("DataLoader worker is killed by signal: Terminated.")  # noqa: B904
    except RuntimeError as error:
        return error


def test_what_fails_because_of_a_signal_is_told_as_the_signal() -> None:
    def terminated() -> None:
        raise Terminated(signal.SIGTERM)

    assert interruption(failing(terminated)) == ("ended by SIGTERM", 143, [])
    assert interruption(failing(lambda: 1 / 0)) is None
    assert interruption(SystemExit(1)) is None


def test_an_error_raised_from_a_later_one_is_looked_at_once() -> None:
    cause, later = Terminated(signal.SIGTERM), RuntimeError()
    later.__context__, cause.__cause__ = cause, later
    assert interruption(later) == ("ended by SIGTERM", 143, [])
    first, second = ValueError(), RuntimeError()
    first.__cause__, second.__context__ = second, first
    assert interruption(first) is None
