"""Imports go down the layers only, and files stay readable in one sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "allocator": set(),
    "names": set(),
    "nearest": set(),
    "arguments": set(),
    "checkpoint_file": set(),
    "plugins": set(),
    "signals": set(),
    "launcher": set(),
    "data": {"allocator"},
    "models": set(),
    "attribution": set(),
    "faithfulness": {"attribution"},
    "figures": set(),
    "views": {"data", "attribution", "figures"},
    "tracking": set(),
    "callbacks": {"data", "models", "attribution", "faithfulness", "figures", "views", "tracking"},
    "saved_network": {"data", "models", "checkpoint_file", "plugins"},
    "explain_inputs": {"data"},
    "explain_page": set(),
    "explain": {
        "data",
        "attribution",
        "figures",
        "views",
        "saved_network",
        "explain_inputs",
        "explain_page",
    },
    "explain_command": {"arguments", "explain"},
    "corpus_figure": set(),
    "corpus_check": {"data", "corpus_figure", "tracking"},
    "data_command": {"arguments", "data", "corpus_check"},
    "sync": {"arguments", "tracking"},
    "dashboard": {"arguments", "tracking"},
    "report": {
        "arguments",
        "data",
        "attribution",
        "views",
        "tracking",
        "callbacks",
        "saved_network",
        "checkpoint_file",
        "plugins",
        "study",
    },
    "configs": set(),
    "study": {
        "arguments",
        "data",
        "attribution",
        "faithfulness",
        "tracking",
        "callbacks",
        "configs",
        "checkpoint_file",
        "saved_network",
    },
    "doctor": {"arguments", "cli", "data", "tracking"},
    "cli": {
        "allocator",
        "arguments",
        "data",
        "models",
        "attribution",
        "faithfulness",
        "figures",
        "tracking",
        "callbacks",
        "configs",
        "checkpoint_file",
        "plugins",
        "signals",
        "launcher",
    },  # the other commands it imports by name
    "search": {"allocator", "arguments", "cli", "tracking"},
    "__main__": {"allocator", "cli"},
}
"""Layer by layer, what of the package it may import besides itself, ``errors``, ``names`` and ``nearest``."""


def layer_files(layer: str) -> list[Path]:
    folder = REPOSITORY if layer in ("callbacks", "configs") else REPOSITORY / "audio_lrp"
    module = folder / f"{layer}.py"
    return [module] if module.is_file() else sorted((folder / layer).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_layers(path: Path) -> set[str]:
    """Parts of the package that a file imports; its own version is nobody's layer."""
    names = [name.split(".") for name in imported_modules(path)]
    return {name[1] for name in names if name[0] == "audio_lrp" and len(name) > 1} - {"__version__"}


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = [path.stem for path in (REPOSITORY / "audio_lrp").iterdir() if path.suffix == ".py" or path.is_dir()]
    assert set(parts) - {"__init__", "__pycache__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_go_down(layer: str) -> None:
    files = layer_files(layer)
    assert files
    for path in files:
        forbidden = imported_layers(path) - MAY_IMPORT[layer] - {layer, "errors", "names", "nearest"}
        assert not forbidden, f"{path.relative_to(REPOSITORY)} imports {forbidden}"


@pytest.mark.parametrize("layer", ["attribution", "faithfulness", "figures"])
def test_explanations_do_not_know_lightning(layer: str) -> None:
    for path in layer_files(layer):
        assert not [name for name in imported_modules(path) if name.split(".")[0] in ("lightning", "wandb")], path


def test_files_are_readable_in_one_sitting() -> None:
    folders = [REPOSITORY / name for name in ("audio_lrp", "callbacks", "configs")]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        assert len(path.read_text().splitlines()) < LONGEST_FILE, path
