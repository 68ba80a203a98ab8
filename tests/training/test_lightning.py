"""Lightning's own loggers, callbacks and schedulers do what they do in any other training."""

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import TinyNetwork, exit_code, only_checkpoint, only_folder, tiny_run
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import nn

SRG = ["--trainer.callbacks.monitor=lrp/srg", "--trainer.callbacks.mode=max"]
LRP = ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=2", "--trainer.callbacks.num_pictures=0"]
LRP += ["--trainer.callbacks.fractions=[0, 0.5, 1]"]
SMALL_BATCHES = ["--data.batch_size=2", "--trainer.limit_val_batches=1"]  # 10 steps an epoch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "tones"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDIO_LRP_RUN_FOLDER", raising=False)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence by which a training is refused."""
    capsys.readouterr()
    assert exit_code(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("audio-lrp: error: ")]
    return line.removeprefix("audio-lrp: error: ")


class Folderless(Logger):
    """A logger that keeps what it gets in memory, as those of services do."""

    seen: list[str] = []  # noqa: RUF012 (read after the run, which makes the instance)
    name = "folderless"
    version = 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen.extend(metrics)

    def log_hyperparams(self, params: dict[str, Any], *_: Any, **__: Any) -> None:
        self.seen.extend(params)


class TextFolder(CSVLogger):
    """A logger whose folder must be a text, as MLflow's."""

    def __init__(self, save_dir: str) -> None:
        assert type(save_dir) is str
        super().__init__(save_dir, name="text")


class TestLoggers:
    """Every logger, and several at once."""

    def test_a_folder_as_text_or_none_or_several(self, corpus: Path) -> None:
        loggers = ["TextFolder", "Folderless"]
        entries = [{"class_path": f"test_lightning.{name}"} for name in loggers] + [{"class_path": "CSVLogger"}]
        Path("loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": entries}}))
        Folderless.seen.clear()
        assert exit_code("fit", *tiny_run(corpus), "--config=loggers.yaml", *LRP) == 0
        folder = only_folder(Path("runs"))
        for name in ("text", "lightning_logs"):
            with (folder / name / "version_0" / "metrics.csv").open() as file:
                assert "lrp/srg" in csv.DictReader(file).fieldnames
        assert {"model", "train/loss", "val/accuracy", "lrp/srg"} <= {*Folderless.seen}
        assert sorted(path.name for path in Path.cwd().iterdir()) == ["loggers.yaml", "runs"]

    @pytest.mark.parametrize("name", ["Folderless", "TextFolder"])
    def test_alone(self, corpus: Path, name: str) -> None:
        assert exit_code("fit", *tiny_run(corpus), f"--trainer.logger=test_lightning.{name}") == 0
        assert only_checkpoint(only_folder(Path("runs"))).is_file()

    def test_mlflow(self, corpus: Path) -> None:
        pytest.importorskip("mlflow")
        import sqlite3

        assert exit_code("fit", *tiny_run(corpus), "--trainer.logger=MLFlowLogger") == 0
        database = sqlite3.connect(only_folder(Path("runs")) / "mlflow.db")
        assert {("train/loss",), ("val/accuracy",)} <= {*database.execute("select distinct key from metrics")}
        assert [path.name for path in Path.cwd().iterdir()] == ["runs"]

    @pytest.mark.parametrize(
        ("logger", "packages"),
        [
            ("MLFlowLogger", ["mlflow"]),
            ("TensorBoardLogger", ["tensorboard", "tensorboardX"]),
            ("CometLogger", ["comet_ml"]),
        ],
    )
    def test_missing_packages_are_told(
        self, capsys: pytest.CaptureFixture[str], corpus: Path, logger: str, packages: list[str]
    ) -> None:
        if any(map(importlib.util.find_spec, packages)):
            pytest.skip("it is there")
        message = refusal(capsys, "fit", *tiny_run(corpus), f"--trainer.logger={logger}")
        assert message.startswith(f"--trainer.logger ({logger}): ")
        assert "pip install" in message
        assert not Path("runs").exists()


class TestMonitoring:
    """Scores of explanations decide like any other metric."""

    @pytest.mark.parametrize(
        ("lrp_first", "interval", "steps"),
        [(True, "1.0", 20), (False, "2", 4)],  # it looks after an epoch, and after a validation
    )
    def test_early_stopping(self, corpus: Path, lrp_first: bool, interval: str, steps: int) -> None:
        stopping = ["--trainer.callbacks+=EarlyStopping", *SRG, "--trainer.callbacks.patience=1"]
        stopping += ["--trainer.callbacks.min_delta=9"]  # no gain is so high: the second look is the last
        callbacks = [*LRP, *stopping] if lrp_first else [*stopping, *LRP]
        options = [f"--trainer.val_check_interval={interval}", "--trainer.max_epochs=9", *SMALL_BATCHES]
        assert exit_code("fit", *tiny_run(corpus), *options, *callbacks) == 0
        checkpoint = torch.load(only_checkpoint(only_folder(Path("runs"))), weights_only=True)
        assert checkpoint["global_step"] == steps
        (state,) = [state for name, state in checkpoint["callbacks"].items() if name.startswith("EarlyStopping")]
        assert -1 <= float(state["best_score"]) <= 1

    def test_checkpoints_are_those_of_the_best_explanations(self, corpus: Path) -> None:
        keeping = ["--trainer.callbacks+=ModelCheckpoint", *SRG, "--trainer.callbacks.filename={step}-{lrp/srg:.6f}"]
        keeping += ["--trainer.callbacks.auto_insert_metric_name=false", "--trainer.callbacks.save_top_k=-1"]
        options = ["--trainer.val_check_interval=5", "--trainer.logger=CSVLogger", *SMALL_BATCHES]
        every = "--trainer.callbacks.every_n_epochs=7"
        assert exit_code("fit", *tiny_run(corpus), *options, *keeping, *LRP, every) == 0
        folder = only_folder(Path("runs"))
        with (folder / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
            logged = {f"{row['step']}-{float(row['lrp/srg']):.6f}" for row in csv.DictReader(file) if row["lrp/srg"]}
        assert len(logged) == 2
        assert {path.stem for path in folder.glob("checkpoints/*.ckpt")} == logged

    def test_schedulers(self, corpus: Path) -> None:
        plateau = ["--model.scheduler=ReduceLROnPlateau", "--model.scheduler.monitor=lrp/srg"]
        assert exit_code("fit", *tiny_run(corpus), *plateau, *LRP, "--trainer.max_epochs=2") == 0
        (state,) = torch.load(only_checkpoint(only_folder(Path("runs"))), weights_only=True)["lr_schedulers"]
        assert -1 <= state["best"] <= 1

    def test_a_score_that_cannot_be_computed_is_missing_and_not_an_old_one(
        self, capsys: pytest.CaptureFixture[str], corpus: Path
    ) -> None:
        breaking = ["--trainer.callbacks+=test_lightning.Breaking"]
        stopping = ["--trainer.callbacks+=EarlyStopping", *SRG]
        with pytest.warns(UserWarning, match="LRPCallback shows nothing at step 2 .*no explanation"):
            message = refusal(capsys, "fit", *tiny_run(corpus), "--trainer.max_epochs=3", *LRP, *breaking, *stopping)
        assert "lrp/srg" in message
        assert "not available" in message

    def test_nothing_computes_the_score(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        stopping = ["--trainer.callbacks+=EarlyStopping", *SRG]
        assert "metric `lrp/srg` which is not available" in refusal(capsys, "fit", *tiny_run(corpus), *stopping)


class Breaking(Callback):
    """Lets explanations fail after the first."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.datamodule.examples = self._fail  # type: ignore[attr-defined]

    def _fail(self, *_: Any) -> None:
        raise RuntimeError("no explanation")


class Either(TinyNetwork):
    """A network with an argument that is a function or its name."""

    def __init__(self, num_classes: int, activation: type[nn.Module] | str = "relu") -> None:
        super().__init__(num_classes)


class Recorder(Callback):
    """Keeps the learning rates of a training."""

    rates: list[float] = []  # noqa: RUF012 (read after the run, which makes the instance)
    batch_sizes: list[int] = []  # noqa: RUF012

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.batch_sizes.append(len(batch))


class TestCallbacks:
    """Lightning's other callbacks."""

    @pytest.mark.parametrize(
        "callbacks",
        [
            {
                "Timer": ["duration=00:01:00:00"],
                "GradientAccumulationScheduler": ["scheduling={0: 2}"],
                "ModelSummary": ["max_depth=2"],
                "OnExceptionCheckpoint": ["dirpath=exceptions"],
                "ModelPruning": ["pruning_fn=l1_unstructured", "amount=0.5"],
            },
            {"StochasticWeightAveraging": ["swa_lrs=0.01"]},
        ],
        ids=["many", "averaging"],
    )
    def test_a_run_and_its_configuration_again(self, corpus: Path, callbacks: dict[str, list[str]]) -> None:
        options = ["--trainer.max_epochs=2"]
        for name, settings in callbacks.items():
            options += [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{setting}" for setting in settings)]
        assert exit_code("fit", *tiny_run(corpus), *options, "--run.root=first") == 0
        config = only_folder(Path("first")) / "config.yaml"
        assert "Unable" not in config.read_text()
        assert exit_code("fit", f"--config={config}", "--run.root=second") == 0
        again = only_folder(Path("second")) / "config.yaml"
        assert yaml.safe_load(again.read_text())["trainer"] == yaml.safe_load(config.read_text())["trainer"]

    def test_names_of_functions_are_kept_as_they_are(self, corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--model.network=test_lightning.Either") == 0
        config = yaml.safe_load((only_folder(Path("runs")) / "config.yaml").read_text())
        assert config["model"]["init_args"]["network"]["init_args"] == {"activation": "relu"}

    def test_learning_rate_finder(self, corpus: Path) -> None:
        finder = ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=30"]
        finder += ["--trainer.callbacks.early_stop_threshold=null", "--trainer.callbacks+=test_lightning.Recorder"]
        schedule = ["--model.scheduler=StepLR", "--model.scheduler.step_size=5", "--model.scheduler.gamma=0.5"]
        options = ["--model.optimizer=SGD", "--model.optimizer.lr=0.123", "--trainer.max_epochs=4", *SMALL_BATCHES]
        Recorder.rates.clear()
        assert exit_code("fit", *tiny_run(corpus), *options, *schedule, *finder) == 0
        first = Recorder.rates[0]
        assert first != 0.123
        assert Recorder.rates == pytest.approx([first * 0.5 ** (step // 5) for step in range(40)])

    def test_batch_size_finder(self, corpus: Path) -> None:
        finder = ["--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.max_trials=2"]
        finder += ["--trainer.callbacks.init_val=4", "--trainer.callbacks.steps_per_trial=1"]
        Recorder.batch_sizes.clear()
        recorder = "--trainer.callbacks+=test_lightning.Recorder"
        assert exit_code("fit", *tiny_run(corpus), "--data.batch_size=2", *finder, recorder) == 0
        assert max(Recorder.batch_sizes) > 2

    def test_a_checkpoint_callback_of_another_kind_does_not_hide_the_best(
        self, capsys: pytest.CaptureFixture[str], corpus: Path
    ) -> None:
        callbacks = ["--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=exceptions"]
        assert exit_code("fit", *tiny_run(corpus), *callbacks, "--run.root=first") == 0
        assert "checkpoint:" not in capsys.readouterr().out
        callbacks += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/accuracy"]
        assert exit_code("fit", *tiny_run(corpus), *callbacks, "--run.root=second") == 0
        printed = capsys.readouterr().out
        assert str(only_checkpoint(only_folder(Path("second")))) in printed
        assert "(best checkpoint)" in printed


class TestWeightsAlone:
    """Checkpoints of ``save_weights_only``, from which a training can begin but not resume."""

    @pytest.fixture
    def folder(self, corpus: Path) -> Path:
        keeping = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_weights_only=true"]
        assert exit_code("fit", *tiny_run(corpus), *keeping, "--run.root=first") == 0
        return only_folder(Path("first"))

    def test_no_training_resumes(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        before = sorted(folder.rglob("*"))
        message = refusal(capsys, "fit", f"--config={folder}/config.yaml", "--ckpt_path=last")
        assert f"{only_checkpoint(folder)} holds weights alone (save_weights_only)".removeprefix("/") in message
        assert "--run.experiment NAME" in message
        assert sorted(folder.rglob("*")) == before

    def test_a_new_training_begins_with_them(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        options = [f"--ckpt_path={only_checkpoint(folder)}", "--run.root=second", "--model.optimizer.lr=1e-30"]
        capsys.readouterr()
        assert exit_code("fit", f"--config={folder}/config.yaml", *options) == 0
        assert "begins at step 0 with the weights of" in capsys.readouterr().err
        first, second = (
            torch.load(only_checkpoint(path), weights_only=True) for path in (folder, only_folder(Path("second")))
        )
        assert second["global_step"] == 1
        for name, weights in first["state_dict"].items():
            if name.startswith("network."):
                torch.testing.assert_close(second["state_dict"][name], weights)

    def test_a_whole_checkpoint_is_preferred(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        assert exit_code("fit", f"--config={folder}/config.yaml", "--run.root=whole", "--trainer.callbacks=[]") == 0
        checkpoint = only_checkpoint(only_folder(Path("whole")))
        checkpoint.rename(folder / "checkpoints" / "a.ckpt")  # before that of the same step
        capsys.readouterr()
        assert exit_code("fit", f"--config={folder}/config.yaml", "--ckpt_path=last", "--trainer.max_epochs=2") == 0
        assert "resumes at step 1" in capsys.readouterr().err

    def test_another_optimizer_does_not_fit(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus)) == 0
        folder = only_folder(Path("runs"))
        config = f"--config={folder}/config.yaml"
        message = refusal(capsys, "fit", config, "--ckpt_path=last", "--model.optimizer=SGD")
        assert "SGD has" in message
        assert "resume with the optimizer that the training began with" in message

    def test_finders_begin_anew(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus)) == 0
        config = f"--config={only_folder(Path('runs'))}/config.yaml"
        resume = ["fit", config, "--ckpt_path=last", "--trainer.max_epochs=2"]
        assert "BatchSizeFinder" in refusal(capsys, *resume, "--trainer.callbacks+=BatchSizeFinder")
        assert exit_code(*resume, "--trainer.callbacks+=LearningRateFinder") == 0
        assert "LearningRateFinder is left out" in capsys.readouterr().err


class Faulty(TinyNetwork):
    """A user's network that refuses a width of 0, and has a bug where it is 2."""

    def __init__(self, num_classes: int, width: int = 4, part: int | None = None) -> None:
        if width == 0:
            raise ValueError("width must be 1 or more")
        if width == 2:
            part += 1  # type: ignore[operator]
        super().__init__(num_classes, width)


class FaultyHook(Callback):
    """A user's callback with a bug, or that misuses Lightning."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def on_train_batch_end(self, *_: Any) -> None:
        if self.hook == "bug":
            raise ValueError("this batch is odd")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.hook == "misuse":
            pl_module.log("x", 1.0)


class TestComplaints:
    """What other packages say to the user is one sentence; bugs keep the traceback by which they are found."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/los"], "metric `val/los` which"),
            (["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/x"], "find the monitored key"),
            (["--model.scheduler=ReduceLROnPlateau", "--model.scheduler.monitor=val/x"], "metric val/x which is not"),
            (["--trainer.callbacks+=DeviceStatsMonitor"], "Cannot use `DeviceStatsMonitor` callback with"),
            (["--trainer.callbacks+=BackboneFinetuning"], "BackboneFinetuning: "),
            (["--trainer.strategy=nonsense"], "--trainer: You selected an invalid strategy name"),
            (["--trainer.accelerator=gpuu"], "--trainer: You selected an invalid accelerator name"),
            (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches of the trainer is 1 or more, not 0"),
            (["--trainer.check_val_every_n_epoch=0"], "check_val_every_n_epoch of the trainer is 1 or more, not 0"),
            (["--model.network=test_lightning.Faulty", "--model.network.width=0"], "(Faulty): width must be 1 or more"),
            (
                ["--trainer.callbacks+=EarlyStopping", SRG[0], "--trainer.callbacks.patience=x"],
                "--trainer.callbacks.patience: expected an integer, got x",
            ),
        ],
    )  # fmt: skip
    def test_mistakes(self, capsys: pytest.CaptureFixture[str], corpus: Path, options: list[str], message: str) -> None:
        assert message in refusal(capsys, "fit", *tiny_run(corpus), *options)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            (["--model.network=test_lightning.Faulty", "--model.network.width=2"], "unsupported operand"),
            (["--trainer.callbacks+=test_lightning.FaultyHook", "--trainer.callbacks.hook=bug"], "this batch is odd"),
            (["--trainer.callbacks+=test_lightning.FaultyHook", "--trainer.callbacks.hook=misuse"], "self.log"),
        ],
    )
    def test_bugs(self, corpus: Path, options: list[str], error: str) -> None:
        with pytest.raises(Exception, match=error) as caught:
            exit_code("fit", *tiny_run(corpus), *options)
        chain = [caught.value]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        places = [str(entry.path) for found in chain for entry in pytest.ExceptionInfo.from_exception(found).traceback]
        assert __file__ in places
