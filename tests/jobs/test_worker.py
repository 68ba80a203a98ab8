"""What a worker takes of its machine, and where its output goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audio_lrp.jobs import worker


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be kept from a process here")
def test_workers_share_the_cores_that_the_command_may_use() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import torch; "
        "from audio_lrp.jobs.worker import _take_share_of_machine; _take_share_of_machine(1, 0); "
        "print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "1\n"


@pytest.mark.parametrize(("workers", "threads"), [(1, 6), (2, 3), (40, 1)])
def test_a_worker_takes_its_share_of_the_threads(workers: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    worker._take_share_of_machine(workers, 0)
    assert taken == [threads]


def test_output_goes_to_a_file_for_a_while(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "worker.log"
    path.write_text("before\n")
    with pytest.raises(ValueError, match="boom"), worker.output_to(path):  # noqa: PT012
        os.write(2, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a process')"], check=True)
        raise ValueError("boom")
    os.write(1, b"after\n")
    assert path.read_text() == "before\nfrom C\nfrom a process\n"
    assert capfd.readouterr().out == "after\n"
