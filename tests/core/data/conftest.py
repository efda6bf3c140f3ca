"""Data sets on disk that a test may damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def copy(written, tmp_path) -> Callable[[str], Path]:
    """A function that gives a data set of its own, to be damaged."""

    def copied(layout: str) -> Path:
        shutil.copytree(written[layout], tmp_path / layout)
        return tmp_path / layout

    return copied
