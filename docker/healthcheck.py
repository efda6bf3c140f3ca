#!/usr/bin/env python3
"""Exit code 0 if all camera nodes of this machine or container have results, else 1 and why not.

It reads /diagnostics, whose level is ERROR for as long as a node has no results.
"""

from __future__ import annotations

import os
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

FIRST_S, FURTHER_S = 10.0, 2.5
"""Seconds to wait for a first status, and then for those of other nodes; one each second."""
STATUS = ": frames"
"""How the names of the camera nodes' statuses end."""


def statuses() -> dict[str, DiagnosticStatus]:
    """The last status of each camera node, by name; empty if there is none in time."""
    found: dict[str, DiagnosticStatus] = {}

    def on_message(message: DiagnosticArray) -> None:
        found.update({s.name: s for s in message.status if s.name.endswith(STATUS)})

    node = rclpy.create_node(
        "video_knet_healthcheck", enable_rosout=False, start_parameter_services=False
    )
    node.create_subscription(DiagnosticArray, "/diagnostics", on_message, 10)
    deadline = time.monotonic() + FIRST_S
    while not found and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    deadline = time.monotonic() + FURTHER_S
    while found and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    return found


def main() -> int:
    """Print one line for each node."""
    for version in ("FASTRTPS", "FASTDDS"):  # the profile would take 64 MiB of shared memory
        os.environ.pop(f"{version}_DEFAULT_PROFILES_FILE", None)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"  # not other robots; not in Humble
    rclpy.init()
    found = statuses()
    rclpy.shutdown()
    for status in found.values():
        print(f"{status.name}: {status.message}")
    if not found:
        print(f"no camera node on /diagnostics within {FIRST_S:g} s")
    failed = any(status.level >= DiagnosticStatus.ERROR for status in found.values())
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
