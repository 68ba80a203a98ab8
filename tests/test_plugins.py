"""A package outside the core, installed like any other, brings its own classes; a broken one breaks nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = [
    "fit", "--model=Classifier", "--model.network=ShortNetwork", "--model.network.channels=3",
    "--data=CorpusDataModule", "--data.corpus=Buzzes", "--data.corpus.root=corpus", "--data.num_folds=3",
    "--data.cache_dir=beside", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false", "--trainer.logger=false",
    "--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=10", "--trainer.callbacks.num_pictures=1",
    "--trainer.callbacks.composite=EverywhereEpsilon", "--trainer.callbacks.composite.epsilon=1e-4",
    "--trainer.callbacks+=StepCounter", "--trainer.callbacks.path=steps.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed plugin, and a second plugin that cannot be imported."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(Path(__file__).parent / "plugin", source)
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(site), str(source)], check=True)
    broken = site / "broken-0.1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (broken / "entry_points.txt").write_text("[audio_lrp.plugins]\nrattle = no_such_module\n")
    return site


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own that finds the plugins."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "audio_lrp", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a training with nothing but the plugin's classes, by their bare names, has run."""
    folder = tmp_path_factory.mktemp("work")
    result = run(site, folder, *TRAINING)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "plugin" in line]
    assert len(warnings) == 1
    assert "the plugin rattle of broken is left out" in warnings[0]
    assert "no_such_module" in warnings[0]
    return folder


def checkpoint(folder: Path) -> str:
    (path,) = folder.glob("runs/*/*/checkpoints/*.ckpt")
    return str(path.relative_to(folder))


def test_a_plugin_trains(trained: Path) -> None:
    assert int((trained / "steps.txt").read_text()) == 2
    assert list(trained.glob("runs/*/*/lrp/*-map-0.png"))


def test_the_checkpoint_alone_is_tested_and_explained(site: Path, trained: Path) -> None:
    path = checkpoint(trained)
    result = run(site, trained, "test", "--ckpt_path", path, "--run.root=tests")
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    result = run(site, trained, "explain", "--checkpoint", path, "corpus/3-0.wav")
    assert result.returncode == 0, result.stderr
    assert "3-0.wav: " in result.stdout


def test_a_checkpoint_does_not_import_what_nobody_trusts(trained: Path, tmp_path: Path) -> None:
    """The plugin's module can be found here, but the package is not installed as a plugin."""
    shutil.copy(Path(__file__).parent / "plugin" / "buzzer.py", tmp_path)
    path = str(trained / checkpoint(trained))
    for command in (["test", "--ckpt_path", path], ["explain", "--checkpoint", path, str(trained / "corpus/3-0.wav")]):
        result = run(tmp_path, tmp_path, *command)
        assert result.returncode == 1
        assert "nor of an installed plugin: if you trust it" in result.stderr
        assert "Traceback" not in result.stderr
    command += ["--plugin", "buzzer"]
    assert run(tmp_path, tmp_path, *command).returncode == 0


def test_unknown_names_are_answered_with_the_plugins(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, *TRAINING[:2], "--model.network=ShortNetwrok", *TRAINING[3:])
    assert result.returncode == 2
    assert "no class is called 'ShortNetwrok': did you mean ShortNetwork?" in result.stderr
