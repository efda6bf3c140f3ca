"""Order and isolation of the tests, alone or in several processes (`-n 2`).

Tests run in random order (pytest-randomly): no test may depend on another one, on how busy the
machine is, or on a test run beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

import hypothesis
import pytest

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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share no cache of engines with the user or another run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEO_KNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.hookimpl(optionalhook=True)  # only where pytest-xdist is in use
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """One process runs a whole file, or all files that use the same resource.

    The marks of `--dist loadgroup` would do as well, but from pytest 9.2 on pytest-xdist 3.8 does
    not see them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

        def _assign_work_unit(self, node) -> None:
            for group in ("exports", "ros"):  # what takes longest goes first
                if group in self.workqueue:
                    self.workqueue.move_to_end(group, last=False)
            super()._assign_work_unit(node)

    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Random numbers of a fixture do not depend on the tests before it."""
    _reset_torch()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Nor those of a test on whether its fixtures were made for it or for an earlier test."""
    _reset_torch()


def _reset_torch() -> None:
    """Seed as pytest-randomly does it for `random` and NumPy; where torch is in use at all.

    A test that trains or opens an engine sets the number of threads of the whole process, and two
    of each process on two cores make every later test several times as slow.

    Parts of torch that it imports when they are first used are imported here, by one thread alone:
    a test and an engine that is built behind another one could import them at the same time, which
    leaves them incomplete for the rest of the process.
    """
    if torch := sys.modules.get("torch"):
        importlib.import_module("torch._dynamo")
        torch.manual_seed(0)
        torch.set_num_threads(1)


def _group(nodeid: str) -> str:
    """The file of a test, or the resource that it shares with others.

    The ROS tests stay together: they have one domain.
    """
    file = PurePosixPath(nodeid.partition("::")[0])
    if file.match("tests/ros/*"):
        return "ros"
    return "exports" if file.stem in EXPORTS else str(file)
