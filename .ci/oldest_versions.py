"""Prints pip constraints that hold every package at the oldest version that ``pyproject.toml`` allows."""

import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for text in chain(project["dependencies"], *project["optional-dependencies"].values()):
    requirement = Requirement(text)
    for specifier in requirement.specifier:
        if specifier.operator == ">=":
            print(f"{requirement.name}=={specifier.version}")
