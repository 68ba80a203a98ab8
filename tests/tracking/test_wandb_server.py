"""Whole runs against a W&B server on loopback, with the real client."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import yaml
from command_line import exit_code, only_folder, tests_path, tiny_run
from wandb_server import WandbServer

WANDB = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a home of the test's own, and none of W&B's variables but the online mode."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "AUDIO_LRP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as server:
        server.use(monkeypatch)
        yield server
    assert server.unknown == []


def wandb(*arguments: str) -> str:
    """Run W&B's own command line."""
    command = [sys.executable, "-m", "wandb", *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def wandb_folders(run_folder: Path) -> list[str]:
    return sorted(map(str, run_folder.glob("wandb/*run-*-*")))


class ServerCrash(L.Callback):
    """A server that dies in the middle of a run."""

    server: WandbServer

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 0:
            self.server.stop()


def test_online_run(corpus: Path, server: WandbServer) -> None:
    callbacks = ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=2"]
    callbacks += ["--trainer.callbacks.num_pictures=1", "--trainer.callbacks+=ConfusionMatrixCallback"]
    callbacks += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/accuracy"]
    callbacks += ["--trainer.callbacks.mode=max", "--trainer.callbacks+=ModelCheckpoint"]
    callbacks += ["--trainer.callbacks.filename=last", "--trainer.max_epochs=2"]
    assert exit_code("fit", *tiny_run(corpus), *WANDB, *callbacks, "--run.test_after_fit=true") == 0
    run = server.only_run()
    assert run.project == "tests"
    assert run.exit_code == 0
    assert run.attributes["displayName"].startswith("fit-")
    keys = {key for line in run.history for key in line}
    assert {"train/loss", "val/accuracy", "val/loss", "lrp/maps", "lrp/perturbation_table"} <= keys
    # The best value stands for the run, not the last.
    assert run.summary["val/accuracy"]["max"] == max(run.values("val/accuracy"))
    assert run.summary["val/loss"]["min"] == min(run.values("val/loss"))
    # Checkpoints and arrays are artifacts.
    folder = only_folder(Path("runs"))
    artifacts = {item["artifactTypeName"]: name for name, item in server.artifacts.items()}
    model = server.artifacts[artifacts["model"]]
    assert {item["alias"] for item in model["aliases"]} == {"best", "latest"}
    assert json.loads(model["metadata"])["metrics"] == {"val/accuracy": max(run.values("val/accuracy"))}
    best = folder / "checkpoints" / json.loads(model["metadata"])["file"]
    assert server.storage[f"artifacts/{artifacts['model']}/model.ckpt"] == best.read_bytes()
    arrays = server.storage[f"artifacts/{artifacts['relevance']}/relevance-validation.npz"]
    assert arrays == (folder / "relevance-validation.npz").read_bytes()
    # The configuration is complete and nested, and the one beside the checkpoints.
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("model", "data", "trainer", "run", "seed_everything"):
        assert run.config[name]["value"] == saved[name]
    # Pictures and tables have arrived, not only their names.
    for key in ("lrp/maps", "test/confusion_matrix", "test/confusion_matrix_table"):
        value = run.values(key)[-1]
        for path in value.get("filenames") or [value["path"]]:
            assert run.files[path]


def test_run_is_taken_up_again(corpus: Path, server: WandbServer) -> None:
    crash = ["--trainer.callbacks+=interruptions.Crash", "--trainer.callbacks.step=7"]
    options = [*tiny_run(corpus), *WANDB, "--data.batch_size=4", "--trainer.max_epochs=2"]
    checkpoints = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code("fit", *options, *checkpoints, *crash)
    run = server.only_run()
    assert run.exit_code == 1
    logged = len(run.history)
    folder = only_folder(Path("runs"))
    assert exit_code("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", "--trainer.callbacks.step=-1") == 0
    assert server.only_run() is run
    assert run.exit_code == 0
    assert run.history[:logged][-1]["_step"] == logged - 1
    assert [line["_step"] for line in run.history] == list(range(len(run.history)))
    steps = [line["trainer/global_step"] for line in run.history if "train/loss" in line]
    assert steps == list(range(10))
    assert only_folder(Path("runs")) == folder


def test_offline_run_is_taken_up_again(
    corpus: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, in_empty_folder: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    crash = ["--trainer.callbacks+=interruptions.Crash", "--trainer.callbacks.step=7"]
    options = [*tiny_run(corpus), *WANDB, "--data.batch_size=4", "--trainer.max_epochs=2"]
    checkpoints = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1"]
    with pytest.raises(RuntimeError, match="power failure"):
        exit_code("fit", *options, *checkpoints, *crash)
    folder = only_folder(Path("runs"))
    assert exit_code("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", "--trainer.callbacks.step=-1") == 0
    assert server.runs == {}
    assert len(wandb_folders(folder)) == 2
    wandb("sync", *wandb_folders(folder))
    run = server.only_run()
    steps = [line["trainer/global_step"] for line in run.history if "train/loss" in line]
    assert steps == list(range(10))
    assert run.exit_code == 0


@pytest.mark.parametrize("reason", ["unreachable", "wrong key"])
def test_run_stays_offline_where_the_server_cannot_be_used(
    corpus: Path,
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    reason: str,
) -> None:
    monkeypatch.setattr("audio_lrp.tracking.wandb_logger._LOGIN_PATIENCE", 1)
    if reason == "unreachable":
        server.stop()
    else:
        server.use(monkeypatch, key="9" * 40)
    assert exit_code("fit", *tiny_run(corpus), *WANDB) == 0
    printed = capfd.readouterr()
    assert f"to upload it:        audio-lrp sync {only_folder(Path('runs'))}" in printed.out
    warnings = [line for line in printed.err.splitlines() if line.startswith("audio-lrp: warning")]
    assert len(warnings) == 1
    assert "the run is kept offline; audio-lrp sync uploads it later" in warnings[0]
    assert server.runs == {}
    if reason == "unreachable":
        server.start()
    server.use(monkeypatch)
    wandb("sync", *wandb_folders(only_folder(Path("runs"))))
    assert server.only_run().values("val/accuracy")
    assert server.only_run().exit_code == 0


@pytest.mark.slow
def test_server_that_dies_in_the_middle_of_a_run(
    corpus: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    monkeypatch.setattr(ServerCrash, "server", server, raising=False)
    options = [*tiny_run(corpus), *WANDB, "--trainer.max_epochs=3"]
    with pytest.warns(UserWarning, match="W&B did not take the artifact checkpoint-"):
        assert exit_code("fit", *options, "--trainer.callbacks=test_wandb_server.ServerCrash") == 0
    printed = capfd.readouterr()
    (warning,) = [line for line in printed.err.splitlines() if line.startswith("audio-lrp: warning")]
    command = warning.split("to upload it: ")[1].split()
    assert command[:2] == ["audio-lrp", "sync"]
    assert len(server.only_run().values("val/accuracy")) < 3
    server.start()
    assert exit_code(*command[1:]) == 0
    assert len(server.only_run().values("val/accuracy")) == 3
    assert server.only_run().exit_code == 0


def die_at_the_first_table(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server die in the middle of a table's upload."""
    store, died = server._stored, threading.Event()

    def store_or_die(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path.endswith("wandb_manifest.json") and not died.is_set():
            died.set()
            threading.Thread(target=server.stop).start()
            raise ConnectionResetError
        return store(method, path, body)

    monkeypatch.setattr(server, "_stored", store_or_die)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before a table", "in the middle of one"])
def test_server_that_dies_while_tables_wait(
    moment: str, corpus: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_X_FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS", "1")
    options = [*tiny_run(corpus), *WANDB, "--trainer.max_epochs=2", "--run.artifacts=false"]
    options += ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=2"]
    options += ["--trainer.callbacks.num_pictures=1"]
    if moment == "in the middle of one":
        die_at_the_first_table(server, monkeypatch)
    else:
        monkeypatch.setattr(ServerCrash, "server", server, raising=False)
        options += ["--trainer.callbacks+=test_wandb_server.ServerCrash"]
    assert exit_code("fit", *options) == 0
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("audio-lrp: warning")]
    server.start()
    assert exit_code(*warning.split("to upload it: ")[1].split()[1:]) == 0
    run = server.only_run()
    assert run.exit_code == 0
    tables = run.values("lrp/perturbation_table")
    assert len(tables) == 2
    assert all(run.files[table["path"]] for table in tables)


class ServiceCrash(L.Callback):
    """The system ends W&B's service, a process of its own, in the middle of a run."""

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 0:
            (child,) = [
                status.parent
                for status in Path("/proc").glob("[0-9]*/status")
                if f"PPid:\t{os.getpid()}\n" in status.read_text() and "wandb-core" in status.read_text()
            ]
            os.kill(int(child.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not list its processes in /proc")
def test_service_that_dies(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], in_empty_folder: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    options = [
        *tiny_run(corpus),
        *WANDB,
        "--trainer.max_epochs=3",
        "--trainer.callbacks=test_wandb_server.ServiceCrash",
    ]
    with pytest.warns(UserWarning, match="W&B did not take the artifact checkpoint-"):
        assert exit_code("fit", *options) == 0
    printed = capfd.readouterr().err.splitlines()
    warnings = [line for line in printed if line.startswith("audio-lrp: warning")]
    assert len(warnings) == 2
    assert "W&B takes no numbers any more" in warnings[0]
    assert "W&B has not written all of its run to" in warnings[1]
    (checkpoint,) = Path("runs").rglob("*.ckpt")
    assert "step=3" in checkpoint.name


@pytest.mark.slow
def test_sweep_with_two_agents(
    corpus: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, in_empty_folder: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE")  # an agent's trials are online by themselves
    monkeypatch.setenv("PYTHONPATH", tests_path())
    options = [option for option in tiny_run(corpus) if not option.startswith("--trainer.logger")]
    sweep = {
        "program": "audio-lrp",
        "command": ["${env}", sys.executable, "-m", "audio_lrp", "fit", *options, *WANDB, "${args}"],
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": {"model.init_args.label_smoothing": {"values": [0.1, 0.2]}},
    }
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep))
    printed = wandb("sweep", "--project", "tests", "sweep.yaml")
    assert "wandb agent someone/tests/sweep0" in printed
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: wandb("agent", "someone/tests/sweep0"), range(2)))
    assert len(server.agents) == 2
    assert sorted(server.runs) == ["sweep0t0", "sweep0t1"]
    for name, smoothing in {"sweep0t0": 0.1, "sweep0t1": 0.2}.items():
        run = server.runs[name]
        assert run.exit_code == 0
        assert run.attributes["sweep"] == "sweep0"
        assert run.config["model"]["value"]["init_args"]["label_smoothing"] == smoothing
        assert sweep["metric"]["name"] in run.summary
