"""Sweeps without an account from start to end, on a tiny network."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import exit_code, wandb_records
from fake_corpus import ToneCorpus
from matplotlib.image import imread
from small_sweep import LEVEL, trials, write_sweep
from waiting import wait_until

from audio_lrp.commands.sweep import main
from audio_lrp.errors import UsageError, UserError
from audio_lrp.sweeps.options import printed_config
from audio_lrp.utils.processes import has_ended, process_name


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    ToneCorpus(root, repetitions=1).prepare()
    return root


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own; workers find the tests' modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_DATA_DIR", "WANDB_RUN_GROUP", "AUDIO_LRP_RUN_FOLDER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_from_start_to_end(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests"]
    write_sweep(corpus, [0.5, 0.25, -1.0, 0.75], *wandb)
    main(["levels.yaml"])
    rows = trials()
    assert [row["state"] for row in rows] == ["complete", "pruned", "fail", "complete"]
    # A pruned trial stops after its first value of three; its checkpoints are gone.
    assert [int(row["logged values"]) for row in rows] == [3, 1, 0, 3]
    assert [float(row[LEVEL]) for row in rows] == [0.5, 0.25, -1.0, 0.75]
    assert rows[2]["failure"] == "RuntimeError: boom"
    folder = Path("runs/sweeps/levels")
    assert {path.parts[-3] for path in folder.glob("*/*/checkpoints")} == {"trial-000", "trial-003"}

    lines = capsys.readouterr().out.splitlines()
    printed = dict(line.split(": ", 1) for line in lines)
    assert printed["trials"].strip() == "2 complete, 1 pruned, 1 failed"
    assert printed["best score"].strip() == "0.75 (trial 3)"
    assert printed["mean of the grid"].strip() == "0.625 ± 0.18 (standard deviation)"
    assert lines[-1] == "trial 2 failed: RuntimeError: boom"

    # The best trial's configuration is a run's like any other.
    best = folder / "best.yaml"
    assert "trial 3 of the sweep, score 0.75" in best.read_text().splitlines()[0]
    again = yaml.safe_load(printed_config(["fit", "--config", str(best)]))
    assert again == yaml.safe_load(best.read_text())
    assert again["trainer"]["callbacks"][0]["init_args"]["level"] == 0.75
    assert again["run"] == {"root": "runs", "experiment": None, "test_after_fit": False, "artifacts": None}
    assert imread(folder / "comparison.png").ndim == 3

    # W&B has the trials in one group; a pruned one has not failed.
    records = [wandb_records(next(folder.glob(f"{name}/*"))) for name in ("trial-001", "trial-002")]
    starts = [next(record["run"] for record in run if record["type"] == "run") for run in records]
    assert {start["run_group"] for start in starts} == {"levels"}
    assert [start["display_name"].rsplit("-", 2)[0] for start in starts] == ["trial-001", "trial-002"]
    codes = [run[-1]["exit"].get("exit_code", 0) for run in records]
    assert codes == [0, 1]

    # Nothing is left to do when the same command is typed again.
    main(["levels.yaml"])
    assert trials() == rows
    assert len(list(folder.glob("trial-*"))) == 4


def test_metric_that_is_never_logged(corpus: Path, workers_in_this_process: None) -> None:
    write_sweep(corpus, [0.5], metric={"name": "scores"})
    with pytest.raises(UserError, match=r"none of the .* 1 trials .*metric scores was never logged; there is score"):
        main(["levels.yaml"])


def test_mistakes_are_told_before_anything_runs(corpus: Path) -> None:
    write_sweep(corpus, [0.5], parameters={"model.init_args.label_smothing": {"value": 0.1}})
    with pytest.raises(UsageError, match=r"label_smothing: did you mean --model.label_smoothing"):
        main(["levels.yaml"])
    write_sweep(corpus, [0.5], method="random")
    with pytest.raises(UsageError, match="--trials 20"):
        main(["levels.yaml"])
    with pytest.raises(UsageError, match="--workers is a number above 0, not 0"):
        main(["levels.yaml", "--workers", "0"])
    with pytest.raises(UsageError, match=r"unknown option --trails: did you mean --trials"):
        main(["levels.yaml", "--trails", "3"])
    assert exit_code("sweep", "nothing.yaml") == 1
    assert not Path("runs").exists()


def heed_interrupts() -> None:
    """Shells start what runs in the background, such as the tests, with Ctrl-C ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_worker_and_stopped_sweep(corpus: Path, number: signal.Signals) -> None:
    # Many and slow enough that one worker alone has not done them all before another takes the killed one's place.
    levels = [number / 100 for number in range(50, 66)]
    write_sweep(corpus, levels, "--trainer.callbacks.init_args.seconds=1", early_terminate=None)
    command = [sys.executable, "-m", "audio_lrp", "sweep", "levels.yaml", "--workers", "2"]
    sweep = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_interrupts
    )
    folder = Path("runs/sweeps/levels")
    wait_until(lambda: list(folder.glob("trial-*/*/config.yaml")))
    killed = int(next(folder.glob("worker-*.log")).stem.rpartition("-")[2])
    os.kill(killed, number)
    wait_until(lambda: len(list(folder.glob("worker-*.log"))) == 3)  # another takes its place
    wait_until(lambda: len(list(folder.glob("trial-*"))) >= 5)
    sweep.send_signal(signal.SIGINT)
    output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "the same command resumes the sweep" in output
    begun = len(list(folder.glob("trial-*")))
    assert begun < len(levels)

    subprocess.run(command, check=True, capture_output=True, timeout=300)
    rows = trials()
    assert sorted(float(row[LEVEL]) for row in rows) == levels
    assert {row["state"] for row in rows} == {"complete"}
    assert len(list(folder.glob("trial-*"))) > len(levels)  # those of the dead and the stopped were begun anew


@pytest.mark.slow
def test_workers_end_with_a_killed_sweep(corpus: Path) -> None:
    write_sweep(corpus, [0.5, 0.75], "--trainer.callbacks.init_args.seconds=600", early_terminate=None)
    command = [sys.executable, "-m", "audio_lrp", "sweep", "levels.yaml", "--workers", "2"]
    sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = Path("runs/sweeps/levels")
    wait_until(lambda: len(list(folder.glob("trial-*/*/config.yaml"))) == 2)
    workers = [process_name(int(log.stem.rpartition("-")[2])) for log in folder.glob("worker-*.log")]
    assert len(workers) == 2
    assert not any(map(has_ended, workers))
    sweep.kill()
    sweep.wait()
    wait_until(lambda: all(map(has_ended, workers)), seconds=30)
