#!/usr/bin/env python3
"""Run the video source and the camera node as robots do, two processes talking over DDS, and record
what comes out: `out/overlay.mp4`, some pictures, and a report.

    scripts/demo.py                          the synthetic street
    scripts/demo.py --video drive.mp4 --seconds 30
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstance, TrackedInstanceArray

from video_knet_core.visualize import OverlayVideo, side_by_side
from video_knet_ros.conversions import nanoseconds, to_rgb

PACKAGE = "video_knet_ros"
START_TIMEOUT_S = 60.0
"""From starting the processes to the first result; a busy machine loads the model slowly."""
VIDEO_FPS = 20.0
LONGEST_STILL_S = 5.0
"""Seconds for which the video shows one overlay at most."""
PICTURES = 4
REMEMBERED = 60
"""Messages kept while the others of the same stamp are awaited."""
STATES = {
    TrackedInstance.TENTATIVE: "tentative",
    TrackedInstance.CONFIRMED: "confirmed",
    TrackedInstance.COASTED: "coasted",
}


class DemoError(Exception):
    """The demo cannot show what it should; the message says why."""


@dataclass
class Statistics:
    """What was seen of the node's results."""

    images: int = 0
    tables: int = 0
    skipped: int = 0
    compared: int = 0
    """Frames whose label image was compared with their table."""
    disagreements: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    tracks: dict[tuple[int, int], TrackedInstance] = field(default_factory=dict)
    """The last row of each track, by epoch and id."""
    first: float = 0.0
    last: float = 0.0
    """Times of the first and the last table, in seconds of the steady clock."""

    def add_table(self, table: TrackedInstanceArray) -> None:
        """Count one table."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.tables += 1
        self.skipped += table.skipped
        self.latency_ms.append(table.latency_ms)
        self.inference_ms.append(table.inference_ms)
        for row in table.instances:
            if row.track_id:
                self.tracks[table.tracker_epoch, row.track_id] = row

    def rate(self) -> float:
        """Results per second."""
        return (self.tables - 1) / max(self.last - self.first, 1e-3)

    def progress(self, seconds: float) -> str:
        """One line on how it goes."""
        if not self.tables:
            return f"waiting for the first result ({self.images} images sent)"
        return (
            f"{self.last - self.first:5.1f} of {seconds:g} s, {self.tables} results, "
            f"{self.rate():.1f}/s, latency {self.latency_ms[-1]:.0f} ms, skipped {self.skipped}"
        )


class Recorder(Node):
    """Subscribes to the images and to what the camera node makes of them."""

    def __init__(self, out: Path, video: OverlayVideo, seconds: float) -> None:
        super().__init__("demo_recorder")
        self.statistics = Statistics()
        self._out, self._video = out, video
        self._picture_times = [seconds * (i + 0.5) / PICTURES for i in range(PICTURES)]
        self.pictures: list[Path] = []
        self._images: dict[int, Image] = {}
        self._labels: dict[int, Image] = {}
        self._tables: dict[int, TrackedInstanceArray] = {}
        self._video_start: int | None = None
        self._video_frames = 0
        qos = QoSProfile(depth=10)
        self.create_subscription(Image, "/camera/image_raw", self._on_image, qos)
        self.create_subscription(Image, "/video_knet/overlay/image", self._on_overlay, qos)
        self.create_subscription(Image, "/video_knet/panoptic/image", self._on_labels, qos)
        self.create_subscription(TrackedInstanceArray, "/video_knet/instances", self._on_table, qos)

    def _on_image(self, message: Image) -> None:
        self.statistics.images += 1
        _remember(self._images, message)

    def _on_table(self, message: TrackedInstanceArray) -> None:
        self.statistics.add_table(message)
        _remember(self._tables, message)
        self._compare(_stamp(message))

    def _on_labels(self, message: Image) -> None:
        _remember(self._labels, message)
        self._compare(_stamp(message))

    def _compare(self, stamp: int) -> None:
        """Compare label image and table of `stamp`, once both are here."""
        if stamp not in self._labels or stamp not in self._tables:
            return
        reason = disagreement(self._labels.pop(stamp), self._tables.pop(stamp))
        self.statistics.compared += 1
        if reason:
            self.statistics.disagreements.append(f"stamp {stamp}: {reason}")

    def _on_overlay(self, message: Image) -> None:
        overlay, stamp = to_rgb(message), _stamp(message)
        self._write_video(overlay, stamp)
        image = self._images.get(stamp)
        number = len(self.pictures)
        elapsed = self.statistics.last - self.statistics.first
        if image is not None and number < PICTURES and elapsed >= self._picture_times[number]:
            path = self._out / f"picture_{number + 1}.png"
            picture = side_by_side(to_rgb(image), overlay)
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            self.pictures.append(path)

    def _write_video(self, overlay: NDArray[np.uint8], stamp: int) -> None:
        """Show each overlay until the next one's time has come, so that the video runs true."""
        if self._video_start is None:
            self._video_start = stamp
        due = round((stamp - self._video_start) * 1e-9 * VIDEO_FPS)
        if not 0 <= due - self._video_frames <= LONGEST_STILL_S * VIDEO_FPS:  # the clock was set
            due = self._video_frames
            self._video_start = stamp - round(due / VIDEO_FPS * 1e9)
        while self._video_frames <= due:
            self._video.write(overlay)
            self._video_frames += 1


def _stamp(message: Image | TrackedInstanceArray) -> int:
    return nanoseconds(message.header.stamp)


def _remember(messages: dict, message: Image | TrackedInstanceArray) -> None:
    messages[_stamp(message)] = message
    while len(messages) > REMEMBERED:
        del messages[next(iter(messages))]


def disagreement(labels: Image, table: TrackedInstanceArray) -> str:
    """How labels and areas of image and table of one frame differ; empty if they agree."""
    pixels = np.frombuffer(labels.data, "<u2")
    values, counts = np.unique(pixels[pixels > 0], return_counts=True)
    in_image = dict(zip(values.tolist(), counts.tolist(), strict=True))
    in_table = {row.label: row.area for row in table.instances if row.label}
    if in_image == in_table:
        return ""
    return f"label areas are {in_image} in the image and {in_table} in the table"


@contextmanager
def executable(name: str, log: Path, *ros_args: str) -> Iterator[subprocess.Popen]:
    """An executable of the package, as `ros2 run` starts it; its output goes to `log`."""
    program = Path(get_package_prefix(PACKAGE), "lib", PACKAGE, name)
    if not program.exists():
        raise DemoError(f"{program} is missing: build the package first (make setup)")
    with log.open("w") as output:
        command = [str(program), "--ros-args", *ros_args]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def play(
    recorder: Recorder, processes: dict[str, tuple[subprocess.Popen, Path]], seconds: float
) -> None:
    """Spin until there are `seconds` of results; DemoError if a process ends or nothing comes."""
    statistics = recorder.statistics
    deadline = time.monotonic() + START_TIMEOUT_S
    printed = 0.0
    while not statistics.tables or time.monotonic() < statistics.first + seconds:
        rclpy.spin_once(recorder, timeout_sec=0.1)
        for name, (process, log) in processes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with code {process.returncode}:\n{_tail(log)}")
        if not statistics.tables and time.monotonic() > deadline:
            logs = "\n".join(_tail(log) for _, log in processes.values())
            raise DemoError(
                f"no result within {START_TIMEOUT_S:g} s, "
                f"{statistics.images} images were sent; the processes say:\n{logs}"
            )
        if time.monotonic() - printed > (0.5 if sys.stdout.isatty() else 5.0):
            printed = time.monotonic()
            end = "\r" if sys.stdout.isatty() else "\n"
            print(f"{statistics.progress(seconds):<78}", end=end, flush=True)
    print()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-8:])


def report(statistics: Statistics) -> None:
    """Print rate, latency, tracks and the comparison of labels with tables."""
    p50, p90 = np.nanpercentile(statistics.latency_ms, [50, 90])
    print(f"rate       {statistics.rate():.1f} results/s ({statistics.tables} results)")
    print(f"latency    {p50:.0f} ms median, {p90:.0f} ms for 90 %, from stamp to publishing")
    print(f"inference  {np.median(statistics.inference_ms):.0f} ms median")
    print(f"skipped    {statistics.skipped} images, because a newer one had come")
    agreeing = statistics.compared - len(statistics.disagreements)
    print(f"agreement  of label image and table: {agreeing} of {statistics.compared} frames")
    print(f"tracks     {len(statistics.tracks)}")
    if statistics.tracks:
        print(f"  {'id':>5}  {'class':<12} {'frames':>6}  last state")
    rows = sorted(statistics.tracks.values(), key=lambda row: -row.age)
    for row in rows[:20]:
        name, state = row.class_name, STATES[row.state]
        print(f"  {row.track_id:>5}  {name:<12} {row.age:>6}  {state}")
    if len(rows) > 20:
        print(f"  ... and {len(rows) - 20} shorter ones")


def prepare_environment() -> None:
    """A domain that nobody else uses, this machine only, images through shared memory."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    profile = Path(get_package_share_directory(PACKAGE), "config", "fastdds_large_images.xml")
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))


def run(video: str, seconds: float, model: str, out: Path) -> None:
    """The demo; DemoError if it does not show what it should."""
    prepare_environment()
    out.mkdir(parents=True, exist_ok=True)
    node_log, source_log = out / "camera_node.log", out / "video_source.log"
    node_args = ["-r", "~/image:=/camera/image_raw", "-p", f"model:='{model}'"]
    source_args = ["-p", f"source:='{video}'"]
    rclpy.init()
    with (
        OverlayVideo(out / "overlay.mp4", VIDEO_FPS) as overlay_video,
        executable("camera_node", node_log, *node_args) as node,
        executable("video_source", source_log, *source_args) as source,
    ):
        recorder = Recorder(out, overlay_video, seconds)
        processes = {"camera_node": (node, node_log), "video_source": (source, source_log)}
        play(recorder, processes, seconds)
    report(recorder.statistics)
    print(f"files      {out / 'overlay.mp4'}, {', '.join(p.name for p in recorder.pictures)}")
    if recorder.statistics.disagreements:
        raise DemoError(f"labels and tables disagree: {recorder.statistics.disagreements[0]}")
    if not recorder.statistics.compared or not recorder.pictures:
        raise DemoError("no label image or no overlay came together with its table")


def main() -> int:
    """Exit code 0 if results came and agree, 1 with the reason if not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--video",
        default="synthetic:1",
        help="video file, image folder, webcam index or synthetic:SEED (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="default: %(default)s")
    parser.add_argument("--model", default="", help="exported model; default: the shipped one")
    parser.add_argument("--out", type=Path, default=Path("out"), help="default: %(default)s")
    args = parser.parse_args()
    try:
        run(args.video, args.seconds, args.model, args.out)
    except PackageNotFoundError as error:
        print(f"demo: {error}: source the overlay first (make setup)", file=sys.stderr)
        return 1
    except (DemoError, OSError, ValueError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
