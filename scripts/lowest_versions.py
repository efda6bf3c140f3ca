#!/usr/bin/env python3
"""Print a requirements file of the oldest versions that pyproject.toml allows, one line each.

Of the dependencies and of the extras that do without torch and a GPU; `make test-lowest` installs
them and runs the tests that need no more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
LEFT_OUT = {
    "train": "torch",
    "export": "torch",
    "swin": "of use with torch only",
    "gpu": "takes the place of onnxruntime",
    "rtx": "gigabytes of CUDA",
    "fleet": "ray",
    "rerun": "needs a newer NumPy",
    "dev": "tools that are pinned in requirements_check.txt",
}
"""Extras by what keeps them out."""
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])? *>= *([\w.]+)[^;]*(;.*)?")
"""Name, oldest version and marker."""


def requirements(project: dict) -> Iterator[str]:
    """The dependencies and those of the extras that are tried, as they are written."""
    yield from project["dependencies"]
    for extra, names in project["optional-dependencies"].items():
        if extra not in LEFT_OUT:
            yield from (name for name in names if not name.startswith(project["name"]))


def lowest(requirement: str) -> str:
    """The requirement with its oldest version alone; ValueError if it names none."""
    match = REQUIREMENT.fullmatch(requirement)
    if not match:
        raise ValueError(f"expected NAME>=VERSION, got {requirement!r}")
    name, version, marker = match.groups()
    return f"{name}=={version}{marker or ''}"


def main() -> None:
    with PROJECT.open("rb") as file:
        project = tomllib.load(file)["project"]
    print("\n".join(sorted({lowest(requirement) for requirement in requirements(project)})))


if __name__ == "__main__":
    main()
