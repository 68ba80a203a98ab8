"""Imports go down the layers only, and files stay readable in one sitting."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "constants": set(),
    "plugins": set(),
    "utils": set(),
    "timefrequency": set(),
    "data": {"timefrequency"},
    "models": set(),
    "attribution": set(),
    "faithfulness": {"attribution", "timefrequency"},
    "tracking": set(),
    "checkpoints": {"data", "models", "plugins"},
    "visualization": {"data", "attribution", "timefrequency"},
    "html": set(),
    "callbacks": {"data", "models", "attribution", "timefrequency", "faithfulness", "visualization", "tracking"},
    "explain": {"data", "attribution", "timefrequency", "visualization", "html", "checkpoints"},
    "configs": set(),
    "training": {"data", "models", "tracking", "callbacks", "configs", "checkpoints", "plugins"},
    "jobs": set(),
    "sweeps": {"tracking", "training", "jobs"},
    "study": {
        "data",
        "attribution",
        "timefrequency",
        "faithfulness",
        "tracking",
        "callbacks",
        "configs",
        "checkpoints",
        "training",
        "jobs",
    },
    "report": {
        "data",
        "attribution",
        "timefrequency",
        "html",
        "visualization",
        "tracking",
        "callbacks",
        "checkpoints",
        "study",
    },
    "commands": {"data", "tracking", "explain", "training", "jobs", "sweeps", "study", "report"},
    "__main__": {"commands"},
}
"""Room by room, from the ground up, what of the package it may import besides itself and ``EVERYBODYS``."""

EVERYBODYS = {"errors", "constants", "utils"}

MAY_IMPORT_IN_DATA: dict[str, set[str]] = {
    "corpora": set(),
    "packing": {"corpora"},
    "loading": {"corpora", "packing"},
    "inspection": {"corpora", "packing"},
}
"""The same for the rooms in ``data``."""


def layer_files(layer: str) -> list[Path]:
    folder = REPOSITORY if layer in ("callbacks", "configs") else REPOSITORY / "audio_lrp"
    module = folder / f"{layer}.py"
    return [module] if module.is_file() else sorted((folder / layer).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports: at its top, inside functions, or by a name in a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"audio_lrp(\.[a-z_]+)+", str(node.value)):
            yield str(node.value)


def imported_layers(path: Path) -> set[str]:
    """Parts of the package that a file imports; its own version is nobody's layer."""
    names = [name.split(".") for name in imported_modules(path)]
    return {name[1] for name in names if name[0] == "audio_lrp" and len(name) > 1} - {"__version__"}


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = [path.stem for path in (REPOSITORY / "audio_lrp").iterdir() if path.suffix == ".py" or [*path.glob("*.py")]]
    assert set(parts) - {"__init__", "__pycache__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_go_down(layer: str) -> None:
    files = layer_files(layer)
    assert files
    for path in files:
        forbidden = imported_layers(path) - MAY_IMPORT[layer] - {layer} - EVERYBODYS
        assert not forbidden, f"{path.relative_to(REPOSITORY)} imports {forbidden}"


def test_layers_are_in_order() -> None:
    known = list(MAY_IMPORT)
    for layer, allowed in MAY_IMPORT.items():
        assert all(known.index(lower) < known.index(layer) for lower in allowed), layer


@pytest.mark.parametrize("room", MAY_IMPORT_IN_DATA)
def test_imports_go_down_in_data(room: str) -> None:
    for path in sorted((REPOSITORY / "audio_lrp" / "data" / room).glob("*.py")):
        names = [name.split(".") for name in imported_modules(path) if name.startswith("audio_lrp.data.")]
        assert {name[2] for name in names} & {*MAY_IMPORT_IN_DATA} <= MAY_IMPORT_IN_DATA[room] | {room}, path


def test_few_modules_lie_outside_of_the_rooms() -> None:
    assert len([*(REPOSITORY / "audio_lrp").glob("*.py")]) <= 6


@pytest.mark.parametrize("layer", ["attribution", "timefrequency", "faithfulness", "visualization"])
def test_explanations_do_not_know_lightning(layer: str) -> None:
    for path in layer_files(layer):
        assert not [name for name in imported_modules(path) if name.split(".")[0] in ("lightning", "wandb")], path


def test_files_are_readable_in_one_sitting() -> None:
    folders = [REPOSITORY / name for name in ("audio_lrp", "callbacks", "configs")]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        assert len(path.read_text().splitlines()) < LONGEST_FILE, path


def module_imports() -> dict[str, set[str]]:
    """The modules of the package, each with those that it imports: at its top, in a function, or by name."""
    files = {}
    for folder, package in (("audio_lrp", "audio_lrp"), ("callbacks", "audio_lrp.callbacks")):
        for path in (REPOSITORY / folder).rglob("*.py"):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            files[".".join((package, *parts)).removesuffix(".__init__")] = path

    def module_of(name: str) -> str | None:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name or None

    found = {name: {module_of(imported) for imported in imported_modules(path)} for name, path in files.items()}
    return {name: {other for other in others if other not in (None, name)} for name, others in found.items()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Packages aside, whose own imports are there for their users."""
    left = {name: others - {"audio_lrp"} for name, others in module_imports().items() if name != "audio_lrp"}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_no_test_module_imports_another() -> None:
    tests = REPOSITORY / "tests"
    names = {path.stem for path in tests.rglob("test_*.py")}
    for path in tests.rglob("*.py"):
        assert not {name.split(".")[0] for name in imported_modules(path)} & names, path


def test_tests_lie_where_what_they_test_lies() -> None:
    """Those at the root of the tests are about the whole program."""
    tests = REPOSITORY / "tests"
    for path in tests.rglob("*/test_*.py"):
        room = path.parent.relative_to(tests)
        assert (REPOSITORY / "audio_lrp" / room).is_dir() or (REPOSITORY / room).is_dir(), path
