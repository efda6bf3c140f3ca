#!/usr/bin/env python3
"""Twenty hard minutes for the camera node: does it leak, lose a frame, or give an id twice?

    source scripts/env.sh && python benchmarks/soak.py [--minutes 20] [--video FILE ...]

The node runs as users run it, in a process of its own. A camera sends images at 30 Hz, from the
synthetic street and from the videos by turns; every 20 s it goes and comes back with other
reliability, other stamps (true, some late, bunched, frozen) and from another source, so the image
size changes too. Readers of random outputs come and go, and parameters change; every fifth
camera publishes another type. The engine hangs once, for 8 s, and half-way the node is
restarted.

Fails if the node ends by itself, grows by more than 10 MB after its first two minutes, gives a pair
of epoch and track id twice (also across the restart), if a frame is neither published nor counted,
if diagnostics pause (also while the engine hangs), or if the hang or the other type is not
reported.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
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
from video_knet_ros.outputs import CONVERSIONS

RATE = 30.0
FRAMES = 90
"""Kept of each source."""
GROWTH_MB = 10.0
CAMERA_S = 20.0
"""Life of a camera."""
WARM_UP_S = 120
"""Memory is compared with that of this time, in which each kind of camera and each source come."""
CHANGES = (
    ("max_rate", (0.0, 5.0, 15.0)),
    ("max_age_ms", (0.0, 500.0)),
    ("overlay_opacity", (0.2, 0.8)),
    ("rle", (True, False)),
    ("max_coast_s", (0.5, 2.0)),
    ("birth_score", (0.3, 0.5)),
)
OUTPUTS = ("panoptic/image", "semantic/image", "overlay/image")
OTHER_TYPE = "another type"
CAMERAS = ("true", "late", "bunched", "frozen", OTHER_TYPE)
"""How a camera stamps its images; the last one publishes messages of another type instead."""
LATE_NS = 50_000_000
"""Every twentieth image of a "late" camera is stamped so much before its time."""
TICK_NS = 100_000_000
"""The images of a "bunched" camera that fall into one tick are stamped 1 ms apart."""
HANG_S = 8.0
PAUSE_S = 5.0
"""Diagnostics come every second; a longer pause than this is a fault, on a busy machine too."""
EXPECTED = frozenset({"inference_stuck", "wrong_type"})
"""Reasons that the diagnostics have to give at some time."""
COMPRESSED_CAMERA = """
import rclpy
from sensor_msgs.msg import CompressedImage
rclpy.init()
camera = rclpy.create_node("compressed_camera")
publisher = camera.create_publisher(CompressedImage, "/video_knet/image", 2)
camera.create_timer(0.1, lambda: publisher.publish(CompressedImage(format="jpeg")))
try:
    rclpy.spin(camera)
except Exception:
    if rclpy.ok():
        raise  # else it was ended in the middle of a message
"""
"""In a process of its own: one process cannot publish two types on one topic."""
NODE = """
import os, sys, time
from video_knet_core.engine.selector import open_runtime
from video_knet_ros import lifecycle, node, process
from video_knet_ros.engines import EnginePool

class HangingRuntime:
    def __init__(self, *args, **options):
        self._runtime = open_runtime(*args, **options)
    def __getattr__(self, name):
        return getattr(self._runtime, name)
    def step(self, image, state):
        while os.path.exists(sys.argv[1]):
            time.sleep(0.05)
        return self._runtime.step(image, state)

sys.exit(process.run(lambda: [node.CameraNode(EnginePool(HangingRuntime))], None))
"""
"""The `camera_node` executable, with an engine that hangs while a file exists."""


@dataclass
class Ledger:
    """What must hold of the tables, in the order in which they come."""

    tables: int = 0
    """Of the present life of the node."""
    dropped: int = 0
    epoch: int | None = None
    epochs: set[int] = field(default_factory=set)
    ended: set[tuple[int, int]] = field(default_factory=set)
    born: set[tuple[int, int]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def enter(self, table: TrackedInstanceArray) -> None:
        """Check one table against those before it."""
        if table.sequence != self.tables:
            self.faults.append(f"expected table {self.tables}, got {table.sequence}")
        self.tables = table.sequence + 1
        self.dropped += table.skipped
        self.epoch = table.tracker_epoch
        self.epochs.add(self.epoch)
        ids = self._names(row.track_id for row in table.instances if row.track_id)
        born = self._names(table.born)
        duplicate = len(ids) != len(set(ids))
        if duplicate or self.ended & set(ids) or self.born & set(born):
            self.faults.append(f"epoch {self.epoch}, table {table.sequence}: an id came twice")
        self.born |= set(born)
        self.ended |= set(self._names(table.ended))

    def _names(self, track_ids: Iterable[int]) -> list[tuple[int, int]]:
        return [(self.epoch or 0, int(track_id)) for track_id in track_ids]


class Tester(Node):
    """Camera, subscribers of the outputs, and a client that changes parameters."""

    def __init__(self, sources: list[list[NDArray]]) -> None:
        super().__init__("tester")
        self._sources = itertools.cycle(sources)
        self._reliability = itertools.cycle(
            ReliabilityPolicy[n] for n in ("RELIABLE", "BEST_EFFORT")
        )
        self._patterns = itertools.cycle(CAMERAS)
        self._frames: Iterator[NDArray] = iter(())
        self._camera = self._reader = None
        self._compressed_camera: subprocess.Popen | None = None
        self.ledger, self.sent = Ledger(), 0
        self.counts: dict[str, str] = {}
        self.pattern = ""
        """How the present camera stamps its images."""
        self.diagnosed: float | None = None
        """When the last diagnostics came; None before the first of a life."""
        self.pause = 0.0
        """Longest time between two diagnostics."""
        self.reported: set[str] = set()
        """Reasons that the diagnostics gave."""
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
        """Another camera, of other reliability, stamps and perhaps size, replaces the last."""
        self.stop_camera()
        self.pattern, self._began = next(self._patterns), self._now()
        if self.pattern == OTHER_TYPE:
            self._compressed_camera = subprocess.Popen([sys.executable, "-c", COMPRESSED_CAMERA])
            return
        qos = QoSProfile(depth=2, reliability=next(self._reliability))
        self._camera = self.create_publisher(Image, "/video_knet/image", qos)
        self._frames = itertools.cycle(next(self._sources))

    def stop_camera(self) -> None:
        """The last camera leaves."""
        if self._camera is not None:
            self.destroy_publisher(self._camera)
            self._camera = None
        if self._compressed_camera is not None:
            self._compressed_camera.terminate()
            self._compressed_camera.wait(20)
            self._compressed_camera = None

    def pause_duties(self) -> None:
        """No more images, nor any new camera."""
        for timer in self._duties:
            timer.cancel()

    def resume_duties(self) -> None:
        """Continue after `pause_duties`, with a node that was started again."""
        self.ledger.tables, self.counts, self.diagnosed = 0, {}, None
        for timer in self._duties:
            timer.reset()

    def is_settled(self) -> bool:
        """Whether a second without images was reported in which nothing was left to do."""
        idle = self.counts.get("fps_in") == self.counts.get("fps_out") == "0.0"
        return idle and int(self.counts["processed"]) == self.ledger.tables

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _stamp(self) -> int:
        """Nanoseconds, as the present camera stamps its next image."""
        now = self._now()
        if self.pattern == "late" and self.sent % 20 == 0:
            return now - LATE_NS
        if self.pattern == "bunched":
            return now - now % TICK_NS + self.sent % 3 * 1_000_000
        return self._began if self.pattern == "frozen" else now

    def _send(self) -> None:
        if self._camera is None:
            return
        message = CONVERSIONS.image_message(Image().header, "rgb8", next(self._frames))
        message.header.stamp = CONVERSIONS.time_message(self._stamp())
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
        self.reported.add(self.counts["reason"])
        now = time.monotonic()
        if self.diagnosed is not None:
            self.pause = max(self.pause, now - self.diagnosed)
        self.diagnosed = now


class Life:
    """One process of the node, from start to end."""

    def __init__(self, tester: Tester, executor: SingleThreadedExecutor, flag: Path) -> None:
        self._tester, self._executor, self._flag = tester, executor, flag
        self._process = subprocess.Popen([sys.executable, "-c", NODE, str(flag)])
        self.memory: list[float] = []
        """Resident memory in MB, once a second."""

    def run(self, minutes: float, hang_at: float) -> None:
        """Spin for `minutes`, with one line a minute.

        The engine hangs with the first camera of true stamps after the minute `hang_at`: its images
        are not too old to be processed.
        """
        begin, hang_ends = time.monotonic(), math.inf
        while (seconds := time.monotonic() - begin) < 60 * minutes and self._is_alive():
            self._executor.spin_once(timeout_sec=0.05)
            if hang_ends == math.inf and seconds > 60 * hang_at and self._tester.pattern == "true":
                hang_ends = seconds + HANG_S
                self._flag.touch()
            if seconds > hang_ends:
                self._flag.unlink(missing_ok=True)
            if int(seconds) > len(self.memory):
                self.memory.append(resident_mb(self._process))
                if len(self.memory) % 60 == 0:
                    line = f"{len(self.memory) // 60} min: {self.memory[-1]:.1f} MB"
                    print(line, self._tester.counts, flush=True)

    def end(self) -> list[str]:
        """Let the last images be counted, stop the process as Ctrl-C does; what went wrong."""
        self._tester.pause_duties()
        end = time.monotonic() + 30
        while time.monotonic() < end and not self._tester.is_settled():
            self._executor.spin_once(timeout_sec=0.05)
        faults = [] if self._is_alive() else ["the node ended by itself"]
        self._process.send_signal(signal.SIGINT)
        if self._process.wait(20) != 0:
            faults.append(f"expected exit code 0, got {self._process.returncode}")
        return faults + self._growth() + balance(self._tester)

    def kill(self) -> None:
        """Leave no process behind."""
        self._process.kill()
        self._process.wait()

    def _is_alive(self) -> bool:
        return self._process.poll() is None

    def _growth(self) -> list[str]:
        memory = self.memory
        growth = max(memory[WARM_UP_S:], default=0.0) - max(memory[:WARM_UP_S])
        print(f"grew by {growth:.1f} MB after {WARM_UP_S} s, {memory[-1]:.1f} MB at the end")
        return [f"grew by {growth:.1f} MB, expected at most {GROWTH_MB:g}"] * (growth > GROWTH_MB)


def resident_mb(process: subprocess.Popen) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def balance(tester: Tester) -> list[str]:
    """Images of one life that were neither published nor counted."""
    counts = tester.counts
    count = {name: int(counts[name]) for name in ("received", "processed", "failed")}
    dropped = sum(int(counts[name]) for name in ("skipped", "limited", "expired", "late"))
    print(f"sent {tester.sent}, {count}, dropped {dropped}, tables {tester.ledger.tables}")
    faults = []
    if count["received"] != count["processed"] + count["failed"] + dropped:
        faults.append("received is not processed + failed + dropped")
    if tester.ledger.tables != count["processed"]:
        faults.append(f"{count['processed']} processed but {tester.ledger.tables} tables")
    return faults


def verdict(tester: Tester) -> list[str]:
    """What went wrong in both lives together."""
    faults = list(tester.ledger.faults)
    print(f"{len(tester.ledger.epochs)} epochs, {len(tester.ledger.born)} track ids")
    print(f"longest pause of diagnostics {tester.pause:.1f} s, reasons {sorted(tester.reported)}")
    if tester.pause > PAUSE_S:
        faults.append(f"diagnostics paused for {tester.pause:.1f} s")
    faults += [f"not reported: {reason}" for reason in sorted(EXPECTED - tester.reported)]
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
    tester, executor = Tester(sources), SingleThreadedExecutor()
    executor.add_node(tester)
    half, faults = args.minutes / 2, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            life = Life(tester, executor, Path(folder) / "hang")
            try:
                # the engine hangs in the first life only, with an image under way
                life.run(half, hang_at=half / 2 if number == 0 else math.inf)
                faults += life.end()
            finally:
                life.kill()
            tester.resume_duties()
    tester.stop_camera()
    faults += verdict(tester)
    rclpy.try_shutdown()
    print("\n".join(faults) or "no fault")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
