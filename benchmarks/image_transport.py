#!/usr/bin/env python3
"""What fraction of a camera's images reaches the node, by quality of service and transport.

    source scripts/env.sh && python benchmarks/image_transport.py [--images 90]

A camera in a process of its own sends images at 30 Hz, with each mix of reliability, durability and
depth, with and without config/fastdds_large_images.xml. The real node subscribes with `reliability:
auto`. Its engine costs nothing and its inference is switched to the newest image as always, so
what is counted is what the middleware delivers: `received` of the node's counts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from video_knet_core.engine.base import ModelInfo
from video_knet_core.types import ClassInfo, ClassTable, Detections
from video_knet_ros.engines import EnginePool
from video_knet_ros.node import CameraNode
from video_knet_ros.outputs import CONVERSIONS
from video_knet_ros.ros_compat import PROFILES_VARIABLE, PROFILES_VARIABLES

PROFILE = Path(__file__).parents[1] / "config" / "fastdds_large_images.xml"
SIZES = ((1242, 375), (2048, 1024))
RATE = 30.0
OFFERS = tuple(
    itertools.product(("RELIABLE", "BEST_EFFORT"), ("VOLATILE", "TRANSIENT_LOCAL"), (1, 10))
)


class NoEngine:
    """An engine that returns road everywhere at once."""

    name = "none"
    info = ModelInfo("none", ClassTable((ClassInfo(0, "road", False, (128, 64, 128)),)), 32, 64)

    def step(self, image: np.ndarray, state: Any) -> tuple[Detections, Any]:
        one = np.ones(1)
        road = np.ones((8, 16), np.uint8)
        table = (one.astype(np.int64) * 0, one.astype(np.float32), one.astype(np.int64) * 128)
        return Detections(road, *table, np.zeros((1, 4), np.float32)), 0

    def close(self) -> None:
        pass


def profile(reliability: str, durability: str, depth: int) -> QoSProfile:
    """What a camera offers."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy[durability],
    )


def send(width: int, height: int, images: int, *offer: str) -> None:
    """The camera: wait for the node, then send."""
    reliability, durability, depth = offer
    node = Node("camera")
    publisher = node.create_publisher(
        Image, "/camera", profile(reliability, durability, int(depth))
    )
    end = time.monotonic() + 10
    expected = ReliabilityPolicy[reliability]
    while time.monotonic() < end:
        found = node.get_subscriptions_info_by_topic("/camera")
        if publisher.get_subscription_count() and found[0].qos_profile.reliability == expected:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    message = CONVERSIONS.image_message(Image().header, "rgb8", pixels)
    begin = time.monotonic()
    for i in range(images):
        time.sleep(max(0.0, begin + i / RATE - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    time.sleep(1.0)


def received(size: tuple[int, int], images: int, offer: tuple, with_profile: bool) -> int:
    """Images of one camera process that reach a node of this one."""
    node = CameraNode(
        EnginePool(lambda path, **options: NoEngine()),
        cli_args=["--ros-args", "-r", "~/image:=/camera", "-p", "model:=none"],
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    environment = {k: v for k, v in os.environ.items() if k not in PROFILES_VARIABLES}
    if with_profile:
        environment[PROFILES_VARIABLE] = str(PROFILE)
    command = [sys.executable, __file__, "--send", *map(str, (*size, images, *offer))]
    camera = subprocess.Popen(command, env=environment)
    while camera.poll() is None:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    count = node.counts.received
    node.destroy_node()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=90, help="sent in each case; default 90")
    parser.add_argument("--send", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    rclpy.init()
    if args.send:
        width, height, images, *offer = args.send
        send(int(width), int(height), int(images), *offer)
        return
    columns = [(size, with_profile) for size in SIZES for with_profile in (False, True)]
    print(
        "| camera offers | " + " | ".join(f"{w}x{h}{', profile' * p}" for (w, h), p in columns), "|"
    )
    print("|---" * (1 + len(columns)) + "|")
    for offer in OFFERS:
        shares = [received(size, args.images, offer, p) / args.images for size, p in columns]
        words = f"{offer[0].lower()}, {offer[1].lower()}, depth {offer[2]}"
        print(f"| {words} | " + " | ".join(f"{part:.0%}" for part in shares), "|", flush=True)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
