"""Order and isolation of the tests, alone or in several processes (`-n 2 --dist loadgroup`).

Tests run in random order (pytest-randomly): no test may depend on another one, on how busy the
machine is, or on a test run beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import hypothesis
import pytest

HERE = Path(__file__).parent
EXPORTS = (
    "test_export",
    "test_precision",
    "test_selector",
    "test_task_engines",
    "test_tensorrt_build",
)
"""They use the same models, whose export takes long (fixture `exported`)."""

HAS_TORCH = importlib.util.find_spec("torch") is not None

hypothesis.settings.register_profile(
    "busy machine",
    deadline=None,  # of milliseconds per example
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("busy machine")


class _MayNeedTorch(pytest.Module):
    """A file whose tests are skipped where torch, and so the extra `train`, is not installed."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            if "No module named 'torch'" not in str(error):
                raise
            pytest.skip("needs torch: pip install 'video_knet_ros[train]'")


def pytest_pycollect_makemodule(module_path, parent):
    """Where torch is missing, as in `make test-lowest`, run the tests that do without."""
    if HAS_TORCH:
        return None
    return _MayNeedTorch.from_parent(parent, path=module_path)


def pytest_itemcollected(item: pytest.Item) -> None:
    """One process runs a whole file, or all files that use the same resource.

    The ROS tests stay together: they have one domain.
    """
    item.add_marker(pytest.mark.xdist_group(_group(item)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first; the order within a group stays that of pytest-randomly."""
    items.sort(key=lambda item: _group(item) != "ros")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Random numbers of a fixture do not depend on the tests before it."""
    _seed_torch()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Nor those of a test on whether its fixtures were made for it or for an earlier test."""
    _seed_torch()


def _seed_torch() -> None:
    """As pytest-randomly does it for `random` and NumPy; where torch is in use at all."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(HERE)
    if path.parts[0] == "ros":
        return "ros"
    return "exports" if path.stem in EXPORTS else str(path)
