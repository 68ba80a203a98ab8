"""Names of processes: one that has ended is known by its name, also where its number is used again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audio_lrp.utils import processes
from audio_lrp.utils.processes import has_ended, process_name


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])
def test_processes_of_this_machine(proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", Path(proc))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(child.pid)
    assert not has_ended(name)
    assert not has_ended(process_name())
    child.kill()
    child.wait()
    assert has_ended(name)


def test_a_process_of_another_machine_is_not_known_to_have_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not has_ended(f"another-machine-{child.pid}-1")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system does not tell when processes started")
def test_a_number_used_again_is_another_process() -> None:
    machine = process_name().rsplit("-", 2)[0]
    assert has_ended(f"{machine}-{os.getpid()}-1")
