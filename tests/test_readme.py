"""All README files: their commands and their code run, in small where they must, and their links lead somewhere."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from command_line import exit_code, only_folder
from torch import nn

from audio_lrp.attribution import RuleMap, attribute
from audio_lrp.commands import completion
from audio_lrp.commands.table import COMMANDS, LIGHTNING, Command

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
GUIDES = sorted([*REPOSITORY.glob("[!.]*/README.md"), *REPOSITORY.glob("audio_lrp/**/README.md")])
READMES = [README, *GUIDES]
CONTRIBUTE = REPOSITORY / "tests" / "README.md"


def blocks(path: Path, language: str) -> list[str]:
    """What stands in a file's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def prose(path: Path) -> str:
    """A file without its blocks of code."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def section(path: Path, heading: str) -> list[str]:
    """The blocks of Python below a heading."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


BASH = [line.partition(" #")[0] for path in READMES for block in blocks(path, "bash") for line in block.splitlines()]
LINES = list(dict.fromkeys(line for line in BASH if not line.startswith("#")))

FIGURES = "runs/quickstart/TIME/wandb/offline-run-*/files/media/images/lrp"

NOT_OF_THE_PROGRAM = {
    "python3 -m venv .venv && . .venv/bin/activate": "CI and every installation begin with it",
    "pip install -e '.[demo]' && audio-lrp fit --config quickstart": "minutes; test_configs.py runs the configuration",
    "pip install -e '.[test]' && pytest -n auto --dist loadfile": "this is it; .ci/run takes the line from here",
    "pip install ./tests/plugin": "test_plugins.py installs the plugin into a folder of its own",
    "mkdir -p ~/.local/share/bash-completion/completions": "the next line writes a script to it, which tests pass by",
    "export AUDIOMNIST_ROOT=path/to/AudioMNIST": "sweeps/test_shipped_sweeps.py sets the variable",
    "export MASTER_ADDR=name-of-the-first MASTER_PORT=29500 NODE_RANK=0": "test_distributed.py sets the variables",
    "wandb sweep --project audio-lrp sweeps/audionet.yaml": "needs a server; test_wandb_server.py has one",
    "CUDA_VISIBLE_DEVICES=0 wandb agent ID": "needs a server; test_wandb_server.py has one",
    "pip install -e '.[dev]' && .ci/run": "runs these tests",
    "pytest -m slow": ".ci/run does it",
    "python tests/benchmarks/attribution.py --networks AudioNet --batch 16": "test_benchmarks.py runs a smaller one",
    f"xdg-open {FIGURES}": "opens a window; test_runs finds the figures",
}
"""Commands that begin with other programs, and why they are not run from here."""

PARSED_ONLY = {
    "data download": "1 GB from the network; test_audiomnist_download.py has a server of its own",
    "study": "minutes to hours; study/test_study_run.py runs a smaller budget",
    "fit --config audionet_digit --config trainer/ddp --trainer.num_nodes 2": "needs two; test_distributed.py has them",
    "sync": "needs a server; test_sync.py and test_wandb_server.py have one",
    "dashboard": "needs an account; test_dashboard.py builds what would be saved",
    "sweep": "hours; test_sweep_run.py runs one, test_shipped_sweeps.py tries the points of the shipped ones",
    "fit --config tests/plugin/buzzes.yaml": "needs the plugin; test_plugins.py runs it",
    "report runs/buzzes/TIME": "needs the plugin; test_plugins.py runs it",
    "report study-NAME": "needs a study; test_report.py has one",
}
"""Commands of the program that take too much, and what runs them instead; by how they begin."""


def words_of(line: str) -> list[str]:
    """The program's arguments, without variables before it and the redirection after it."""
    words = shlex.split(line.partition(" > ")[0])
    return words[words.index("audio-lrp") + 1 :]


OWN = [line for line in LINES if line not in NOT_OF_THE_PROGRAM]


def test_every_command_is_known() -> None:
    assert set(NOT_OF_THE_PROGRAM) <= set(LINES)  # none that no README has any more
    for line in OWN:
        assert words_of(line)[0].removeprefix("--help") in {*COMMANDS, ""}, line
    for begin in PARSED_ONLY:
        assert any(" ".join(words_of(line)).startswith(begin) for line in OWN), begin


@pytest.mark.parametrize("line", OWN)
def test_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = words_of(line)
    monkeypatch.chdir(tmp_path)
    if name not in COMMANDS or "--help" in rest:
        assert exit_code(name, *rest) == 0
    elif COMMANDS[name].module != LIGHTNING:
        importlib.import_module(COMMANDS[name].module or completion.__name__).parser().parse_args(rest)
    elif not {"TIME", "plugin"} & set(re.split(r"[/ ]", line)):  # those are parsed where they are run
        assert exit_code(name, *rest, "--print_config") == 0


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the commands name: corpora, recordings, the runs of trainings, a package."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "AUDIOMNIST_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    genders = {}
    for root in ("path/to/AudioMNIST", "path/to/recordings", "another/folder"):
        for speaker in range(1, 11 if root == "path/to/AudioMNIST" else 6):
            folder = Path(root, "data", f"{speaker:02d}")
            folder.mkdir(parents=True)
            genders[folder.name] = {"gender": ["male", "female"][speaker % 2]}
            for digit in range(10):
                write(folder / f"{digit}_{folder.name}_0.wav", 300 + 200 * digit, random)
        Path(root, "data", "audioMNIST_meta.txt").write_text(json.dumps(genders))
    for speaker in ("a", "b", "c", "d", "e", "f"):
        for digit in range(10):
            path = Path("path/to/free-spoken-digit-dataset/recordings", f"{digit}_{speaker}_0.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, 300 + 200 * digit, random)
    write(Path("one.wav"), 500, random)
    write(Path("two.flac"), 700, random)
    few = [f"--trainer.callbacks.num_{what}=1" for what in ("examples", "pictures")]  # of the last of the callbacks
    for name in ("audionet_digit", "alexnet_gender"):
        config = [f"--config={name}", "--data.root=path/to/AudioMNIST", "--run.root=new"]
        assert exit_code("fit", *config, "--trainer.max_steps=1", *TINY, *few) == 0
        Path("runs", name).mkdir(parents=True)
        only_folder(Path("new")).rename(Path("runs", name, "TIME"))
    Path("runs/quickstart").symlink_to("audionet_digit")
    Path("CKPT").symlink_to("runs/audionet_digit/TIME/checkpoints/last.ckpt")
    Path("last.ckpt").symlink_to("CKPT")
    return tmp_path


def write(path: Path, pitch: float, random: np.random.Generator) -> None:
    samples = np.sin(2 * np.pi * pitch * np.arange(5000) / 8000) + 0.01 * random.standard_normal(5000)
    soundfile.write(path, 0.3 * samples, 8000)


TINY = [
    "--data.batch_size=2", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
    *(f"--trainer.limit_{what}_batches=1" for what in ("train", "val", "test", "predict")),
    "--trainer.val_check_interval=1",
]  # fmt: skip


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that the guides' examples name."""
    (tmp_path / "my_package.py").write_text(
        "import command_line, fake_corpus\n"
        "class MyNetwork(command_line.TinyNetwork): ...\n"
        "class MyCorpus(fake_corpus.ToneCorpus): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("my_package")
def test_runs(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for line in OWN:
        words = words_of(line)
        if " ".join(words).startswith(tuple(PARSED_ONLY)):
            continue
        run_in_small = []
        if words[0] in COMMANDS and COMMANDS[words[0]].module == LIGHTNING and "--help" not in words:
            explains = any(word.startswith("--trainer.callbacks") for word in words)
            callbacks = "--trainer.callbacks.num_pictures=1" if explains else "--trainer.callbacks=null"
            run_in_small = [*TINY, *(["--trainer.max_steps=2"] if words[0] == "fit" else []), callbacks]
        elif words[0] == "faithfulness":
            run_in_small = ["--clips", "4"]
        monkeypatch.setenv("WANDB_MODE", "offline")  # whatever the command says: there is no account
        if "trainer/ddp" in words:  # a process group and its variables would stay in this process, and its port taken
            command = [sys.executable, "-m", "audio_lrp", *words, *run_in_small[:-1], "--trainer.devices=2"]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            continue
        assert exit_code(*words, *run_in_small) == 0, f"{line}\n{capsys.readouterr().err}"
    for path in ("explanations/index.html", "mine/index.html", "seven/index.html", "corpus-check/exclude.yaml"):
        assert Path(path).is_file()
    assert Path("runs/audionet_digit/TIME/report.html").is_file()
    assert [*Path().glob(f"{FIGURES}/maps_*.png")]
    names: dict[Path, dict[str, Any]] = {path: {} for path in READMES}
    for path in READMES:  # examples of contributions have tests of their own, below
        for block in section(CONTRIBUTE, "A package of your own") if path == CONTRIBUTE else blocks(path, "python"):
            exec(block, names[path])
    found = names[REPOSITORY / "audio_lrp/attribution/README.md"]
    assert found["explanation"].relevance.shape == (20, 1, 8000)
    assert found["curves"].fractions[0] == 0
    assert sum(map(len, found["speakers"])) == 20
    assert names[REPOSITORY / "audio_lrp/data/README.md"]["batch"].input.shape == (20, 1, 8000)


@pytest.mark.usefixtures("my_package")
def test_configurations_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [block for path in READMES for block in blocks(path, "yaml")]
    assert found
    for block in found:
        Path("config.yaml").write_text(block)
        assert exit_code("fit", "--config=config.yaml", "--print_config") == 0, capsys.readouterr().err
        settings = yaml.safe_load(capsys.readouterr().out)
        assert settings["model"]["init_args"]["network"]["class_path"] == "my_package.MyNetwork"


def test_adding_a_rule() -> None:
    names: dict[str, Any] = {}
    exec(section(CONTRIBUTE, "Add a rule")[0], names)
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    composite = RuleMap({"Linear": names["Absolute"]()})
    relevance = attribute(
        nn.Sequential(layer), torch.tensor([[2.0, 1.0, -1.0]]), target="predicted", composite=composite
    ).relevance
    torch.testing.assert_close(relevance, torch.tensor([[2.0, 2.0, 3.0]]) / 7 * -3)  # the output is -3


def test_adding_a_corpus(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(section(CONTRIBUTE, "Add a corpus")[0], names)
    for name in ("7-eve-0.wav", "3-adam-12.wav", "notes.txt"):
        (tmp_path / name).touch()
    found = [(item.digit, item.speaker, item.repetition) for item in names["DigitFirst"](tmp_path).recordings]
    assert found == [(3, "adam", 12), (7, "eve", 0)]


def test_adding_a_metric() -> None:
    names: dict[str, Any] = {}
    exec(section(CONTRIBUTE, "Add a metric")[0], names)
    metric = names["HalfMass"]()
    metric.update(torch.tensor([[0.0, -9.0, 1.0, 1.0]]))  # a single value
    metric.update(torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0]]))  # two, and one
    assert metric.compute().item() == pytest.approx((1 + 2 + 1) / 12)


def test_adding_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = section(CONTRIBUTE, "Add a command")
    (command,) = eval(f"{{{line}}}", {"Command": Command}).values()
    module = ModuleType(command.module)
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, command.module, module)
    monkeypatch.setitem(COMMANDS, "speakers", command)
    for name in ("0_01_0", "1_01_0", "0_02_0"):
        path = tmp_path / "data" / name[2:4] / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, 500, np.random.default_rng(0))
    (tmp_path / "data" / "audioMNIST_meta.txt").write_text("{}")
    assert exit_code("speakers", str(tmp_path)) == 0
    assert capsys.readouterr().out == "01: 2 recordings\n02: 1 recordings\n"
    assert exit_code("--help") == 0
    assert command.help in capsys.readouterr().out


def anchors(path: Path) -> list[str]:
    """What links to a file's headings, its title first, are called on GitHub."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(REPOSITORY)))
class TestLinks:
    def test_files_and_anchors_exist(self, path: Path) -> None:
        for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
            if not target.startswith("https://"):
                file, _, anchor = target.partition("#")
                linked = (path.parent / file).resolve() if file else path
                assert linked.is_file(), target
                assert not anchor or anchor in anchors(linked), target

    def test_files_that_are_named_exist(self, path: Path) -> None:
        for name in re.findall(r"`((?:audio_lrp|callbacks|configs|sweeps|tests|\.ci)/[\w./]*)`", prose(path)):
            assert (REPOSITORY / name).exists(), name

    def test_contents_are_complete(self, path: Path) -> None:
        linked = re.findall(r"\]\(#([^)]+)\)", prose(path))
        assert linked[: len(anchors(path)) - 1] == anchors(path)[1:]


def test_the_readme_is_short_and_leads_to_every_guide() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 250
    for path in GUIDES:
        assert f"]({path.relative_to(REPOSITORY).as_posix()})" in text
