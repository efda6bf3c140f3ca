"""Fixtures of the ROS tests: real nodes over real DDS, in a domain reserved for this process."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "core")]  # for `harness`, and the models of the core

HAS_ROS = importlib.util.find_spec("rclpy") is not None


class _WithoutRos(pytest.Module):
    def collect(self):
        pytest.skip("needs ROS 2: rclpy cannot be imported")


def pytest_pycollect_makemodule(module_path, parent):
    """Say why these tests do not run where there is no ROS 2."""
    return None if HAS_ROS else _WithoutRos.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def ros():
    """rclpy, in a domain that no other machine and no other test run on this one uses."""
    import rclpy
    from harness import reserved_domain

    from video_knet_ros import diagnostics, node, ros_compat

    with reserved_domain() as number:
        os.environ["ROS_DOMAIN_ID"] = str(number)
        os.environ.update(ros_compat.LOCALHOST_ONLY)
        node.GRAPH_PERIOD_S = diagnostics.PERIOD_S = 0.1  # tests wait for both
        rclpy.init()
        gc.freeze()  # or each `gc.collect` below goes through all that was imported
        yield
        rclpy.try_shutdown()


@pytest.fixture
def world(ros):
    """An executor with the nodes of one test and the means to await things."""
    from harness import World

    gc.collect()  # a lifecycle node of the last test leaves the graph only when it is freed
    world = World()
    yield world
    world.close()
