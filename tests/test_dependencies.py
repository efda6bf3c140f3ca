"""The page on dependencies has what `pyproject.toml` and `package.xml` need at run time."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
SECTIONS = re.split(
    "^## ", (REPO / "docs" / "reference" / "dependencies.md").read_text(), flags=re.M
)[1:]


def documented(section: str) -> set[str]:
    """The packages in the first column of a table."""
    (text,) = (text for text in SECTIONS if text.startswith(f"{section}\n"))
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def names(requirements: list[str]) -> set[str]:
    """The other packages that a list of requirements names."""
    found = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requirements}
    return found - {PROJECT["name"]}


def test_every_dependency_has_a_row() -> None:
    assert documented("Python, always installed") == names(PROJECT["dependencies"])


def test_every_dependency_of_an_extra_has_a_row() -> None:
    extras = PROJECT["optional-dependencies"].items()
    expected = {
        name
        for extra, requirements in extras
        if not extra.startswith(("test", "dev"))
        for name in names(requirements)
    }
    assert documented("Python, extras") == expected


def test_every_ros_dependency_has_a_row() -> None:
    tags = {"depend", "exec_depend"}
    elements = ElementTree.parse(REPO / "package.xml").getroot()
    assert documented("ROS 2") == {e.text for e in elements if e.tag in tags}
