"""What a wheel holds, and that both kinds of installation find it."""

import doctest
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module, resources
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_every_package_is_declared() -> None:
    declared = set(PYPROJECT["tool"]["setuptools"]["packages"])
    folders = [path.parent.relative_to(REPOSITORY) for path in REPOSITORY.glob("audio_lrp/**/__init__.py")]
    found = {".".join(folder.parts) for folder in folders}
    assert declared == found | {"audio_lrp.callbacks", "audio_lrp.configs"}


def test_mapped_folders_are_subpackages_from_any_folder(tmp_path: Path) -> None:
    code = (
        "import audio_lrp.callbacks, audio_lrp.configs, importlib.util; from importlib.resources import files; "
        "assert (files('audio_lrp.configs') / 'trainer' / 'cpu.yaml').is_file(); "
        "assert importlib.util.find_spec('callbacks') is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_type_hints_are_announced() -> None:
    assert (resources.files("audio_lrp") / "py.typed").is_file()


def test_examples_of_the_callbacks() -> None:
    """pytest would import the folder as a top-level package, and every callback twice."""
    for path in (REPOSITORY / "callbacks").glob("*.py"):
        name = "audio_lrp.callbacks" if path.stem == "__init__" else f"audio_lrp.callbacks.{path.stem}"
        assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("audio_lrp", "callbacks", "configs", "pyproject.toml", "README.md", "LICENSE"):
        copy(REPOSITORY / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    subprocess.run(wheel, check=True, cwd=source)
    (path,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(path).namelist())
    expected = {
        f"audio_lrp/{file.relative_to(REPOSITORY).as_posix().removeprefix('audio_lrp/')}"
        for folder in ("audio_lrp", "callbacks", "configs")
        for file in (REPOSITORY / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".typed", ".html", ".css")
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "audio-lrp = audio_lrp.__main__:main" in zipfile.ZipFile(path).read(entry_points).decode()
    # The installed wheel finds its configurations by name: importing from the wheel's own files, not the checkout's.
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed), str(path)]
    subprocess.run(pip, check=True)
    code = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]
sys.path.insert(0, {str(installed)!r})
import audio_lrp
assert audio_lrp.__file__.startswith({str(installed)!r})
from audio_lrp.commands import main
main(['fit', '--config=audionet_digit', '--config=trainer/cpu', '--data.root=x', '--print_config'])
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "class_path: audio_lrp.callbacks.LRPCallback" in result.stdout


def copy(source: Path, target: Path) -> None:
    """Copy without what Python and editors leave behind."""
    if source.is_dir():
        for path in source.iterdir():
            if path.name != "__pycache__":
                copy(path, target / path.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
