"""The run's folder, its configuration, and its W&B run."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import wandb
import yaml
from command_line import exit_code, only_folder, tests_path, tiny_run, wandb_config, wandb_records
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from audio_lrp.errors import UserError
from audio_lrp.tracking import Run, discard_empty_folders, make_wandb_logger, run_folder, wandb_session
from audio_lrp.utils.parallel import usable_cores

LOGGERS = "trainer: {logger: [CSVLogger, {class_path: CSVLogger, init_args: {name: b}}]}"
WANDB = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own, and W&B's variables unset."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "WANDB_MODE",
        "WANDB_SWEEP_ID",
        "WANDB_DATA_DIR",
        "WANDB_NAME",
        "WANDB_PROJECT",
        "AUDIO_LRP_RUN_FOLDER",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def run(*arguments: str) -> None:
    assert exit_code(*arguments) == 0


class TestRunFolder:
    """One folder a run."""

    def test_runs_of_the_same_second_do_not_collide(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            folders = list(pool.map(lambda _: Run("runs", "crowd").folder, range(64)))
        assert len(set(folders)) == 64
        assert all(folder.is_dir() and folder.parent == Path("runs/crowd").absolute() for folder in folders)

    def test_folder_is_made_when_asked_for_and_once(self) -> None:
        made = Run("runs", "lazy")
        assert not Path("runs").exists()
        assert made.folder == made.folder
        assert len(list(Path("runs").glob("*/*"))) == 1

    def test_impossible_folder(self) -> None:
        Path("runs").write_text("a file")
        with pytest.raises(UserError, match=r"cannot be created .*--run.root"):
            _ = Run("runs", "name").folder

    @pytest.mark.parametrize("experiment", ["name", "a/b/c"])
    def test_empty_folders_are_discarded(self, experiment: str) -> None:
        assert Run("runs", experiment).folder.is_dir()
        discard_empty_folders()
        assert not Path("runs").exists()

    def test_folders_of_others_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here, other = tmp_path / "work", tmp_path / "other" / "name" / "run"
        (here / "mine").mkdir(parents=True)
        other.mkdir(parents=True)
        monkeypatch.chdir(here)
        monkeypatch.setenv("AUDIO_LRP_RUN_FOLDER", str(other))
        discard_empty_folders()
        assert other.is_dir()
        for experiment in ("mine", "new"):
            assert Run(".", experiment).folder.is_dir()
            discard_empty_folders()
            assert [path.name for path in here.iterdir()] == ["mine"]
        (here / "mine").rmdir()
        assert Run(".", "new").folder.is_dir()
        discard_empty_folders()
        assert here.is_dir()

    def test_folders_that_hold_something_are_kept(self) -> None:
        full, empty = Run("runs", "full").folder, Run("runs", "empty").folder
        (full / "config.yaml").touch()
        (empty / "wandb" / "run").mkdir(parents=True)  # W&B had begun
        discard_empty_folders()
        assert full.is_dir()
        assert not empty.parent.exists()

    def test_folders_that_only_share_wandbs_name_are_kept(self) -> None:
        full = Run("runs", "wandb").folder
        (full / "config.yaml").touch()
        discard_empty_folders()
        assert (full / "config.yaml").is_file()

    def test_later_processes_take_the_first_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = Run("runs", "ddp").folder
        monkeypatch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1)
        assert Run("runs", "ddp").folder == first

    def test_trainers_of_other_makers(self, tmp_path: Path) -> None:
        quiet: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": tmp_path / "root"}
        assert run_folder(L.Trainer(logger=False, **quiet)) == tmp_path / "root"
        logger = CSVLogger(tmp_path / "logs", name="name")
        assert run_folder(L.Trainer(logger=logger, **quiet)) == Path(logger.log_dir)
        assert run_folder(L.Trainer(logger=WandbLogger(save_dir=tmp_path / "w"), **quiet)) == tmp_path / "w"


class TestRecord:
    """What lies in the folder."""

    @pytest.mark.parametrize("logger", ["false", "null", "CSVLogger"])
    def test_everything_lies_in_the_runs_folder(self, corpus: Path, logger: str) -> None:
        run("fit", *tiny_run(corpus), f"--trainer.logger={logger}", "--run.experiment=name")
        assert [path.name for path in Path.cwd().iterdir()] == ["runs"]
        folder = only_folder(Path("runs"))
        assert {path.name for path in folder.glob("checkpoints/*")} == {"epoch=0-step=1.ckpt"}
        assert (folder / "config.yaml").is_file()
        metrics = list(folder.glob("lightning_logs/version_0/metrics.csv"))
        assert len(metrics) == (0 if logger == "false" else 1)

    def test_configuration_repeats_the_run(self, corpus: Path) -> None:
        run("fit", *tiny_run(corpus), "--trainer.logger=CSVLogger", "--run.experiment=name")
        first = only_folder(Path("runs"))
        config = yaml.safe_load((first / "config.yaml").read_text())
        assert config["run"] == {"root": "runs", "experiment": "name", "test_after_fit": False, "artifacts": None}
        assert config["trainer"]["max_epochs"] == 1
        assert config["trainer"]["precision"] is None  # options left alone are recorded as well
        assert config["model"]["init_args"]["network"]["init_args"] == {"width": 4, "dropout": 0.1}
        assert "num_classes" not in config["model"]["init_args"]
        run("fit", "--config", str(first / "config.yaml"))
        second = next(folder for folder in Path("runs").glob("name/*") if folder.name != first.name)
        assert (second / "config.yaml").read_text() == (first / "config.yaml").read_text()
        weights = [torch.load(next(folder.glob("checkpoints/*")), weights_only=True) for folder in (first, second)]
        for name, weight in weights[0]["state_dict"].items():
            assert torch.equal(weight, weights[1]["state_dict"][name])

    def test_two_loggers(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "loggers.yaml").write_text(LOGGERS)
        run("fit", *tiny_run(corpus), "--config=loggers.yaml", "--run.experiment=name")
        folder = only_folder(Path("runs"))
        assert {path.parent.parent.name for path in folder.glob("*/version_0/metrics.csv")} == {"lightning_logs", "b"}
        run("test", "--config", str(folder / "config.yaml"))  # a list's entries keep their linked options when saved

    @pytest.mark.slow
    def test_two_processes_share_one_folder(self, corpus: Path) -> None:
        options = [*tiny_run(corpus), "--config=trainer/ddp", "--trainer.accelerator=cpu", "--run.test_after_fit=true"]
        options += ["--trainer.devices=2", "--trainer.callbacks+=WeightAveragingCallback"]  # which copies the module
        environment = os.environ | {"PYTHONPATH": tests_path()}
        environment.pop("OMP_NUM_THREADS", None)  # Lightning shares the threads
        command = [sys.executable, "-m", "audio_lrp", "fit", *options]
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)
        assert result.returncode == 0, result.stderr
        folder = only_folder(Path("runs"))
        assert (folder / "config.yaml").is_file()
        assert len(list(folder.glob("checkpoints/*.ckpt"))) == 1
        assert result.stdout.count("test accuracy:") == 1
        threads = max(1, usable_cores() // 2)
        assert result.stderr.count("by trainer.precision") == 1
        assert f", {threads} thread{'s' * (threads > 1)}\n" in result.stderr


class TestWandb:
    """W&B through the command line."""

    def test_two_runs_of_one_process(self, corpus: Path) -> None:
        for name in ("first", "second"):
            run("fit", *tiny_run(corpus), *WANDB, f"--run.root={name}", f"--model.label_smoothing={0.1 * len(name)}")
        records = [wandb_records(only_folder(Path(name))) for name in ("first", "second")]
        starts = [next(record["run"] for record in run if record["type"] == "run") for run in records]
        assert starts[0]["run_id"] != starts[1]["run_id"]
        assert all(start["resume"] and start["project"] == "tests" for start in starts)
        assert sorted(path.name for path in Path.cwd().iterdir() if path.is_dir()) == ["first", "second"]
        # Complete: the last record of a finished run is its exit.
        assert all(run[-1]["type"] == "exit" for run in records)
        assert "WANDB_MODE" not in os.environ
        assert "WANDB_DATA_DIR" not in os.environ
        assert wandb.run is None
        # The nested configuration is the run's.
        config = wandb_config(records[1])
        assert config["model"]["init_args"]["label_smoothing"] == pytest.approx(0.6)
        assert config["data"]["init_args"]["num_folds"] == 3
        saved = yaml.safe_load((only_folder(Path("second")) / "config.yaml").read_text())
        assert config["trainer"]["callbacks"] == saved["trainer"]["callbacks"]
        # Metrics are logged under the very names that sweeps give, over the trainer's steps.
        history = {name for record in records[0] for name in record.get("history", {}).get("item", {})}
        assert {"val/accuracy", "train/loss", "trainer/global_step"} <= history

    def test_failed_run_is_marked_as_failed(self, corpus: Path) -> None:
        with pytest.raises(RuntimeError, match="halfway"):
            exit_code("fit", *tiny_run(corpus), *WANDB, "--trainer.callbacks=test_tracking.Failure")
        assert wandb_records(only_folder(Path("runs")))[-1]["exit"]["exit_code"] == 1

    def test_pictures_in_tables_stay_in_the_runs_folder(self, tmp_path: Path) -> None:
        with wandb_session():
            make_wandb_logger(WandbLogger, save_dir=str(tmp_path / "run"))
            assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "run" / "wandb")
        assert "WANDB_DATA_DIR" not in os.environ

    def test_users_data_folder_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_DATA_DIR", "mine")
        with wandb_session():
            make_wandb_logger(WandbLogger, save_dir=str(tmp_path))
            assert os.environ["WANDB_DATA_DIR"] == "mine"
        assert os.environ["WANDB_DATA_DIR"] == "mine"

    @pytest.mark.parametrize(
        ("name", "value", "problem"),
        [
            ("WANDB_MODE", "bogus", "Input should be 'online', 'offline'"),
            ("WANDB_INIT_TIMEOUT", "soon", "Input should be a valid number"),
        ],
    )
    def test_wrong_variables_are_told_before_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(
            UserError, match=rf"^the environment variable {name} is '{value}': {problem}.* or unset it$"
        ):
            make_wandb_logger(WandbLogger, save_dir=str(tmp_path))

    @pytest.mark.parametrize(
        ("settings", "environment", "mode"),
        [
            ({}, {}, "offline"),
            ({"mode": "online"}, {}, "online"),
            ({"offline": True}, {"WANDB_MODE": "online"}, "offline"),
            ({}, {"WANDB_MODE": "online"}, None),  # wandb reads the variable itself
            ({}, {"WANDB_SWEEP_ID": "x"}, None),  # wandb's default: online
        ],
    )
    def test_offline_unless_asked_for_otherwise(
        self,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, Any],
        environment: dict[str, str],
        mode: str | None,
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        seen: dict[str, Any] = {}

        def __init__(self: WandbLogger, **given: Any) -> None:  # noqa: N807
            seen.update(given)
            self._wandb_init = {"anonymous": None}

        monkeypatch.setattr(WandbLogger, "__init__", __init__)
        monkeypatch.setattr("wandb.login", lambda **_: True)
        with wandb_session():
            logger = make_wandb_logger(WandbLogger, save_dir="runs/name/time", resume=None, dir=None, **settings)
        assert logger._wandb_init == {}  # W&B warns of the word
        assert seen.pop("mode", None) == mode
        assert seen == {"save_dir": "runs/name/time", "name": "name-time", "project": "audio-lrp"}

    @pytest.mark.parametrize(
        ("settings", "environment", "expected"),
        [
            ({}, {"WANDB_NAME": "n", "WANDB_PROJECT": "p"}, {}),  # wandb and Lightning read the variables themselves
            ({}, {"WANDB_RUN_ID": "i", "WANDB_ENTITY": "e"}, {"name": "name-time", "project": "audio-lrp"}),
            ({"name": "mine"}, {"WANDB_NAME": "n"}, {"name": "mine", "project": "audio-lrp"}),
            ({"project": "mine"}, {"WANDB_PROJECT": "p"}, {"name": "name-time", "project": "mine"}),
            ({}, {"WANDB_RESUME": "must"}, {"name": "name-time", "project": "audio-lrp", "resume": "must"}),
        ],
    )
    def test_settings_then_variables_then_our_choice(
        self,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, Any],
        environment: dict[str, str],
        expected: dict[str, str],
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        given: dict[str, Any] = {}
        monkeypatch.setattr(WandbLogger, "__init__", lambda self, **given_: given.update(given_))
        monkeypatch.setattr("audio_lrp.tracking.wandb_logger.SurvivingWandbLogger", WandbLogger)
        with wandb_session():
            make_wandb_logger(WandbLogger, save_dir="runs/name/time", **settings)
        assert given == expected | {"save_dir": "runs/name/time", "mode": "offline"}

    def test_variables_arrive_in_the_run_and_a_resumed_training_keeps_it(
        self, corpus: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("NAME", "PROJECT", "ENTITY", "RUN_GROUP", "NOTES"):
            monkeypatch.setenv(f"WANDB_{name}", name.lower())
        run("fit", "--config=quickstart", *tiny_run(corpus)[:-1], "--trainer.callbacks=[]")
        folder = only_folder(Path("runs"))
        first = next(record["run"] for record in wandb_records(folder) if "run" in record)
        assert (first["display_name"], first["project"], first["entity"]) == ("name", "project", "entity")
        assert (first["run_group"], first["notes"]) == ("run_group", "notes")
        for name in ("NAME", "PROJECT", "ENTITY", "RUN_GROUP", "NOTES"):
            monkeypatch.delenv(f"WANDB_{name}")
        (path,) = folder.glob("wandb/*run-*-*")
        run("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=2")
        shutil.rmtree(path)
        second = next(record["run"] for record in wandb_records(folder) if "run" in record)
        for name in ("run_id", "display_name", "project", "entity"):
            assert second[name] == first[name]


class Failure(L.Callback):
    """A run that fails in its midst."""

    def on_train_end(self, *_: Any) -> None:
        raise RuntimeError("halfway")
