"""Every shipped configuration works, and does what its name says."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import exit_code, only_folder, tiny_run
from lightning.pytorch.loggers import WandbLogger

from audio_lrp.data.corpora.synthetic import SyntheticDigits
from audio_lrp.errors import UsageError
from audio_lrp.training.config_files import find_config, shipped_configs
from audio_lrp.training.lightning_cli import AudioLRPCLI

CONFIGS = shipped_configs()
EXPERIMENTS = [name for name in CONFIGS if "/" not in name]
VARIANTS = [name for name in CONFIGS if "/" in name]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own: configurations are found from anywhere."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def root(name: str) -> list[str]:
    return [] if name == "quickstart" else ["--data.root=corpus"]


def instantiated(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> AudioLRPCLI:
    """Everything of a run but the running."""
    monkeypatch.setattr(AudioLRPCLI, "_run_subcommand", lambda *_: None)
    return AudioLRPCLI([*arguments, "--trainer.accelerator=cpu", "--trainer.devices=1"])


class TestNames:
    """How ``--config`` finds files."""

    def test_what_is_shipped(self) -> None:
        networks = [
            f"{net}_{task}{recipe}"
            for net in ("audionet", "alexnet")
            for task in ("digit", "gender")
            for recipe in ("", "_paper")
        ]
        assert {"quickstart", *networks} <= set(EXPERIMENTS)
        assert {
            "trainer/cpu",
            "trainer/gpu",
            "trainer/ddp",
            "debug/fast_dev_run",
            "debug/overfit",
            "data/synthetic_voices",
        } <= set(VARIANTS)

    def test_path_wins_over_name(self, tmp_path: Path) -> None:
        assert find_config("quickstart") == find_config("quickstart.yaml") == CONFIGS["quickstart"]
        (tmp_path / "quickstart").mkdir()  # a folder is no configuration
        assert find_config("quickstart") == CONFIGS["quickstart"]
        (tmp_path / "quickstart.yaml").write_text("trainer: {}")
        assert find_config("quickstart.yaml") == Path("quickstart.yaml")

    @pytest.mark.parametrize(("name", "near"), [("audionet", "audionet_digit"), ("trainer/gpus", "trainer/gpu")])
    def test_unknown_name_tells_the_nearest(self, name: str, near: str) -> None:
        with pytest.raises(UsageError, match=f"'{name}'; there is .*{near}"):
            find_config(name)
        with pytest.raises(UsageError, match=r"there is alexnet_digit.*quickstart"):
            find_config("xyz")


class TestExperiments:
    """Configurations of whole runs."""

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_instantiates_what_its_name_says(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        cli = instantiated(monkeypatch, "fit", "--config", name, *root(name))
        network = type(cli.model.network).__name__.lower()
        assert name == "quickstart" or name.startswith(f"{network}_{cli.datamodule.task.name}")
        assert cli.model.num_classes == cli.datamodule.num_classes == (10 if cli.datamodule.task.name == "digit" else 2)
        names = {type(callback).__name__ for callback in cli.trainer.callbacks}
        assert {"ModelCheckpoint", "LearningRateMonitor", "LRPCallback", "RunRecord"} <= names
        (logger,) = cli.trainer.loggers
        assert isinstance(logger, WandbLogger)
        best, last = cli.trainer.checkpoint_callbacks
        assert best is cli.trainer.checkpoint_callback  # whose checkpoint is tested after fit
        assert (best.monitor, best.mode) == ("val/accuracy", "max")
        assert not best.auto_insert_metric_name  # the "/" of val/accuracy would make folders
        assert (last.monitor, last.filename) == (None, "last")
        assert cli.run.experiment == name
        optimizer = cli.model.make_optimizer(cli.model.parameters())
        cli.model.make_scheduler(optimizer)

    @pytest.mark.parametrize("logger", ["false", "CSVLogger"])
    def test_other_loggers_or_none(self, monkeypatch: pytest.MonkeyPatch, logger: str) -> None:
        cli = instantiated(monkeypatch, "fit", "--config=quickstart", f"--trainer.logger={logger}")
        names = {type(callback).__name__ for callback in cli.trainer.callbacks}
        assert ("LearningRateMonitor" in names) == (logger == "CSVLogger")  # it refuses to work without a logger
        assert "LRPCallback" in names

    @pytest.mark.parametrize("name", [name for name in EXPERIMENTS if not name.endswith("_paper")])
    def test_runs(self, corpus: Path, name: str) -> None:
        tones = ["--data=CorpusDataModule", *(option for option in tiny_run(corpus) if "--data." in option)]
        tiny = ["--data.speakers=6", "--data.repetitions=1", "--data.num_folds=3", f"--data.root={corpus / 'speech'}"]
        data = [*tiny, "--data.cache_dir=beside"] if name == "quickstart" else tones
        options = [*data, "--data.batch_size=2", "--trainer.accelerator=cpu", "--trainer.devices=1"]
        assert exit_code("fit", f"--config={name}", "--config=debug/fast_dev_run", *options) == 0
        assert [path.name for path in only_folder(Path("runs")).iterdir()] == ["config.yaml"]

    @pytest.mark.parametrize("network", ["audionet", "alexnet"])
    def test_paper_recipe(self, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
        cli = instantiated(monkeypatch, "fit", "--config", f"{network}_digit_paper", "--data.root=corpus")
        optimizer = cli.model.make_optimizer(cli.model.parameters())
        scheduler = cli.model.make_scheduler(optimizer)
        rates = []
        for step in range(5001):
            if step % 2500 == 0:
                rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        start, steps, clip = {"audionet": (1e-4, 50_000, None), "alexnet": (1e-3, 10_000, 5)}[network]
        halved = 0.5 if network == "alexnet" else 1.0
        assert rates == pytest.approx([start, start * halved, start * halved**2])
        assert isinstance(optimizer, torch.optim.SGD)
        assert optimizer.defaults["momentum"] == 0.9
        assert (cli.trainer.max_steps, cli.trainer.gradient_clip_val) == (steps, clip)
        assert (cli.datamodule.batch_size, cli.datamodule.placement) == (100, "fixed")

    def test_checkpoints_lie_flat(self, corpus: Path) -> None:
        options = [option for option in tiny_run(corpus) if not option.startswith("--data=")]
        run = ["fit", "--config=audionet_digit", "--data=CorpusDataModule", *options, "--data.augmentations=null"]
        run.append("--trainer.val_check_interval=1")  # a run of one step would not be validated at all
        assert exit_code(*run, "--trainer.callbacks=null", *checkpoints_of("audionet_digit")) == 0
        files = {path.name for path in only_folder(Path("runs")).glob("checkpoints/*")}
        assert files == {"step-000001.ckpt", "last.ckpt"}


class TestVariants:
    """Configurations that change another's trainer."""

    def test_fast_dev_run(self, corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--config=debug/fast_dev_run") == 0
        assert not list(Path("runs").rglob("*.ckpt"))

    def test_overfit_learns_its_batch(self, corpus: Path) -> None:
        options = ["--config=audionet_digit", *tiny_run(corpus), "--config=debug/overfit", "--trainer.logger=CSVLogger"]
        options += ["--data.batch_size=8", "--trainer.precision=32-true"]
        assert exit_code("fit", *options, "--model.network.dropout=0.0", "--model.optimizer.lr=0.01") == 0
        (path,) = only_folder(Path("runs")).glob("*/version_0/metrics.csv")
        with path.open() as file:
            losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
        assert len(losses) == 100
        assert losses[0] > 2
        assert losses[-1] < 0.02

    def test_overfit_takes_away_what_keeps_the_loss_up(self, capsys: pytest.CaptureFixture[str]) -> None:
        run = ["fit", "--config=audionet_digit", "--model.mixup=0.2", "--config=debug/overfit", "--data.root=corpus"]
        assert exit_code(*run, "--print_config") == 0
        config = yaml.safe_load(capsys.readouterr().out)
        model, data, trainer = config["model"]["init_args"], config["data"]["init_args"], config["trainer"]
        assert (model["label_smoothing"], model["mixup"]) == (0, 0)
        assert (data["placement"], data["augmentations"]) == ("fixed", None)
        assert (trainer["overfit_batches"], trainer["max_epochs"], trainer["callbacks"]) == (1, 100, None)
        assert isinstance(trainer["val_check_interval"], float)  # an integer would be steps, and exceed the epoch's one

    @pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("trainer/")])
    def test_trainer_variants(self, capsys: pytest.CaptureFixture[str], name: str) -> None:
        run = ["fit", "--config=audionet_digit", f"--config={name}", "--data.root=corpus", "--print_config"]
        assert exit_code(*run) == 0
        trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
        expected: dict[str, Any] = {
            "trainer/cpu": {"accelerator": "cpu", "devices": 1, "precision": "32-true"},
            "trainer/gpu": {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"},
            "trainer/ddp": {"strategy": "ddp", "devices": 2},
        }
        assert trainer.items() >= expected[name].items()

    def test_synthetic_voices_train_beside_the_corpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cli = instantiated(
            monkeypatch, "fit", "--config=audionet_digit", "--config=data/synthetic_voices", "--data.root=corpus"
        )
        (further,) = cli.datamodule.training_corpora
        assert (type(further), further.speakers, further.repetitions) == (SyntheticDigits, 200, 1)


def checkpoints_of(name: str) -> list[str]:
    """The options that give a run the checkpoints of a shipped configuration, and no other callback."""
    options = []
    for item in yaml.safe_load(CONFIGS[name].read_text())["trainer"]["callbacks"]:
        if item["class_path"] == "ModelCheckpoint":
            settings = (f"--trainer.callbacks.{key}={value}" for key, value in item["init_args"].items())
            options += ["--trainer.callbacks+=ModelCheckpoint", *settings]
    return options
