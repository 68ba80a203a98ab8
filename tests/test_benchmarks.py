"""The benchmarks, each as small as it gets: that they run and print their tables, whatever the numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"

SMALLEST = {
    "attribution": ("--networks AudioNet --batch 1 --presets epsilon --repetitions 1", r"epsilon .*x .*x"),
    "cache": ("--recordings 1600", r"packing, 1 core .* MB .*(?s:.)*a million clips: "),
    "faithfulness": ("--networks AudioNet --examples 2 --flipped 1 --attributed 1 --repetitions 1", "max-sensitivity"),
    "loader": ("--configs audionet_digit --batches 2", "a whole training batch"),
    "lrp_callback": ("--networks AudioNet --repetitions 1", "W&B's own process"),
    "timefrequency": ("--batch-size 1 --num-samples 800 --repetitions 1", "of the time, .* of the memory"),
    "training_step": ("--networks AudioNet --batch_size 2 --repetitions 1 --loop_steps 2", "of a bare loop .*%"),
}
"""Options by name, and a pattern of what is printed last; few recordings take less CPU time than the system counts."""


def test_all_are_here() -> None:
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == set(SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options, printed = SMALLEST[name]
    if name == "cache":
        pytest.importorskip("h5py")
        options += f" --source {request.getfixturevalue('shared_data') / 'audiomnist-sample'}"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options.split()]
    environment = os.environ | {"AUDIO_LRP_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "offline"}
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert re.search(printed, result.stdout)
