"""The command line: its options, its messages, and the traps of LightningCLI it is to keep users out of."""

import importlib
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import soundfile
import torch
import yaml
from command_line import exit_code, only_checkpoint, only_folder, report, tiny_run
from fake_corpus import ToneCorpus
from lightning.pytorch import Trainer

from audio_lrp import __version__
from audio_lrp.commands import completion
from audio_lrp.commands.table import COMMANDS, LIGHTNING
from audio_lrp.models import Classifier
from audio_lrp.training.noise import leave_out_noise

PARSE = ["fit", "--model=Classifier", "--model.network=AudioNet", "--data=AudioMNISTDataModule", "--data.root=corpus"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, in which runs would be written."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def parsed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The configuration that ``fit`` would run with."""
    assert exit_code(*PARSE, *arguments, "--print_config") == 0
    config: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return config


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one sentence with which the command line refuses the arguments."""
    assert exit_code(*arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audio-lrp: error")]
    assert len(lines) == 1
    assert len(lines[0]) < 400
    return lines[0].removeprefix("audio-lrp: error: ")


def test_an_option_that_looks_like_an_impossible_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(capsys, "--run.experiment=2024-02-30")["run"]["experiment"] == "2024-02-30"


def test_version_is_quick_and_sets_the_allocator_up() -> None:
    code = (
        "import os, sys; from audio_lrp.__main__ import main; main(); "
        "assert 'torch' not in sys.modules; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", code, "--version"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert output.splitlines() == [f"audio-lrp {__version__}", "1"]


def test_warnings_of_other_packages_end_no_command() -> None:
    code = (
        "import os, sys, warnings; from audio_lrp.__main__ import main; main(); warnings.warn('seen'); "
        "warnings.warn('old', DeprecationWarning); print('PYTHONWARNINGS' in os.environ, sys.warnoptions)"
    )
    command, environment = [sys.executable, "-c", code, "--version"], os.environ | {"PYTHONWARNINGS": "error"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[1] == "False []"
    assert "UserWarning: seen" in done.stderr
    assert "old" not in done.stderr


def test_letters_that_the_output_cannot_hold_are_written_out() -> None:
    code = "from audio_lrp.__main__ import main; main(); print('jos\\xe9')"
    command, environment = [sys.executable, "-c", code, "--version"], os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[1] == r"jos\xe9"


@pytest.mark.parametrize(("columns", "seen"), [("1", "80"), ("2", "2"), ("100", "100")])
def test_a_terminal_of_one_column_is_none(columns: str, seen: str) -> None:
    code = "import shutil; from audio_lrp.__main__ import main; main(); print(shutil.get_terminal_size().columns)"
    command, environment = [sys.executable, "-c", code, "--version"], os.environ | {"COLUMNS": columns}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[1] == seen


def test_importing_the_entry_does_not_import_torch_before_the_allocator_is_set_up() -> None:
    code = "import sys, audio_lrp.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_is_one_screen_and_needs_no_torch() -> None:
    code = "import sys; from audio_lrp.__main__ import main; main(); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = output.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    for name in COMMANDS:
        assert sum(line[9:].split()[:1] == [name] for line in lines[2:-2]) == 1


@pytest.mark.parametrize("command", ["fit", "test"])
def test_help_of_a_command_begins_with_what_is_wanted_first(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert exit_code(command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: audio-lrp {command} --c")
    titles = [line for line in lines[1:] if line and not line.startswith(" ") and line.endswith(":")]
    subjects = [title.split(":")[0] for title in titles]
    assert subjects == [
        "what to run", "checkpoint", "where everything is written", "recordings", "network and training",
        "Lightning's trainer",
    ]  # fmt: skip
    assert sum(line.startswith("  --") for line in lines[: lines.index("Lightning's trainer:")]) < 15


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.module != LIGHTNING])
def test_help_of_a_command_of_our_own_needs_no_torch(command: str) -> None:
    code = "import sys, audio_lrp.commands as cli, contextlib\nwith contextlib.suppress(SystemExit): cli.main()\n"
    code += "print({'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules))"
    words = [sys.executable, "-c", code, command, "--help"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith(f"usage: audio-lrp {command} ")
    assert lines[-1] == "set()"


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["completion", "bash"]])
def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "audio_lrp", *arguments]
    result = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert result.returncode == 141
    assert result.stderr == ""


def test_every_command_has_a_module_with_main() -> None:
    for name, command in COMMANDS.items():
        assert callable(importlib.import_module(command.module or completion.__name__).main), name


class TestMessages:
    """Every mistake is one sentence with its fix."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--trainer.max_epoch=3"], "unknown option --trainer.max_epoch: did you mean --trainer.max_epochs"),
            (["--trainr.max_epochs=3"], "unknown option --trainr.max_epochs: did you mean --trainer.max_epochs"),
            (["--data.tsk=digit"], "unknown option --data.tsk: did you mean --data.task?"),
            (["--model.network.dropot=0.1"], "--model.network.dropot: did you mean --model.network.dropout?"),
            (["--model.optimizer=SGD", "--model.optimizer.lrr=1"], "did you mean --model.optimizer.lr?"),
            (["--model.network=AudioNett"], "--model.network: no class is called 'AudioNett': did you mean AudioNet"),
            (["--model.network=ResNet"], "--model.network: no class is called 'ResNet': did you mean AlexNet?"),
            (["--model.network=Linear"], "--model.network: no class is called 'Linear': give the class's path"),
            (["--model.network=command_line.Choosy"], "missing --model.network.block and --model.network.layers"),
            (["--model.optimizer.lr=fast"], "--model.optimizer.lr: expected a number, got fast"),
            (["--data.cache_dir=None"], "--data.cache_dir is the word None (the command line): write null"),
            (["--trainer.default_root_dir=."], "trainer.default_root_dir cannot be set (the command line): everything"),
            (["--data=FSDDDataModul"], "no class is called 'FSDDDataModul': did you mean FSDDDataModule"),
            (["--data=my.Corpus"], "--data: the class my.Corpus cannot be imported (No module named 'my')"),
            (["--data=torch.nn.Linear"], "--data: the class is not a CorpusDataModule"),
            (["--data.task=digits"], "--data.task: expected 'digit' or 'gender', got digits"),
            (["--data.fold=x"], "--data.fold: expected an integer, got x"),
            (["--trainer.max_epochs=1.5"], "--trainer.max_epochs: expected an integer or null, got 1.5"),
            (["--trainer.max_epochs"], "--trainer.max_epochs: expected one argument"),
            (["--trainer.logger.project=x"], "--trainer.logger.project is set before any class is chosen"),
            (["--config=quikstart"], "no file and no shipped configuration is called 'quikstart'; there is quickstart"),
            (["extra"], "unexpected argument 'extra': options begin with --"),
            (["audionet_digit"], "unexpected argument 'audionet_digit': did you mean --config audionet_digit?"),
            (["runs/last.ckpt"], "unexpected argument 'runs/last.ckpt': did you mean --ckpt_path runs/last.ckpt?"),
            (["--trainer.precision=bf61"], "got bf61: did you mean bf16? (see audio-lrp fit --help)"),
            (["--trainer.callbacks+=_LRCallback"], "no class is called '_LRCallback': did you mean LRPCallback"),
        ],
    )  # fmt: skip
    def test_options(self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        assert message in refusal(capsys, *PARSE, *arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "no command: begin with audio-lrp fit"),
            (["fitt"], "unknown command 'fitt': did you mean fit?"),
            (["listen"], "unknown command 'listen': choose from fit, "),
            (["help"], "unknown command 'help': did you mean --help?"),
            (["version"], "unknown command 'version': did you mean --version?"),
            (["listen"], "(see audio-lrp --help)"),
            (["--verison"], "--verison: did you mean --version?"),
            (["explain", "a.wav"], "the following arguments are required: --checkpoint (see audio-lrp explain --help)"),
            (["explain", "a.wav", "--checkpoint=b", "--outptu=c"], "unknown option --outptu: did you mean --output?"),
            (["explain", "--chekpoint=b", "a.wav"], "unknown option --chekpoint: did you mean --checkpoint"),
            (["explain", "--checkpoint=b", "a.wav", "--band", "a", "b"], "--band: expected a number, got 'a'"),
            (["study", "--corpus=synthetic", "--budget=tiny", "--folds=x"], "--folds: expected an integer, got 'x'"),
            (
                ["study", "--corpus=synthetic", "--budget=tinny"],
                "no budget 'tinny': did you mean tiny?",
            ),
            (["study", "--corpus=syntetic", "--budget=tiny"], "did you mean synthetic?"),
            (["data", "chek", "x"], "ACTION: there is no 'chek': did you mean check? (see audio-lrp data --help)"),
            (["data", "check", "--outptu", "x"], "did you mean --output? (see audio-lrp data check --help)"),
            (["data", "check", "x", "y"], "unexpected argument y (see audio-lrp data"),
            (["data", "download", "x"], "corpus: there is no 'x': choose from audiomnist (see audio-lrp data download"),
            (["fit", "--config"], "--config needs a configuration: a YAML file, or a shipped one such as quickstart"),
            (["fit", "-config", "quickstart"], "unknown option -config: long options begin with two dashes, --config"),
            (["fit"], "missing --data and --model: start from a configuration, e.g. --config quickstart"),
            (["test"], "missing --data and --model: start from a checkpoint, --ckpt_path FILE, or a configuration"),
            (["--config", "quickstart", "fit"], "options come after the command"),
            (["fit", "--data.root=x"], "a configuration or class comes before the options that it brings"),
            (["fit", *PARSE[1:-1]], "missing --data.root: AudioMNISTDataModule needs it"),
        ],
    )
    def test_commands(self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        assert message in refusal(capsys, *arguments)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("trainer: {max_epoch: 3}", "unknown option --trainer.max_epoch: did you mean --trainer.max_epochs"),
            (
                "data:\n  class_path: FSDDDataModule\n  init_args: {rot: x}",
                "mine.yaml, line 3: unknown option --data.rot: did you mean --data.root? (see audio-lrp fit --help)",
            ),
            (
                "trainer:\n  callbacks:\n  - LRPCallback\n  - ModelCheckpont",
                "mine.yaml, line 4: --trainer.callbacks: no class is called 'ModelCheckpont'",
            ),
            (
                "trainer:\n  callbacks:\n  - class_path: LRPCallback\n    init_args:\n      num_exampels: 3",
                "mine.yaml, line 5: unknown option --trainer.callbacks.num_exampels",
            ),
            (
                "model:\n  class_path: Classifier\n  init_args:\n    network: AudioNet\n    scheduler:\n"
                "      class_path: WarmupCosine\n      hnit_args: {warmup: 0.1}",
                "line 7: unknown option --model.scheduler.hnit_args.warmup: did you mean init_args?",
            ),
            ("\ntrainer:\n  max_epochs: many", "mine.yaml, line 3: --trainer.max_epochs: expected an integer or null"),
            ("trainer: {max_epochs: [\n", "mine.yaml is not valid YAML: expected the node content"),
            ("trainer: {max_epochs: 2024-02-30}", "mine.yaml is not valid YAML: day is out of range for month"),
            ("trainer:\n\tmax_epochs: 3", "cannot start any token in line 2"),
            ("hello", "mine.yaml holds no options"),
        ],
    )
    def test_configuration_files(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path, text: str, message: str
    ) -> None:
        (in_empty_folder / "mine.yaml").write_text(text)
        assert message in refusal(capsys, *PARSE, "--config", "mine.yaml")

    def test_file_is_not_blamed_for_the_command_lines_value(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path
    ) -> None:
        (in_empty_folder / "mine.yaml").write_text("trainer: {max_epochs: 3}")
        message = refusal(capsys, *PARSE, "--config=mine.yaml", "--trainer.max_epochs=many")
        assert message == "--trainer.max_epochs: expected an integer or null, got many (see audio-lrp fit --help)"
        message = refusal(capsys, *PARSE, "--trainer.max_epochs=2", "--config=mine.yaml", "--trainer.max_steps=many")
        assert "mine.yaml" not in message

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--trainer.accelerator=tpuu"], "--trainer: "),
            (["--trainer.strategy=ddpp"], "--trainer: "),
            (
                ["--model.network.dropout=3"],
                "--model.network (AudioNet): dropout probability has to be",
            ),
            (
                ["--model.optimizer=SGD", "--model.optimizer.lr=-1"],
                "--model.optimizer (SGD): Invalid learning rate",
            ),
            (["--model.optimizer.lr=-1"], "--model.optimizer (AdamW): Invalid learning rate: -1"),
        ],
    )
    def test_wrong_values_are_told_before_a_logger_begins(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path, arguments: list[str], message: str
    ) -> None:
        logger = ["--trainer.accelerator=cpu", "--trainer.logger=CSVLogger"]
        assert message in refusal(capsys, *PARSE, *logger, *arguments, code=1)
        assert not (in_empty_folder / "runs").exists()

    def test_values_that_our_classes_refuse_are_told_with_their_place(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path
    ) -> None:
        callback = "trainer:\n  callbacks:\n  - class_path: LRPCallback\n    init_args:\n      composite: epsilon_plsu"
        (in_empty_folder / "mine.yaml").write_text(callback)
        options = [*PARSE, "--trainer.accelerator=cpu", "--trainer.logger=false"]
        message = refusal(capsys, *options, "--config=mine.yaml", code=1)
        assert message.startswith("mine.yaml, line 5: --trainer.callbacks.composite: unknown composite 'epsilon_plsu'")
        message = refusal(
            capsys, *options, "--trainer.callbacks+=LRPCallback", "--trainer.callbacks.composite=x", code=1
        )
        assert message.startswith("--trainer.callbacks.composite: unknown composite 'x'")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["test", "--ckpt_path=runs/one/lst.ckpt"],
            ["explain", "--checkpoint=runs/one/lst.ckpt", "a.wav"],
            ["report", "runs/won"],
            ["sync", "runs/won"],
            ["study", "--corpus=runs/won", "--budget=tiny"],
            ["data", "check", "runs/won"],
            ["explain", "--checkpoint=x.ckpt", "b.wav"],
            ["sweep", "runs/swep.yaml", "--trials=1"],
            ["fit", "--config=runs/swep.yaml"],
        ],
    )
    def test_missing_files_are_answered_with_the_nearest(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path, arguments: list[str]
    ) -> None:
        (in_empty_folder / "runs" / "one").mkdir(parents=True)
        for name in ("runs/one/last.ckpt", "a.wav", "runs/sweep.yaml"):
            (in_empty_folder / name).touch()
        exit_code(*arguments)
        message = capsys.readouterr().err
        assert re.search(r"did you mean (runs/one/last.ckpt|\S*runs/one|a.wav|runs/sweep.yaml)\?", message), message

    def test_mistakes_found_later_end_with_code_1_and_no_empty_folder(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path
    ) -> None:
        options = [*PARSE[1:], "--trainer.accelerator=cpu", "--trainer.logger=false"]
        assert "AudioNet takes the representation 'waveform'" in refusal(
            capsys, "fit", *options, "--data.representation=spectrogram", code=1
        )
        assert "there is no checkpoint missing.ckpt" in refusal(
            capsys, "test", *options, "--ckpt_path=missing.ckpt", code=1
        )
        (in_empty_folder / "text.ckpt").write_bytes(b"RIFF$\x00\x00\x00WAVEfmt ")  # the unpickler's stack is empty
        assert "text.ckpt is no checkpoint" in refusal(capsys, "test", *options, "--ckpt_path=text.ckpt", code=1)
        if not torch.cuda.is_available():
            for name in ("gpu", "cuda"):
                message = refusal(capsys, *PARSE, f"--trainer.accelerator={name}", code=1)
                assert "there is no such GPU that PyTorch can use here: run on the CPU with --config tr" in message
        assert "corpus" in refusal(capsys, "fit", *options, code=1)  # which does not exist
        assert not (in_empty_folder / "runs").exists()

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
                "DataLoader worker (pid 7) is killed by signal: Killed: if memory ran out, free some, or train without "
                "workers, --data.num_workers 0",
            ),
            (
                RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"),
                "DataLoader worker (pid 7) is killed by signal: Bus error: /dev/shm is too small for its batches; give "
                "it more, in a container --shm-size=1g, or train without workers, --data.num_workers 0",
            ),
            (OSError(24, "Too many open files"), "more files are open than the system allows; raise the limit, ulimit"),
            (RuntimeError("Too many open files. Communication with the workers is"), "more files are open than the"),
        ],
    )
    def test_what_the_system_refuses(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
    ) -> None:
        monkeypatch.setattr("audio_lrp.commands.entry.run_command", Mock(side_effect=error))
        assert exit_code("fit") == 1
        assert capsys.readouterr().err.startswith(f"audio-lrp: error: {said}")


class TestTraps:
    """What LightningCLI does in silence."""

    @pytest.mark.parametrize("given", ["1", "1.0", "0.5"])
    def test_one_batch_is_not_all_batches(self, capsys: pytest.CaptureFixture[str], given: str) -> None:
        limits = [f"limit_{what}_batches" for what in ("train", "val", "test", "predict")] + ["overfit_batches"]
        trainer = parsed(capsys, *(f"--trainer.{limit}={given}" for limit in limits))["trainer"]
        for limit in limits:
            assert trainer[limit] == float(given)
            assert type(trainer[limit]) is (int if given == "1" else float)

    def test_validation_interval_keeps_its_type(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert parsed(capsys, "--trainer.val_check_interval=100")["trainer"]["val_check_interval"] == 100
        assert isinstance(parsed(capsys, "--trainer.val_check_interval=1")["trainer"]["val_check_interval"], int)

    def test_no_abbreviations_at_any_depth(self, capsys: pytest.CaptureFixture[str]) -> None:
        for option in ("--trainer.max_epoc=3", "--data.bat=3", "--model.network.drop=0.1", "--seed=1"):
            assert "unknown option" in refusal(capsys, *PARSE, option)

    def test_shipped_class_wins_over_a_namesake(self, capsys: pytest.CaptureFixture[str]) -> None:
        import torchvision.models  # has an AlexNet, and is imported by torchmetrics anyway

        assert issubclass(torchvision.models.AlexNet, torch.nn.Module)
        network = parsed(capsys, "--model.network=AlexNet")["model"]["init_args"]["network"]
        assert network["class_path"] == "audio_lrp.models.AlexNet"

    @pytest.mark.parametrize("option", ["num_classes=3", "init_args.representation=spectrogram"])
    def test_linked_options_are_refused(self, capsys: pytest.CaptureFixture[str], option: str) -> None:
        message = refusal(capsys, *PARSE, f"--model.{option}")
        assert "cannot be set (the command line): it follows from the data" in message

    def test_linked_options_are_refused_in_files(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path
    ) -> None:
        (in_empty_folder / "mine.yaml").write_text("model: {init_args: {num_classes: 3}}")
        assert "model.num_classes cannot be set (mine.yaml)" in refusal(capsys, *PARSE, "--config=mine.yaml")
        (in_empty_folder / "logs.yaml").write_text(
            "trainer: {logger: [{class_path: CSVLogger, init_args: {save_dir: logs}}]}"
        )
        assert "trainer.logger.save_dir cannot be set (logs.yaml)" in refusal(capsys, *PARSE, "--config=logs.yaml")

    def test_links_arrive(self, corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--data.task=gender") == 0
        checkpoint = torch.load(only_checkpoint(only_folder(Path("runs"))), weights_only=True)
        assert checkpoint["state_dict"]["network.5.weight"].shape == (2, 496)

    def test_link_to_nothing_is_found_out(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        message = refusal(capsys, "fit", *tiny_run(corpus), "--model=test_cli.Stubborn", code=1)
        assert message.startswith("Stubborn has num_classes 3 but the data has 10: its constructor must")

    def test_switched_class_tells_what_stays_and_what_goes(self, capsys: pytest.CaptureFixture[str]) -> None:
        tiny = ["--model.network=command_line.TinyNetwork", "--model.network.dropout=0.3", "--model.network.width=2"]
        assert warnings_of(capsys, *tiny, "--model.network=command_line.OtherNetwork") == (
            "audio-lrp: warning: --model.network is switched from command_line.TinyNetwork to "
            "command_line.OtherNetwork (the command line), which keeps dropout and drops width of the former's settings"
        )

    def test_settings_made_anew_are_not_worth_a_warning(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert warnings_of(capsys, "--data=FSDDDataModule", "--data.root=other") == ""

    def test_settings_that_all_data_modules_share_are_not_worth_a_warning(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = ["--config=audionet_digit", "--data=FSDDDataModule", "--data.root=corpus", "--trainer.callbacks=null"]
        assert warnings_of(capsys, *other) == ""
        synthetic = ["--data=SyntheticDigitsDataModule", "--data.speakers=3", "--data.fold=1"]
        assert warnings_of(capsys, *synthetic, "--data=FSDDDataModule", "--data.root=corpus") == (
            "audio-lrp: warning: --data is switched from SyntheticDigitsDataModule to FSDDDataModule "
            "(the command line), which drops speakers of the former's settings"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "trainer: {callbacks: [{class_path: LRPCallback, init_args: {num_examples: 2}}]}",
            "trainer: {callbacks: [{class_path: LearningRateMonitor, init_args: {logging_interval: epoch}}]}",
            "data: {init_args: {augmentations: [{class_path: AdditiveNoise}]}}",
        ],
    )
    def test_lists_are_replaced_whole(
        self, capsys: pytest.CaptureFixture[str], in_empty_folder: Path, text: str
    ) -> None:
        (in_empty_folder / "mine.yaml").write_text(text)
        assert warnings_of(capsys, "--config=audionet_digit", "--config=mine.yaml", "--data.root=corpus") == ""

    def test_appended_classes_replace_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        callbacks = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
        assert warnings_of(capsys, *callbacks, "--trainer.callbacks+=LRPCallback") == ""

    def test_class_that_is_gone_in_the_end_is_not_worth_a_warning(self, capsys: pytest.CaptureFixture[str]) -> None:
        tones = ["--data=CorpusDataModule", "--data.corpus=fake_corpus.ToneCorpus", "--data.corpus.repetitions=1"]
        gone = [*tones, "--data.corpus=FSDD", "--data=FSDDDataModule", "--data.root=corpus"]
        assert "--data.corpus " not in warnings_of(capsys, *gone)

    def test_users_options_win_over_the_checkpoints(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--model.label_smoothing=0.3", "--run.root=first") == 0
        checkpoint = only_checkpoint(only_folder(Path("first")))
        assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["label_smoothing"] == 0.3
        options = [*tiny_run(corpus), f"--ckpt_path={checkpoint}"]
        assert exit_code("test", *options, "--model.label_smoothing=0.1", "--run.root=second") == 0
        config = yaml.safe_load((only_folder(Path("second")) / "config.yaml").read_text())
        assert config["model"]["init_args"]["label_smoothing"] == 0.1
        capsys.readouterr()
        message = refusal(capsys, "test", *options, "--model.network.width=8", code=1)
        assert "network.0.weight is of shape (4, 1, 16) there and of shape (8, 1, 16) here" in message

    def test_hostile_checkpoint_is_refused(
        self, capsys: pytest.CaptureFixture[str], corpus: Path, in_empty_folder: Path
    ) -> None:
        torch.save({"state_dict": Hostile()}, "hostile.ckpt")
        message = refusal(capsys, "test", *tiny_run(corpus), "--ckpt_path=hostile.ckpt", code=1)
        assert "hostile.ckpt cannot be loaded as a checkpoint of weights alone" in message
        assert not (in_empty_folder / "harm").exists()

    def test_free_unpickling_of_checkpoints_cannot_be_turned_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "unknown option --weights_only" in refusal(capsys, *PARSE, "--weights_only=false")


class TestCommands:
    """Whole runs."""

    def test_advertisements_and_other_packages_worries_are_left_out(self) -> None:
        lines: list[str] = []
        listener = logging.Handler()
        listener.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        logger.addHandler(listener)
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                leave_out_noise("fit")
                warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)
                warnings.warn("another one", FutureWarning, stacklevel=1)
            Trainer(logger=False, accelerator="cpu")  # with a ModelCheckpoint
        finally:
            logger.removeHandler(listener)
        assert [str(warning.message) for warning in heard] == ["another one"]
        assert any(line.startswith("GPU available") for line in lines)
        assert not [line for line in lines if "litlogger" in line or "litmodels" in line]

    def test_fit_tests_the_best_checkpoint_and_sums_up(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--run.test_after_fit=true", "--run.experiment=first") == 0
        folder = only_folder(Path("runs"))
        assert folder.parent.name == "first"
        checkpoint = only_checkpoint(folder)
        lines = report(capsys)
        assert lines["test accuracy"].endswith(" %")
        assert lines["validation accuracy"].endswith(" %")
        assert lines["checkpoint"] == str(checkpoint)
        # What it says to type next works, in a run of its own.
        command = lines["to test it again"].split()
        assert command[:2] == ["audio-lrp", "test"]
        assert exit_code(*command[1:]) == 0
        assert report(capsys)["test accuracy"] == lines["test accuracy"]
        assert len(list(Path("runs").glob("first/*"))) == 2

    def test_a_corpus_in_another_format_is_trained_on_and_what_is_left_out_is_counted(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "fsdd" / "recordings"
        folder.mkdir(parents=True)
        tones = ToneCorpus(tmp_path / "tones", repetitions=1)
        for item in tones.recordings:
            path = folder / f"{item.digit}_{item.speaker}_0.flac"
            soundfile.write(path, tones.tone(item), 8000)
        path.with_suffix(".mp3").touch()
        path.with_suffix(".m4a").touch()
        options = [option for option in tiny_run(tmp_path) if not option.startswith("--data")]
        data = [
            "--data=FSDDDataModule",
            f"--data.root={folder.parent}",
            "--data.num_folds=3",
            "--data.cache_dir=beside",
        ]
        assert exit_code("fit", *options, *data) == 0
        expected = (
            "1 file in a format that cannot be read (convert to WAV or FLAC), such as recordings/9_s5_0.m4a; "
            "1 file beside the same recording in another format, such as recordings/9_s5_0.mp3"
        )
        assert set(report(capsys)["left out"].split("; ")) == set(expected.split("; "))

    def test_a_training_without_validation_says_why_there_is_no_checkpoint(
        self, capsys: pytest.CaptureFixture[str], corpus: Path
    ) -> None:
        options = ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=9", "--trainer.max_steps=1"]
        assert exit_code("fit", *tiny_run(corpus), "--trainer.num_sanity_val_steps=0", *options) == 0
        assert report(capsys)["checkpoint"].startswith("none, the training ended before its first validation")
        assert not list(Path("runs").rglob("*.ckpt"))

    @pytest.mark.parametrize(
        ("steps", "batches", "left"),
        [
            (3, 1, 1),
            (2, 1, 0),
            (3, 2, 0),  # of two batches a step every one is validated
        ],
    )
    def test_steps_that_no_validation_follows_are_told(
        self, capsys: pytest.CaptureFixture[str], corpus: Path, steps: int, batches: int, left: int
    ) -> None:
        options = [
            "--trainer.check_val_every_n_epoch=null",
            "--trainer.val_check_interval=2",
            "--trainer.max_epochs=-1",
            f"--trainer.accumulate_grad_batches={batches}",
            "--data.batch_size=2",
        ]
        assert exit_code("fit", *tiny_run(corpus), *options, f"--trainer.max_steps={steps}") == 0
        warning = (
            "audio-lrp: warning: --trainer.max_steps is 3, no multiple of --trainer.val_check_interval, 2: the last "
            "step is neither validated nor kept"
        )
        told = [line for line in capsys.readouterr().err.splitlines() if "neither validated" in line]
        assert told == ([warning] if left else [])
        (path,) = Path("runs").rglob("*.ckpt")
        assert torch.load(path, weights_only=False)["global_step"] == steps - left

    def test_validating_after_more_batches_than_an_epoch_has_is_a_mistake(
        self, capsys: pytest.CaptureFixture[str], corpus: Path
    ) -> None:
        message = refusal(capsys, "fit", *tiny_run(corpus), "--trainer.val_check_interval=1000", code=1)
        assert "--trainer.val_check_interval: `val_check_interval` (1000) must be less than or equal to" in message
        assert "set `check_val_every_n_epoch=None`" in message

    def test_a_checkpoint_alone_is_enough(
        self, capsys: pytest.CaptureFixture[str], corpus: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--model.network.width=6", "--run.test_after_fit=true") == 0
        tested = report(capsys)["test accuracy"]
        checkpoint = str(only_checkpoint(only_folder(Path("runs"))))
        message = refusal(capsys, "test", "--ckpt_path", checkpoint, code=1)
        assert "which is neither of audio-lrp nor of an installed plugin" in message
        packages = {"command_line", "fake_corpus"}
        monkeypatch.setattr("audio_lrp.training.from_checkpoint.plugin_packages", lambda: packages)
        assert exit_code("test", "--ckpt_path", checkpoint, "--run.root=second") == 0
        assert report(capsys)["test accuracy"] == tested
        assert exit_code("validate", f"--ckpt_path={checkpoint}", "--data.batch_size=7", "--run.root=third") == 0
        config = yaml.safe_load((only_folder(Path("third")) / "config.yaml").read_text())
        assert config["data"]["init_args"]["batch_size"] == 7
        Path("small.yaml").write_text("data: {init_args: {batch_size: 5}}")
        files = ["--config=trainer/cpu", "--config=small.yaml"]  # without a model they change what the checkpoint says
        assert exit_code("validate", f"--ckpt_path={checkpoint}", *files, "--run.root=fourth") == 0
        config = yaml.safe_load((only_folder(Path("fourth")) / "config.yaml").read_text())
        assert config["data"]["init_args"]["batch_size"] == 5
        other = ["--data=FSDDDataModule", "--data.root=none"]
        message = refusal(capsys, "test", "--ckpt_path", checkpoint, *other, code=1)
        assert "none does not exist: FSDD is expected there" in message  # another corpus for the checkpoint's model
        message = refusal(capsys, "test", "--ckpt_path", checkpoint, "--data.task=accent")
        assert "expected 'digit' or 'gender'" in message

    def test_an_older_checkpoint_needs_a_configuration(self, capsys: pytest.CaptureFixture[str]) -> None:
        torch.save({"state_dict": {}}, "old.ckpt")
        message = refusal(capsys, "test", "--ckpt_path=old.ckpt", code=1)
        assert "old.ckpt does not hold its run's configuration: give it with --config" in message

    def test_validate(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("validate", *tiny_run(corpus)) == 0
        printed = capsys.readouterr()
        assert "validation accuracy: " in printed.out
        assert "warning: validate without --ckpt_path: the network has its initial, untrained weights" in printed.err

    def test_predict_writes_a_table(self, corpus: Path) -> None:
        assert exit_code("predict", *tiny_run(corpus)) == 0
        header, *rows = (only_folder(Path("runs")) / "predictions.csv").read_text().splitlines()
        assert header == "file,label,prediction,0,1,2,3,4,5,6,7,8,9"
        assert len(rows) == 20  # two of six speakers
        for row in rows:
            file, label, prediction, *probabilities = row.split(",")
            assert (corpus / file).is_file()
            assert file.startswith(f"{label}_")
            assert sum(map(float, probabilities)) == pytest.approx(1, abs=1e-5)
            assert probabilities[int(prediction)] == max(probabilities, key=float)

    def test_training_is_taken_up_again(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        assert exit_code("fit", *tiny_run(corpus), "--run.root=first") == 0
        checkpoint = only_checkpoint(only_folder(Path("first")))
        options = [*tiny_run(corpus), "--trainer.max_epochs=2", "--run.root=second", f"--ckpt_path={checkpoint}"]
        capsys.readouterr()
        assert exit_code("fit", *options) == 0
        resumed = torch.load(only_checkpoint(only_folder(Path("second"))), weights_only=True)
        assert resumed["epoch"] == 1

    def test_nothing_to_go_on_with(self, capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
        message = refusal(capsys, "fit", *tiny_run(corpus), "--ckpt_path=last", code=1)
        assert "--ckpt_path last resumes a run: give the run's --config FOLDER/config.yaml as well" in message
        assert exit_code("fit", *tiny_run(corpus)) == 0
        folder = only_folder(Path("runs"))
        only_checkpoint(folder).unlink()
        message = refusal(capsys, "fit", f"--config={folder}/config.yaml", "--ckpt_path=last", code=1)
        assert f"there is no checkpoint in {folder.absolute()}/checkpoints" in message


def warnings_of(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Warnings on the way to a run that fails for want of its corpus."""
    assert exit_code(*PARSE, *options, "--trainer.accelerator=cpu", "--trainer.logger=false") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audio-lrp: warning")]
    return "\n".join(lines)


class Hostile:
    """Does harm when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


class Stubborn(Classifier):
    """Has no argument for the number of classes, so that the link to it leads nowhere."""

    def __init__(self, network: Callable[[int], torch.nn.Module], representation: str) -> None:
        super().__init__(network, 3, representation)
