"""A camera for people without one: plays a video file, an image folder, a webcam or the synthetic
street on `camera/image_raw`, stamped like a camera's images and at a constant rate.

A source that has more of its frames publishes that beside them, with the same stamps: depth on
`camera/depth/image_raw`, the camera on `camera/camera_info`, its pose and motion on `odometry`.

In simulated time that has not begun the stamps are 0, as those of any node."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from video_knet_core.data.frame_source import DEFAULT_FPS, View
from video_knet_core.data.frames import open_frames
from video_knet_core.image_files import FrameError
from video_knet_core.messages import view_messages
from video_knet_core.user_names import expand

from . import process
from .outputs import CONVERSIONS

MIN_RATE = 1e-6
"""Images per second: of slower ones no timer can have the period."""
PARAMETERS: dict[str, tuple[bool | float | str, str]] = {
    "source": ("synthetic", "Video file, image folder, webcam index, synthetic or synthetic:SEED"),
    "rate": (0.0, "Images per second; 0 = the video's own times"),
    "loop": (True, "Begin again when the video ends"),
    "frame_id": ("camera", "frame_id of the images"),
    "reliability": ("reliable", "QoS offered: reliable or best_effort"),
}
"""Default and description, by name."""


class Stamps:
    """Stamps of images at a constant rate, from a clock that may tick less often.

    Where the clock does not advance between two images they are a period apart, as far as it may be
    with its next tick. A clock that stands longer is paused: the stamps do not advance either.

    Args:
        period: nanoseconds between two images.
    """

    def __init__(self, period: int) -> None:
        self._period = period
        self._last = 0
        self._now: int | None = None
        self._tick = 0

    def next(self, now: int) -> int:
        """The stamp of an image that is sent when the clock shows `now`; both in nanoseconds."""
        if self._now and now > self._now:
            self._tick = now - self._now
        self._now = now
        if now < self._last - self._tick:  # it was set back: nothing is known of its ticks
            self._last, self._tick = now, 0
        elif now > self._last:
            self._last = now
        else:
            self._last = max(self._last, min(self._last + self._period, now + self._tick))
        return self._last


class VideoSource(Node):
    """Publishes the frames of a source until it ends, which ends the process with SystemExit."""

    def __init__(self, **kwargs) -> None:
        """FrameError if the source is missing or a parameter cannot be used."""
        super().__init__("video_source", **kwargs)
        for name, (default, description) in PARAMETERS.items():
            # 10 is taken for 10.0, and the webcam 0 for "0"
            descriptor = ParameterDescriptor(
                description=description, read_only=True, dynamic_typing=name in ("source", "rate")
            )
            self.declare_parameter(name, default, descriptor)
        value = {name: self.get_parameter(name).value for name in PARAMETERS}
        rate, profile = _rate(value["rate"]), _profile(value["reliability"])
        source = str(value["source"])
        self._loop, self._frame_id = value["loop"], value["frame_id"]
        self._frames = open_frames(expand(source), rate or DEFAULT_FPS)
        self._iterator = self._views()
        self._publisher = self.create_publisher(Image, "camera/image_raw", profile)
        self._depth, self._camera_info, self._odometry = self._space_publishers(profile)
        self._at_own_times = not rate and not self._frames.endless
        self._next_frame: View | None = None
        self._last: View | None = None
        self._due = time.monotonic_ns()
        rate = rate or self._frames.fps
        self._period = round(1e9 / rate)
        self._stamps = Stamps(self._period)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1 / rate, self._tick, clock=clock)
        self.get_logger().info(f"{source} at {rate:g} images/s on {self._publisher.topic_name}")

    def _space_publishers(self, profile: QoSProfile) -> tuple[Publisher | None, ...]:
        """Of depth, camera and odometry; None where the source does not have it."""
        first = next(self._frames.views(), None) if self._frames.intrinsics else None
        if first is None:
            return None, None, None
        topics = [
            (first.depth, Image, "camera/depth/image_raw"),
            (first.image, CameraInfo, "camera/camera_info"),
            (first.pose, Odometry, "odometry"),
        ]
        return tuple(
            None if value is None else self.create_publisher(kind, name, profile)
            for value, kind, name in topics
        )

    def _views(self) -> Iterator[View]:
        return self._frames.views(lambda: _has_subscribers(self._depth))

    def _tick(self) -> None:
        frame = self._next_frame or self._read()
        if frame is None:
            self.get_logger().info("the video has ended")
            raise SystemExit(0)
        stamp = self._stamps.next(self.get_clock().now().nanoseconds)
        if not stamp:
            self.get_logger().warning("simulated time has not begun: the stamps are 0", once=True)
        header = Header(stamp=CONVERSIONS.time_message(stamp), frame_id=self._frame_id)
        self._publisher.publish(CONVERSIONS.image_message(header, "rgb8", frame.image))
        self._publish_space(header, frame)
        self._last = frame
        if self._at_own_times:
            self._next_frame = self._read()
            step = self._next_frame.stamp - frame.stamp if self._next_frame else 0
            self._wait(step if step > 0 else self._period)

    def _publish_space(self, header: Header, view: View) -> None:
        """What has subscribers of depth, camera and odometry."""
        if view.depth is not None and self._depth and _has_subscribers(self._depth):
            self._depth.publish(view_messages.depth_image(CONVERSIONS, header, view.depth))
        camera = self._frames.intrinsics
        if camera and self._camera_info and _has_subscribers(self._camera_info):
            size = view.image.shape[:2]
            self._camera_info.publish(view_messages.camera_info(CONVERSIONS, header, camera, size))
        if view.pose is not None and self._odometry and _has_subscribers(self._odometry):
            self._odometry.publish(
                view_messages.view_odometry(CONVERSIONS, header, view, self._last)
            )

    def _wait(self, step: int) -> None:
        """Set the timer to `step` nanoseconds after the time at which this frame was due."""
        now = time.monotonic_ns()
        self._due = max(self._due + step, now)  # after a late frame the others keep their distances
        self._timer.timer_period_ns = max(self._due - now, 1)
        self._timer.reset()

    def _read(self) -> View | None:
        """The next frame; an error ends the process, whatever it is, with a line that names it."""
        try:
            frame = next(self._iterator, None)
            if frame is None and self._loop:
                self._iterator = self._views()
                frame = next(self._iterator, None)
            return frame
        except Exception as error:
            self.get_logger().fatal(f"no more images: {process.describe(error, FrameError)}")
            raise SystemExit(1) from None


def _has_subscribers(publisher: Publisher | None) -> bool:
    return publisher is not None and publisher.get_subscription_count() > 0


def _rate(value: object) -> float:
    if isinstance(value, (int, float)) and (value == 0 or MIN_RATE <= value < math.inf):
        return float(value)
    raise FrameError(f"rate: expected 0, or {MIN_RATE:g} images per second or more, got {value!r}")


def _profile(reliability: str) -> QoSProfile:
    if reliability not in ("reliable", "best_effort"):
        raise FrameError(f"reliability: expected reliable or best_effort, got {reliability!r}")
    return QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability.upper()])


def main(args: list[str] | None = None) -> int:
    """The `video_source` executable; see `process.run` for exit codes."""
    return process.run(lambda: [VideoSource()], args, FrameError)
