#!/usr/bin/env python3
"""Run the video source and the camera node as robots do, two processes connected by DDS, and record
the results: `out/overlay.mp4`, some pictures, and a report.

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
from functools import partial
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
from video_knet_ros.msg import TrackedInstance, TrackedInstanceArray, TrackedObjectArray

from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.output_files import expanded, refuse_inputs
from video_knet_core.overlay_video import OverlayVideo
from video_knet_core.visualize import track_color
from video_knet_ros.ros_compat import LOCALHOST_ONLY, PROFILES_VARIABLE, PROFILES_VARIABLES

PACKAGE = "video_knet_ros"
START_TIMEOUT_S = 60.0
"""From starting the processes to the first result; a busy machine loads the model slowly."""
VIDEO_FPS = 20.0
"""Usual rate, for the encoder; each overlay is shown at its stamp."""
PICTURES = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX
MAX_INCOMPLETE = 60
"""Frames kept while some of their messages have not arrived."""
TOPICS = {
    "/camera/image_raw": Image,
    "/video_knet/instances": TrackedInstanceArray,
    "/video_knet/panoptic/image": Image,
    "/video_knet/overlay/image": Image,
}
OBJECTS = "/video_knet/objects"
"""Published if there is a camera info, and depth or the height of the camera."""
SPATIAL_INPUTS = {"depth": "depth/image_raw", "camera_info": "camera_info"}
"""Inputs of the node, and their topics below /camera."""
METRES = 40.0
"""That the view from above shows ahead."""
STATES = ("tentative", "confirmed", "coasted")


class DemoError(Exception):
    """The demo cannot show what it should; the message is the reason."""


class Recorder(Node):
    """Subscribes to images and results, and records each frame all of whose messages arrive."""

    def __init__(self, out: Path, video: OverlayVideo, seconds: float, spatial: bool) -> None:
        super().__init__("demo_recorder")
        self._topics = TOPICS | ({OBJECTS: TrackedObjectArray} if spatial else {})
        self.ranges: list[float] = []
        """Of the objects that were measured in a frame, in metres."""
        self._out, self._video, self._seconds = out, video, seconds
        self._incomplete: dict[int, dict] = {}
        self.images = self.frames = 0
        self.tables: list[TrackedInstanceArray] = []
        self.times: list[float] = []
        """At which the tables arrived, in seconds."""
        self.disagreements: list[str] = []
        self.pictures: list[Path] = []
        for topic, kind in self._topics.items():
            self.create_subscription(
                kind, topic, partial(self._on_message, topic), QoSProfile(depth=10)
            )

    def _on_message(
        self, topic: str, message: Image | TrackedInstanceArray | TrackedObjectArray
    ) -> None:
        self.images += topic == "/camera/image_raw"
        if isinstance(message, TrackedInstanceArray):
            self.tables.append(message)
            self.times.append(time.monotonic())
        stamp = nanoseconds(message.header.stamp)
        frame = self._incomplete.setdefault(stamp, {})
        frame[topic] = message
        if len(frame) == len(self._topics):
            del self._incomplete[stamp]
            self._record(stamp, *(frame[name] for name in self._topics))
        while len(self._incomplete) > MAX_INCOMPLETE:
            del self._incomplete[next(iter(self._incomplete))]

    def _record(
        self,
        stamp: int,
        image: Image,
        table: TrackedInstanceArray,
        labels: Image,
        overlay: Image,
        objects: TrackedObjectArray | None = None,
    ) -> None:
        self.frames += 1
        values, counts = np.unique(np.frombuffer(labels.data, "<u2"), return_counts=True)
        in_image = {v: n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v}
        in_table = {row.label: row.area for row in table.instances if row.label}
        if in_image != in_table:
            self.disagreements.append(f"stamp {stamp}: areas {in_image} in the image, {in_table}")
        drawn, number = to_rgb(overlay), len(self.pictures)
        if objects is not None:
            self.ranges += [row.range for row in objects.objects if not row.predicted]
        self._video.write(drawn, stamp)
        if self.elapsed >= self._seconds * (number + 0.5) / PICTURES and number < PICTURES:
            path = self._out / f"picture_{number + 1}.png"
            parts = [to_rgb(image), drawn]
            if objects is not None:
                parts.append(seen_from_above(objects, drawn.shape[0]))
            cv2.imwrite(str(path), np.hstack(parts)[..., ::-1])
            self.pictures.append(path)

    @property
    def elapsed(self) -> float:
        """Seconds from the first to the last table."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    @property
    def rate(self) -> float:
        """Results per second."""
        return (len(self.tables) - 1) / max(self.elapsed, 1e-3)

    def progress(self) -> str:
        """One line on how far it is."""
        if not self.tables:
            return f"waiting for the first result ({self.images} images sent)"
        return (
            f"{self.elapsed:5.1f} of {self._seconds:g} s, {len(self.tables)} results, "
            f"{self.rate:.1f}/s, latency {self.tables[-1].latency_ms:.0f} ms"
        )

    def report(self) -> None:
        """Print rate, latency, tracks and the comparison of labels with tables."""
        p50, p90 = np.nanpercentile([table.latency_ms for table in self.tables], [50, 90])
        inference = np.median([table.inference_ms for table in self.tables])
        print(f"rate       {self.rate:.1f} results/s ({len(self.tables)} results)")
        print(f"latency    {p50:.0f} ms median, {p90:.0f} ms for 90 %, from stamp to publishing")
        print(f"inference  {inference:.0f} ms median")
        print(f"skipped    {sum(t.skipped for t in self.tables)} images, replaced by newer ones")
        agreeing = self.frames - len(self.disagreements)
        print(f"agreement  of label image and table: {agreeing} of {self.frames} frames")
        if self.ranges:
            near, far = np.quantile(self.ranges, [0.1, 0.9])
            print(
                f"metres     {len(self.ranges)} ranges measured, most of {near:.0f} to {far:.0f} m"
            )
        tracks: dict[tuple[int, int], TrackedInstance] = {
            (table.tracker_epoch, row.track_id): row
            for table in self.tables
            for row in table.instances
            if row.track_id
        }
        print(f"tracks     {len(tracks)}\n     id  class        frames  last state")
        rows = sorted(tracks.values(), key=lambda row: -row.age)
        for row in rows[:20]:
            state = STATES[row.state]
            print(f"  {row.track_id:>5}  {row.class_name:<12} {row.age:>6}  {state}")
        if len(rows) > 20:
            print(f"  ... and {len(rows) - 20} shorter ones")
        print(f"files      {self._out / 'overlay.mp4'}, {', '.join(p.name for p in self.pictures)}")


def seen_from_above(objects: TrackedObjectArray, size: int) -> NDArray[np.uint8]:
    """RGB [size, size, 3]: boxes and velocities in the frame of the camera, which is below."""
    picture = np.full((size, size, 3), 250, np.uint8)
    scale = size / METRES

    def pixel(x: float, z: float) -> tuple[int, int]:
        return round(size / 2 + scale * x), round(size - 1 - scale * z)

    for distance in range(10, int(METRES), 10):
        cv2.circle(picture, pixel(0, 0), round(scale * distance), (215, 215, 215), 1, cv2.LINE_AA)
        place = pixel(0, distance)
        cv2.putText(picture, f"{distance} m", place, FONT, 0.35, (150, 150, 150), 1, cv2.LINE_AA)
    for row in objects.objects:
        center, half, color = row.box_center, row.size, track_color(row.track_id)
        corners = (
            pixel(center.x + side * max(half.x, 0.4) / 2, center.z + side * max(half.z, 0.4) / 2)
            for side in (-1, 1)
        )
        cv2.rectangle(picture, *corners, color, 1 if row.predicted else -1)
        if not np.isnan(row.velocity.x):
            tip = pixel(center.x + row.velocity.x, center.z + row.velocity.z)
            cv2.arrowedLine(picture, pixel(center.x, center.z), tip, (60, 60, 60), 1, cv2.LINE_AA)
        name = f"{row.class_name} {row.track_id}"
        place = pixel(center.x + 0.5, center.z + 0.5)
        cv2.putText(picture, name, place, FONT, 0.35, (30, 30, 30), 1, cv2.LINE_AA)
    return picture


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


def play(recorder: Recorder, processes: dict[Path, subprocess.Popen], seconds: float) -> None:
    """Spin until there are `seconds` of results; DemoError if a process ends or nothing arrives.

    Args:
        recorder: subscribed to the results.
        processes: the executables, by log file.
        seconds: from the first result on.
    """
    deadline, printed = time.monotonic() + START_TIMEOUT_S, 0.0
    while not recorder.times or time.monotonic() < recorder.times[0] + seconds:
        rclpy.spin_once(recorder, timeout_sec=0.1)
        for log, process in processes.items():
            if process.poll() is not None:
                raise DemoError(f"{log.stem} ended with code {process.returncode}:\n{_tail(log)}")
        if not recorder.tables and time.monotonic() > deadline:
            logs = "\n".join(map(_tail, processes))
            words = f"no result within {START_TIMEOUT_S:g} s, {recorder.images} images were sent"
            raise DemoError(f"{words}; the logs end with:\n{logs}")
        if time.monotonic() - printed > (0.5 if sys.stdout.isatty() else 5.0):
            printed, end = time.monotonic(), "\r" if sys.stdout.isatty() else "\n"
            print(f"{recorder.progress():<78}", end=end, flush=True)
    print()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-8:])


def run(video: str, seconds: float, model: str, out: Path) -> None:
    """The demo; DemoError if it does not show what it should."""
    profile = Path(get_package_share_directory(PACKAGE), "config", "fastdds_large_images.xml")
    if not any(name in os.environ for name in PROFILES_VARIABLES):
        os.environ[PROFILES_VARIABLE] = str(profile)
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(215, 231)))
    for name, value in LOCALHOST_ONLY.items():
        os.environ.setdefault(name, value)
    refuse_inputs([out / "overlay.mp4"], [expanded(video)])
    out.mkdir(parents=True, exist_ok=True)
    node_log, source_log = out / "camera_node.log", out / "video_source.log"
    node_args = ["-r", "~/image:=/camera/image_raw", "-p", f"model:='{model}'"]
    for name, topic in SPATIAL_INPUTS.items():
        node_args += ["-r", f"~/{name}:=/camera/{topic}"]
    rclpy.init()
    with (
        OverlayVideo(out / "overlay.mp4", VIDEO_FPS) as overlay_video,
        executable("camera_node", node_log, *node_args) as node,
        executable("video_source", source_log, "-p", f"source:='{video}'") as source,
    ):
        recorder = Recorder(out, overlay_video, seconds, video.startswith("synthetic"))
        play(recorder, {node_log: node, source_log: source}, seconds)
    recorder.report()
    if recorder.disagreements:
        raise DemoError(f"labels and tables disagree: {recorder.disagreements[0]}")
    if not recorder.pictures:
        raise DemoError("no frame had an image, a label image, an overlay and a table")


def main() -> int:
    """Exit code 0 if results arrive and agree, 1 with the reason if not."""
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
