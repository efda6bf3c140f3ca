#!/usr/bin/env python3
"""Twenty hard minutes for the camera node: does it leak, lose a frame, or give an id twice?

    source scripts/env.sh && python benchmarks/soak.py [--minutes 20] [--video FILE ...]

The node runs as users run it, in a process of its own. A camera sends images at 30 Hz, from the
synthetic street and from the videos by turns; every 20 s it goes and comes back with other
reliability and from another source, so the image size changes too. Readers of random outputs come
and go, and parameters change. Fails if the node ends, grows by more than 10 MB after the first
minute, gives an id twice within an epoch, or if a frame is neither published nor counted.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.data.frames import open_frames
from video_knet_ros import conversions

RATE = 30.0
FRAMES = 90
"""Kept of each source."""
GROWTH_MB = 10.0
CAMERA_S = 20.0
"""Life of a camera; all sources have their turn within the first minute."""
CHANGES = (
    ("max_rate", (0.0, 5.0, 15.0)),
    ("max_age_ms", (0.0, 500.0)),
    ("overlay_opacity", (0.2, 0.8)),
    ("rle", (True, False)),
    ("max_coast_s", (0.5, 2.0)),
    ("birth_score", (0.3, 0.5)),
)
OUTPUTS = ("panoptic/image", "semantic/image", "overlay/image")
NODE = "import sys; from video_knet_ros.node import main; sys.exit(main())"


@dataclass
class Ledger:
    """What must hold of the tables, in the order in which they come."""

    tables: int = 0
    dropped: int = 0
    ended: set[tuple[int, int]] = field(default_factory=set)
    """Epoch and track id."""
    born: set[tuple[int, int]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def enter(self, table: TrackedInstanceArray) -> None:
        """Check one table against those before it."""
        if table.sequence != self.tables:
            self.faults.append(f"table {table.sequence} came where {self.tables} was due")
        self.tables = table.sequence + 1
        self.dropped += table.skipped
        epoch = table.tracker_epoch
        names = [(epoch, row.track_id) for row in table.instances if row.track_id]
        born = {(epoch, track_id) for track_id in table.born}
        if len(names) != len(set(names)) or self.ended & set(names) or self.born & born:
            self.faults.append(f"epoch {epoch}, table {table.sequence}: an id came twice")
        self.born |= born
        self.ended |= {(epoch, track_id) for track_id in table.ended}


class Tester(Node):
    """Camera, readers and whoever changes parameters."""

    def __init__(self, sources: list[list[NDArray]]) -> None:
        super().__init__("tester")
        self._sources = itertools.cycle(sources)
        self._reliability = itertools.cycle(
            ReliabilityPolicy[n] for n in ("RELIABLE", "BEST_EFFORT")
        )
        self._frames: Iterator[NDArray] = iter(())
        self._camera = self._reader = None
        self.ledger, self.sent = Ledger(), 0
        self.counts: dict[str, str] = {}
        qos = QoSProfile(depth=50)
        table = "/video_knet/instances"
        self.create_subscription(TrackedInstanceArray, table, self.ledger.enter, qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._note, 10)
        self._parameters = self.create_client(SetParameters, "/video_knet/set_parameters")
        self.restart_camera()
        self._duties = [
            self.create_timer(1 / RATE, self._send),
            self.create_timer(CAMERA_S, self.restart_camera),
            self.create_timer(7.0, self._change_reader),
            self.create_timer(3.0, self._change_parameter),
        ]

    def restart_camera(self) -> None:
        """Another camera, of other reliability and perhaps size, takes the place of the last."""
        if self._camera is not None:
            self.destroy_publisher(self._camera)
        qos = QoSProfile(depth=2, reliability=next(self._reliability))
        self._camera = self.create_publisher(Image, "/video_knet/image", qos)
        self._frames = itertools.cycle(next(self._sources))

    def stop(self) -> None:
        """No more images, nor any new camera."""
        for timer in self._duties:
            timer.cancel()

    def is_settled(self) -> bool:
        """Whether the diagnostics tell of a second without images in which nothing was left."""
        idle = self.counts["fps_in"] == self.counts["fps_out"] == "0.0"
        return idle and int(self.counts["processed"]) == self.ledger.tables

    def _send(self) -> None:
        message = conversions.image_message(Image().header, "rgb8", next(self._frames))
        message.header.stamp = self.get_clock().now().to_msg()
        self._camera.publish(message)
        self.sent += 1

    def _change_reader(self) -> None:
        if self._reader is not None:
            self.destroy_subscription(self._reader)
        topic = f"/video_knet/{random.choice(OUTPUTS)}"
        self._reader = self.create_subscription(Image, topic, lambda message: None, 2)

    def _change_parameter(self) -> None:
        name, values = random.choice(CHANGES)
        parameter = Parameter(name, value=random.choice(values)).to_parameter_msg()
        self._parameters.call_async(SetParameters.Request(parameters=[parameter]))

    def _note(self, message: DiagnosticArray) -> None:
        self.counts = {entry.key: entry.value for entry in message.status[0].values}


def resident_mb(process: subprocess.Popen) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def watch(process: subprocess.Popen, tester: Tester, minutes: float) -> list[float]:
    """Memory once a second; a line is printed each minute."""
    executor = SingleThreadedExecutor()
    executor.add_node(tester)
    memory, begin = [], time.monotonic()
    while time.monotonic() < begin + 60 * minutes and process.poll() is None:
        executor.spin_once(timeout_sec=0.05)
        seconds = int(time.monotonic() - begin)
        if seconds > len(memory):
            memory.append(resident_mb(process))
            if seconds % 60 == 0:
                print(seconds // 60, "min:", f"{memory[-1]:.1f} MB", tester.counts, flush=True)
    tester.stop()
    end = time.monotonic() + 30  # the last images, and diagnostics that tell of them
    while time.monotonic() < end and not tester.is_settled():
        executor.spin_once(timeout_sec=0.05)
    return memory


def verdict(process: subprocess.Popen, tester: Tester, memory: list[float]) -> list[str]:
    """What went wrong."""
    faults = list(tester.ledger.faults)
    if process.poll() is not None:
        faults.append(f"the node ended with {process.returncode}")
    growth = max(memory[60:]) - max(memory[:60]) if len(memory) > 60 else 0.0
    print(f"grew by {growth:.1f} MB after the first minute, {memory[-1]:.1f} MB at the end")
    if growth > GROWTH_MB:
        faults.append(f"grew by {growth:.1f} MB, allowed are {GROWTH_MB:g}")
    count = {name: int(tester.counts[name]) for name in ("received", "processed", "failed")}
    dropped = sum(int(tester.counts[name]) for name in ("skipped", "limited", "expired"))
    print(f"sent {tester.sent}, {count}, dropped {dropped}, tables {tester.ledger.tables}")
    if count["received"] != count["processed"] + count["failed"] + dropped:
        faults.append("received is not processed + failed + dropped")
    if tester.ledger.tables != count["processed"]:
        faults.append(f"{count['processed']} processed but {tester.ledger.tables} tables")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--video", nargs="*", default=[], help="real videos, in turn")
    args = parser.parse_args()
    sources = [
        [frame[0] for frame in itertools.islice(open_frames(source, RATE), FRAMES)]
        for source in ("synthetic:3", *args.video, "synthetic:4")
    ]
    rclpy.init()
    process = subprocess.Popen([sys.executable, "-c", NODE])
    try:
        tester = Tester(sources)
        memory = watch(process, tester, args.minutes)
        faults = verdict(process, tester, memory)
    finally:
        process.terminate()
        process.wait(20)
    rclpy.try_shutdown()
    print("\n".join(faults) or "no fault")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
