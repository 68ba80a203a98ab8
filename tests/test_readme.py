"""Every command of the README: parsed always, run in small where a machine without account and GPU can."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import exit_code, only_folder

from audio_lrp.commands.table import COMMANDS, LIGHTNING

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[2:]  # the first two are about plugins
LINES = list(dict.fromkeys(line.partition(" #")[0] for block in BLOCKS for line in block.splitlines()))

NOT_OF_THE_PROGRAM = {
    "python3 -m venv .venv && . .venv/bin/activate": "CI and every installation begin with it",
    "pip install -e '.[demo]' && audio-lrp fit --config quickstart": "minutes; test_configs.py runs the configuration",
    "pip install -e '.[test]' && pytest -n auto --dist loadfile": "this is it; .ci/run takes the line from here",
    "pip install ./tests/plugin": "test_plugins.py installs the plugin into a folder of its own",
    "mkdir -p ~/.local/share/bash-completion/completions": "the next line writes a script to it, which tests pass by",
    "export AUDIOMNIST_ROOT=path/to/AudioMNIST": "test_sweeps.py sets the variable",
    "export MASTER_ADDR=name-of-the-first MASTER_PORT=29500 NODE_RANK=0": "test_distributed.py sets the variables",
    "wandb sweep --project audio-lrp sweeps/audionet.yaml": "needs a server; test_wandb_server.py has one",
    "CUDA_VISIBLE_DEVICES=0 wandb agent ID": "needs a server; test_wandb_server.py has one",
    "pip install -e '.[dev]' && .ci/run": "runs these tests",
}
"""Commands that begin with other programs, and why they are not run from here."""

PARSED_ONLY = {
    "data download": "1 GB from the network; test_audiomnist_download.py has a server of its own",
    "study": "minutes to hours; test_study.py runs a smaller budget",
    "fit --config audionet_digit --config trainer/ddp --trainer.num_nodes 2": "needs two; test_distributed.py has them",
    "sync": "needs a server; test_sync.py and test_wandb_server.py have one",
    "dashboard": "needs an account; test_dashboard.py builds what would be saved",
    "sweep": "hours; test_search_runs.py runs sweeps, test_sweeps.py every point of the shipped ones",
    "fit --config tests/plugin/buzzes.yaml": "needs the plugin; test_plugins.py runs it",
    "report runs/buzzes/TIME": "needs the plugin; test_plugins.py runs it",
}
"""Commands of the program that take too much, and what runs them instead; by how they begin."""


def words_of(line: str) -> list[str]:
    """The program's arguments, without variables before it and the redirection after it."""
    words = shlex.split(line.partition(" > ")[0])
    return words[words.index("audio-lrp") + 1 :]


OWN = [line for line in LINES if line not in NOT_OF_THE_PROGRAM]
FIRST = "audio-lrp fit --config audionet_digit --data.root path/to/AudioMNIST"


def test_every_command_is_known() -> None:
    assert set(NOT_OF_THE_PROGRAM) <= set(LINES)  # none that the README has no more
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
        importlib.import_module(COMMANDS[name].module).parser().parse_args(rest)
    elif not {"TIME", "plugin"} & set(re.split(r"[/ ]", line)):  # those are parsed where they are run
        assert exit_code(name, *rest, "--print_config") == 0


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the README's commands name: corpora, recordings and the run of a training."""
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
    assert exit_code(*words_of(FIRST), "--trainer.max_steps=1", *TINY, *few) == 0
    only_folder(Path("runs")).rename("runs/audionet_digit/TIME")
    Path("CKPT").symlink_to("runs/audionet_digit/TIME/checkpoints/last.ckpt")
    return tmp_path


def write(path: Path, pitch: float, random: np.random.Generator) -> None:
    samples = np.sin(2 * np.pi * pitch * np.arange(5000) / 8000) + 0.01 * random.standard_normal(5000)
    soundfile.write(path, 0.3 * samples, 8000)


TINY = [
    "--data.batch_size=2", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
    *(f"--trainer.limit_{what}_batches=1" for what in ("train", "val", "test", "predict")),
    "--trainer.val_check_interval=1",
]  # fmt: skip


@pytest.mark.slow
def test_runs(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for line in OWN:
        words = words_of(line)
        if " ".join(words).startswith(tuple(PARSED_ONLY)):
            continue
        run_in_small = []
        if words[0] in COMMANDS and COMMANDS[words[0]].module == LIGHTNING and "--help" not in words:
            steps = ["--trainer.max_steps=2"] if words[0] == "fit" else []
            run_in_small = [*TINY, *steps]
        monkeypatch.setenv("WANDB_MODE", "offline")  # whatever the command says: there is no account
        if "trainer/ddp" in words:  # a process group and its variables would stay in this process, and its port taken
            command = [sys.executable, "-m", "audio_lrp", *words, *run_in_small, "--trainer.devices=2"]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            continue
        code = exit_code(*words, *run_in_small, *(["--trainer.callbacks=null"] if run_in_small else []))
        assert code == 0, f"{line}\n{capsys.readouterr().err}"
    assert Path("explanations/index.html").is_file()
    assert Path("seven/index.html").is_file()
    assert Path("corpus-check/exclude.yaml").is_file()
    assert Path("runs/audionet_digit/TIME/report.html").is_file()
    Path("last.ckpt").symlink_to("CKPT")
    names: dict[str, Any] = {}
    for block in PYTHON:
        exec(block, names)
    assert names["explanation"].relevance.shape == (20, 1, 8000)
    assert names["curves"].fractions[0] == 0
    assert sum(map(len, names["speakers"])) == 20
