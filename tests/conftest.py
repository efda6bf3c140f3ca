"""How tests are shared out where several processes run them (`pytest -n 2 --dist loadgroup`)."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPORTS = ("test_export", "test_precision", "test_runtime", "test_tensorrt_build")
"""They share models whose export takes long (fixture `exported`)."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process takes a whole file, or all that share something; what takes longest goes first.

    The ROS tests stay together: they would hear each other, and wait for each other's work.
    """
    items.sort(key=lambda item: _group(item) != "ros")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(HERE)
    if path.parts[0] == "ros":
        return "ros"
    return "exports" if path.stem in EXPORTS else str(path)
