"""A process that has imported the program and forks for every command: what is killed need not import it again.

A child's command runs as ``audio-lrp`` does, in a process group of its own. What takes minutes by its nature is
made short: studies train tiny networks in their own process, and a sweep's workers are forked.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace


class ForkingServer:
    """The server's handle; a context manager."""

    def __enter__(self) -> "ForkingServer":
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def run(self, arguments: list[str], kill_after: float | None = None) -> tuple[int, float]:
        """Run a command in the working folder.

        Args:
            arguments: of ``audio-lrp``.
            kill_after: seconds after which its processes are killed.

        Returns:
            Its exit code, negative where it was killed, and the seconds that it ran.
        """
        request = {"folder": str(Path.cwd()), "arguments": arguments, "kill_after": kill_after}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return answer["exit_code"], answer["seconds"]


def _serve() -> None:
    from functools import partial

    import explainable  # noqa: F401
    import small_study
    import small_sweep  # noqa: F401
    from command_line import exit_code

    import audio_lrp.commands.sweep
    import audio_lrp.explain.recordings
    import audio_lrp.jobs.supervisor
    import audio_lrp.study.run
    import audio_lrp.study.subject
    import audio_lrp.study.training
    import audio_lrp.sweeps.report
    import audio_lrp.sweeps.work
    import audio_lrp.training.lightning_cli

    trusted = ["small_study", "explainable", "command_line"]
    load_network = audio_lrp.explain.recordings.load_network
    audio_lrp.explain.recordings.load_network = lambda path, plugins: load_network(path, trusted)
    audio_lrp.study.subject.load_network = partial(load_network, plugins=trusted)
    audio_lrp.study.training.run_lightning = small_study.train_tiny
    fork = multiprocessing.get_context("fork")
    audio_lrp.jobs.supervisor.multiprocessing = SimpleNamespace(get_context=lambda _: fork)

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(request, exit_code)
        status = _wait(child, request["kill_after"])
        answer = {"exit_code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
        print(json.dumps(answer), flush=True)


def _run(request, exit_code) -> None:
    os.setsid()
    os.chdir(request["folder"])
    log = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    try:
        code = exit_code(*request["arguments"])
    except Exception:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(child: int, kill_after: float | None) -> int:
    deadline = time.monotonic() + (600 if kill_after is None else kill_after)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    _serve()
