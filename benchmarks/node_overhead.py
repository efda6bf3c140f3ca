#!/usr/bin/env python3
"""The camera node's own time per frame, without inference, and what each output adds.

    source scripts/env.sh && python benchmarks/node_overhead.py [--frames 100] [--size 2048x1024]

From the entry of the image callback to the return of the last publish, less the engine's step. The
real node and model run here over real DDS; a second process reads all outputs. Sets of outputs take
turns frame by frame, so that a noisy machine is noisy to all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from synthetic_street import SyntheticStreet
from video_knet_ros.input_images import FrameCounts
from video_knet_ros.node import CameraNode
from video_knet_ros.outputs import CONVERSIONS

ALL = ("instances", "panoptic", "semantic")
SETS = {
    "no output": (),
    "instances": ("instances",),
    "instances with rle": ("instances", "rle"),
    "panoptic image": ("panoptic",),
    "semantic image": ("semantic",),
    "overlay": ("overlay",),
    "instances, panoptic, semantic": ALL,
    "all of them and the overlay": (*ALL, "overlay"),
}
WARM_UP = 3
TIMEOUT_S = 20.0


class TimedNode(CameraNode):
    """Notes what each frame took, and publishes only the requested outputs."""

    entered, own_ms = 0.0, 0.0
    done = False

    def ask_for(self, outputs: tuple[str, ...]) -> None:
        """As if only these had readers."""
        for name, topic in self.outputs._topics.items():
            topic._matched = int(name in outputs)
        self.set_parameters([Parameter("rle", value="rle" in outputs)])

    def _on_image(self, message: Image) -> None:
        self.entered = time.perf_counter()
        super()._on_image(message)

    def _process(self, *arguments: Any) -> None:
        super()._process(*arguments)
        counts = next(value for value in arguments if isinstance(value, FrameCounts))
        total = (time.perf_counter() - self.entered) * 1e3
        self.own_ms = total - counts.inference_ms
        self.done = True


class Reader(Node):
    """Subscribes to all outputs; what comes is thrown away."""

    def __init__(self) -> None:
        super().__init__("reader")
        qos = QoSProfile(depth=2)
        for name in ("panoptic", "semantic", "overlay"):
            topic = f"/video_knet/{name}/image"
            self.create_subscription(Image, topic, lambda message: None, qos)
        table = "/video_knet/instances"
        self.create_subscription(TrackedInstanceArray, table, lambda message: None, qos)


def measure(frames: int, size: tuple[int, int]) -> dict[str, list[float]]:
    """Own time in milliseconds of each frame of `size` (width, height), by set of outputs."""
    node = TimedNode(cli_args=["--ros-args", "-r", "~/image:=/camera"])
    camera, executor = Node("camera"), SingleThreadedExecutor()
    publisher = camera.create_publisher(Image, "/camera", QoSProfile(depth=2))
    for member in (node, camera):
        executor.add_node(member)
    spin_until(
        executor,
        lambda: node.outputs and all(node.outputs.subscribers[n] for n in (*ALL, "overlay")),
    )
    spin_until(executor, publisher.get_subscription_count)
    street, times = SyntheticStreet(7, 288, 480), defaultdict(list)
    stamp = 1_000_000_000
    for t in range(frames + WARM_UP):
        message = CONVERSIONS.image_message(
            Image().header, "rgb8", cv2.resize(street.frame(t).image, size)
        )
        for name, outputs in SETS.items():
            stamp += 10_000_000
            message.header.stamp = CONVERSIONS.time_message(stamp)
            node.ask_for(outputs)
            node.done = False
            publisher.publish(message)
            spin_until(executor, lambda: node.done)
            times[name].append(node.own_ms)
    executor.shutdown()
    node.destroy_node()
    return {name: values[WARM_UP:] for name, values in times.items()}


def spin_until(executor: SingleThreadedExecutor, condition) -> None:
    """TimeoutError if it takes too long."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        executor.spin_once(timeout_sec=0.05)
        if time.monotonic() > end:
            raise TimeoutError(f"waited {TIMEOUT_S:g} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", default="2048x1024", help="width x height; default 2048x1024")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rclpy.init()
    if args.read:
        rclpy.spin(Reader())
        return
    reader = subprocess.Popen([sys.executable, __file__, "--read"])
    try:
        width, height = map(int, args.size.split("x"))
        results = measure(args.frames, (width, height))
    finally:
        reader.kill()
        reader.wait()
    print(f"{args.size}, own time in ms{'p50':>26} {'p99':>8} {'more than none':>16}")
    base = np.median(results["no output"])
    for name, values in results.items():
        p50, p99 = np.percentile(values, (50, 99))
        print(f"  {name:36} {p50:8.2f} {p99:8.2f} {p50 - base:16.2f}")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
