"""Several cameras in one process with one engine: `cameras_node NAME...`.

Each camera is a node of its own, called NAME, with its own tracks, topics, parameters and
lifecycle; a model that several use is loaded once and serves them in turn. ROS arguments name the
camera they are for, as usual:

    cameras_node front rear --ros-args -r front:~/image:=/front/image_raw -p front:max_rate:=10.0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rclpy.utilities import remove_ros_args

from . import process
from .engines import EnginePool
from .node import CameraNode


def create_cameras(names: Sequence[str], engines: EnginePool) -> list[CameraNode]:
    """A node for each name; InvalidNodeNameException if one cannot be, and no node is left then."""
    nodes: list[CameraNode] = []
    try:
        for name in names:
            nodes.append(CameraNode(engines, name))
    except BaseException:
        for node in nodes:
            node.destroy_node()
        raise
    return nodes


def main(args: Sequence[str] | None = None) -> int:
    """The `cameras_node` executable; see `process.run` for exit codes."""
    parser = argparse.ArgumentParser(prog="cameras_node", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a camera, and of its node")
    try:
        own = remove_ros_args(args if args is not None else sys.argv)[1:]
    except RuntimeError as error:  # what rclpy raises for ROS arguments shares no base but this
        parser.error(process.one_line(error))
    names = parser.parse_args(own).names
    if len(set(names)) < len(names):
        parser.error(f"the names of the cameras must differ, got {' '.join(names)}")
    return process.run(lambda: create_cameras(names, EnginePool()), args)
