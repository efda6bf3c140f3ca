"""Shared by the tests of the core."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> dict[str, Path]:
    """Layout of a data set -> its root, each written once; to be read only."""
    from dataset_fixtures import FIXTURES

    roots = {}
    for name, fixture in FIXTURES.items():
        roots[name] = tmp_path_factory.mktemp(name)
        fixture.write(roots[name])
    return roots
