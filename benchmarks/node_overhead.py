#!/usr/bin/env python3
"""The camera node's own time per frame: receive, convert, track, publish, without the engine.

    source scripts/env.sh && python benchmarks/node_overhead.py [--frames 60]

The real node and the real model run in one process with a camera and a listener, over real DDS.
A frame's overhead is the time from just before it is published to the arrival of its last output,
less the engine's step. Image sizes take turns within one run.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_ros import conversions
from video_knet_ros.node import CameraNode, start

SIZES = ((360, 480), (375, 1242), (1024, 2048))
WARM_UP = 2
TIMEOUT_S = 20.0


class Listener(Node):
    """Sends images, and notes when the outputs of each stamp have all come."""

    def __init__(self, overlay: bool) -> None:
        super().__init__("listener")
        qos = QoSProfile(depth=5)
        self.camera = self.create_publisher(Image, "camera", qos)
        images = ["panoptic/image", "semantic/image"] + ["overlay/image"] * overlay
        self.outputs = 1 + len(images)
        self.arrived: dict[int, list[float]] = defaultdict(list)
        self.inference_ms: dict[int, float] = {}
        for name in images:
            self.create_subscription(Image, f"/video_knet/{name}", self._note, qos)
        self.create_subscription(TrackedInstanceArray, "/video_knet/instances", self._table, qos)

    def _note(self, message: Image | TrackedInstanceArray) -> None:
        self.arrived[conversions.nanoseconds(message.header.stamp)].append(time.perf_counter())

    def _table(self, message: TrackedInstanceArray) -> None:
        self.inference_ms[conversions.nanoseconds(message.header.stamp)] = message.inference_ms
        self._note(message)


def overhead_ms(
    listener: Listener, executor: SingleThreadedExecutor, image: np.ndarray, stamp: int
) -> float:
    """Send one image and wait for all of its outputs."""
    message = conversions.image_message(Image().header, "rgb8", image)
    message.header.stamp = conversions.time_message(stamp)
    sent = time.perf_counter()
    listener.camera.publish(message)
    while len(listener.arrived[stamp]) < listener.outputs:
        executor.spin_once(timeout_sec=0.1)
        if time.perf_counter() - sent > TIMEOUT_S:
            raise TimeoutError(f"outputs of stamp {stamp} did not come within {TIMEOUT_S:g} s")
    return (listener.arrived[stamp][-1] - sent) * 1e3 - listener.inference_ms[stamp]


def measure(frames: int, overlay: bool) -> dict[tuple[int, int], list[float]]:
    """Overhead in milliseconds of each frame, by image size (height, width)."""
    node = CameraNode(
        cli_args=["--ros-args", "-r", "~/image:=/camera"],
        parameter_overrides=[Parameter("autostart", value=True)],
    )
    listener, executor = Listener(overlay), SingleThreadedExecutor()
    for member in (node, listener):
        executor.add_node(member)
    start(node)
    deadline = time.monotonic() + TIMEOUT_S
    while not listener.camera.get_subscription_count() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    street, times = SyntheticStreet(7, 288, 480), defaultdict(list)
    for t in range(frames + WARM_UP):
        picture = street.frame(t).image
        for i, size in enumerate(SIZES):
            image = cv2.resize(picture, size[::-1])
            stamp = 1_000_000_000 + (t * len(SIZES) + i) * 30_000_000
            times[size].append(overhead_ms(listener, executor, image, stamp))
    executor.shutdown()
    node.destroy_node()
    listener.destroy_node()
    return {size: values[WARM_UP:] for size, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    rclpy.init()
    for overlay in (False, True):
        print("with overlay" if overlay else "instances, panoptic and semantic image")
        for (height, width), values in measure(args.frames, overlay).items():
            p50, p90 = np.percentile(values, (50, 90))
            print(f"  {f'{width}x{height}':>10}  p50 {p50:6.1f} ms   p90 {p90:6.1f} ms")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
