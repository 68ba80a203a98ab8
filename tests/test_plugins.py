"""A package outside the core, installed like any other, brings its own classes; a broken one breaks nothing else."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
README = Path(__file__).parent / "README.md"
TRAINING = ["fit", "--config=tests/plugin/buzzes.yaml", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed plugin, and a second plugin that cannot be imported."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source)
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
    shutil.copytree(PLUGIN, folder / "tests" / "plugin", ignore=shutil.ignore_patterns("*.py"), dirs_exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(site), "AUDIO_LRP_CACHE": str(folder / "cache")}
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
    scores = [path.read_text() for path in trained.glob("runs/*/*/lrp/*-scores.csv")]
    assert len(scores) == 2
    assert all("aopc_from_the_end" in text for text in scores)


@pytest.mark.slow
def test_the_checkpoint_alone_is_tested_and_explained(site: Path, trained: Path) -> None:
    path = checkpoint(trained)
    result = run(site, trained, "test", "--ckpt_path", path, "--run.root=tests")
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    result = run(site, trained, "explain", "--checkpoint", path, "buzzes/3-0.wav")
    assert result.returncode == 0, result.stderr
    assert "3-0.wav: " in result.stdout


@pytest.mark.slow
def test_a_plugin_sweeps(site: Path, trained: Path) -> None:
    result = run(site, trained, "sweep", "tests/plugin/channels.yaml")
    assert result.returncode == 0, result.stderr
    with (trained / "runs" / "sweeps" / "channels" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert [row["model.init_args.network.init_args.channels"] for row in rows] == ["2", "4"]


@pytest.mark.slow
def test_a_plugin_is_reported(site: Path, trained: Path) -> None:
    (folder,) = trained.glob("runs/buzzes/*")
    result = run(site, trained, "report", str(folder))
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if "warning" in line and "rattle" not in line] == []
    page = (folder / "report.html").read_text()
    for text in ("ShortNetwork", "Buzzes", "EverywhereEpsilon", "from_the_end"):
        assert text in page, text


def test_the_readme_shows_this_very_plugin() -> None:
    assert f"```python\n{(PLUGIN / 'buzzer.py').read_text()}```" in README.read_text()
    assert f"```toml\n{(PLUGIN / 'pyproject.toml').read_text()}```" in README.read_text()


@pytest.mark.slow
def test_a_checkpoint_does_not_import_what_nobody_trusts(trained: Path, tmp_path: Path) -> None:
    """The plugin's module can be found here, but the package is not installed as a plugin."""
    shutil.copy(PLUGIN / "buzzer.py", tmp_path)
    path = str(trained / checkpoint(trained))
    for command in (["test", "--ckpt_path", path], ["explain", "--checkpoint", path, str(trained / "buzzes/3-0.wav")]):
        result = run(tmp_path, tmp_path, *command)
        assert result.returncode == 1
        assert "nor of an installed plugin: if you trust it" in result.stderr
        assert "Traceback" not in result.stderr
    command += ["--plugin", "buzzer"]
    assert run(tmp_path, tmp_path, *command).returncode == 0


def test_unknown_names_are_answered_with_the_plugins(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, *TRAINING, "--model.network=ShortNetwrok")
    assert result.returncode == 2
    assert "no class is called 'ShortNetwrok': did you mean ShortNetwork?" in result.stderr
