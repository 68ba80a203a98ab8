"""audio-lrp doctor tells what there is and what is broken; audio-lrp completion teaches shells."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from command_line import exit_code
from http_server import Served, serving

from audio_lrp.commands import doctor
from audio_lrp.commands.doctor import (
    Finding,
    caches,
    corpora,
    devices,
    imports,
    requirements,
    shared_memory,
    threads,
    wandb_state,
)
from audio_lrp.commands.table import COMMANDS


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own: an empty working directory, cache folder and home, no account."""
    for name in ("AUDIOMNIST_ROOT", "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def make_corpus(root: Path) -> Path:
    (root / "data" / "01").mkdir(parents=True)
    soundfile.write(root / "data" / "01" / "3_01_0.wav", np.zeros(10), 8000)
    return root


class TestDoctor:
    def test_nothing_is_broken_here(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert exit_code("doctor", f"--data={make_corpus(tmp_path / 'c')}") == 0
        lines = capsys.readouterr().out.splitlines()
        assert {line.split()[0] for line in lines} <= {"ok", "note"}
        subjects = {line[8:19].strip() for line in lines}
        assert {
            "Python",
            "audio-lrp",
            "package",
            "import",
            "W&B",
            "CPU",
            "GPU",
            "memory",
            "cache",
            "corpus",
        } <= subjects
        assert any("torch " in line and "<2.13" in line for line in lines)
        assert f"ok      corpus     {tmp_path / 'c'}: 1 recordings of 1 speakers" in lines

    def test_broken_things_give_exit_code_1(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert exit_code("doctor", f"--data={tmp_path / 'nowhere'}") == 1
        output = capsys.readouterr()
        assert f"broken  corpus     {tmp_path / 'nowhere'} does not exist" in output.out
        assert output.err.endswith("audio-lrp: error: 1 thing is broken: fix the lines that say so\n")

    def test_versions_outside_the_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            doctor, "requires", lambda _: ["numpy>=999", "nothing-like-this>=1", "pytest; extra == 'test'"]
        )
        wrong, missing = requirements()
        assert wrong.state == missing.state == "broken"
        assert wrong.detail.endswith("(>=999): pip install 'numpy>=999'")
        assert missing.detail == "nothing-like-this is missing: pip install 'nothing-like-this>=1'"

    def test_a_torch_that_cannot_be_imported(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(name: str) -> object:
            if name == "torchaudio":
                raise OSError("libcudart.so.13:\n cannot open shared object file")
            return import_module(name)

        import_module = importlib.import_module
        monkeypatch.setattr(importlib, "import_module", broken)
        states = {finding.detail.split()[0]: finding for finding in imports()}
        assert states["torch"].state == states["lightning"].state == "ok"
        assert states["torchaudio"].state == "broken"
        assert "(libcudart.so.13: cannot open shared object file)" in states["torchaudio"].detail
        monkeypatch.undo()
        monkeypatch.setattr(doctor, "imports", lambda: [states["torchaudio"]])
        with pytest.raises(doctor.UserError):
            doctor.main([])  # and nothing that needs it is tried
        assert "espeak-ng" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("variable", "error", "fix"),
        [
            ("LD_LIBRARY_PATH", OSError("libcudart.so.13"), "try without the variable LD_LIBRARY_PATH, or install"),
            ("PYTHONPATH", ImportError("no torch here"), "try without the variable PYTHONPATH, or install"),
        ],
    )
    def test_the_variable_that_keeps_torch_from_being_imported(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, error: Exception, fix: str
    ) -> None:
        for name in doctor.LOADER_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, "/somewhere")
        monkeypatch.setattr(importlib, "import_module", Mock(side_effect=error))
        for finding in imports():
            assert finding.state == "broken"
            assert f"({error}): {fix}" in finding.detail

    @pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
    def test_numbers_of_threads(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for value in ("", "1", "016", "4,2"):
            monkeypatch.setenv(name, value)
            assert not list(threads())
        for value in ("0", "-2", "many", "2.5", "1,"):
            monkeypatch.setenv(name, value)
            (finding,) = threads()
            assert finding.state == "broken"
            assert f"the variable {name} is '{value}': a number of 1 or more" in finding.detail

    @pytest.mark.parametrize(("has", "state"), [(True, "ok"), (None, "ok"), (False, "note")])
    def test_a_precision_that_the_cpu_emulates(
        self, monkeypatch: pytest.MonkeyPatch, has: bool | None, state: str
    ) -> None:
        monkeypatch.setattr("audio_lrp.training.efficiency.has_bfloat16", lambda: has)
        (finding,) = (finding for finding in devices() if finding.subject == "CPU")
        assert finding.state == state
        assert (
            "bfloat16, which takes many times as long: train with --trainer.precision 32-true" in finding.detail
        ) == (state == "note")

    @pytest.mark.skipif(
        torch.cuda.is_available() or not torch.version.cuda, reason="needs CUDA's PyTorch without a GPU"
    )
    def test_the_variable_that_hides_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "first")
        (finding,) = (finding for finding in devices() if finding.subject == "GPU")
        assert "the variable CUDA_VISIBLE_DEVICES is 'first'" in finding.detail

    @pytest.mark.skipif(sys.platform != "linux", reason="shared memory is a folder on Linux alone")
    def test_shared_memory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(8 * 10**9, 0, 8 * 10**9))
        assert list(shared_memory()) == [Finding("ok", "memory", "8,000 of 8,000 MB are free in /dev/shm, for workers")]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(67_108_864, 0, 67_108_864))  # Docker's own choice
        (small,) = shared_memory()
        assert small.state == "note"
        assert small.detail.startswith("67 of 67 MB are free in /dev/shm, too little for workers: in a container --shm")
        assert small.detail.endswith("--data.num_workers 0")
        monkeypatch.setattr("audio_lrp.data.loading.workers.SHARED_MEMORY", tmp_path / "none")
        (missing,) = shared_memory()
        assert missing.state == "note"
        assert "none is missing or cannot be written" in missing.detail

    def test_wandb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.state for finding in wandb_state(online=False)] == ["ok"]
        monkeypatch.setenv("WANDB_MODE", "online")
        (finding,) = wandb_state(online=False)
        assert finding == Finding("broken", "W&B", "runs are online; not logged in: wandb login, to upload runs")
        for mode in ("disabled", "dryrun"):
            monkeypatch.setenv("WANDB_MODE", mode)
            assert [finding.state for finding in wandb_state(online=False)] == ["ok"]
        monkeypatch.setenv("WANDB_MODE", "Online")
        (finding,) = wandb_state(online=False)
        assert finding.state == "broken"
        assert "variable WANDB_MODE is 'Online': Input should be 'online', 'offline'" in finding.detail
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        with serving(Served(b"hello")) as url:
            monkeypatch.setenv("WANDB_BASE_URL", url)
            account, answer = wandb_state(online=True)
            assert account == Finding("ok", "W&B", f"runs are online; logged in to {url}")
            assert answer == Finding("ok", "W&B", f"{url} answers (200)")
        gone = list(wandb_state(online=True))[1]
        assert gone.state == "broken"
        assert "Connection refused" in gone.detail

    def test_another_variable_of_wandb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "soon")
        (finding,) = wandb_state(online=False)
        assert finding.state == "broken"
        assert "variable WANDB_INIT_TIMEOUT is 'soon'" in finding.detail

    def test_wandb_key_in_netrc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine api.wandb.ai login user password secret\n")
        netrc.chmod(0o600)
        (finding,) = wandb_state(online=False)
        assert finding.detail == "runs are offline; logged in to https://api.wandb.ai"

    def test_caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (empty,) = caches()
        assert empty.state == "ok"
        assert empty.detail.startswith(f"{tmp_path / 'cache'}: 0 corpora, 0 MB; ")
        (tmp_path / "cache" / "FSDD-01").mkdir(parents=True)
        (tmp_path / "cache" / "FSDD-01" / "samples").write_bytes(bytes(3_000_000))
        (held,) = caches()
        assert held.detail.startswith(f"{tmp_path / 'cache'}: 1 corpora, 3 MB; ")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**10, 10**10, 10**9))
        (full,) = caches()
        assert full.state == "note"
        assert full.detail.endswith("1 GB free: little for a corpus, set the variable AUDIO_LRP_CACHE")
        monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache" / "FSDD-01" / "samples" / "x"))
        (unusable,) = caches()
        assert unusable.state == "broken"

    def test_corpora(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.state for finding in corpora(None)] == ["note"]
        monkeypatch.setenv("AUDIOMNIST_ROOT", str(tmp_path / "gone"))
        assert [finding.state for finding in corpora(None)] == ["broken"]
        monkeypatch.delenv("AUDIOMNIST_ROOT")
        make_corpus(tmp_path / "AudioMNIST")
        assert next(corpora(None)) == Finding("ok", "corpus", "AudioMNIST: 1 recordings of 1 speakers")


def completions(script: Path, *words: str) -> set[str]:
    """What bash proposes for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_audio_lrp 2>/dev/null; "
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return set(result.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("completion", "bash") == 0
    script = tmp_path / "audio-lrp.bash"
    script.write_text(capsys.readouterr().out)
    assert completions(script, "audio-lrp", "") >= set(COMMANDS)
    assert completions(script, "audio-lrp", "da") >= {"data"}
    assert completions(script, "audio-lrp", "fit", "--trainer.max_e") == {"--trainer.max_epochs"}
    assert completions(script, "audio-lrp", "explain", "--che") == {"--checkpoint"}
    assert completions(script, "audio-lrp", "report", "--out") == {"--output"}
    assert completions(script, "audio-lrp", "sync", "--h") == {"--help"}
    assert completions(script, "audio-lrp", "data", "") >= {"download", "check"}
    assert completions(script, "audio-lrp", "data", "check", "--out") == {"--output"}
    assert completions(script, "audio-lrp", "fit", "--config", "audionet_d") >= {"audionet_digit"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert exit_code("completion", shell) == 0
    output = capsys.readouterr().out
    assert "audio-lrp" in output
    assert "trainer.max_epochs" in output


def test_unknown_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("completion", "tcl") == 2
    assert "shell: there is no 'tcl'" in capsys.readouterr().err
