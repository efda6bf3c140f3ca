"""The conversions of the core, bound to the message classes and the clock of rclpy."""

from __future__ import annotations

from array import array
from importlib import import_module
from importlib.util import find_spec

from rclpy.clock import Clock
from sensor_msgs.msg import CompressedImage, Image

from video_knet_core.messages.image_messages import ImageError as ImageError
from video_knet_core.messages.image_messages import to_rgb as to_rgb
from video_knet_core.messages.result_messages import Conversions, MessageTypes
from video_knet_core.messages.result_messages import latency_ms as latency_ms
from video_knet_core.messages.result_messages import nanoseconds as nanoseconds


def _sequence(code: str, data: memoryview) -> array:
    """rclpy takes an array as it is; an ndarray it would check value by value."""
    values = array(code)
    values.frombytes(data)
    return values


def has_type(name: str) -> bool:
    """Whether the package of a message type is installed; vision_msgs is optional."""
    return find_spec(name.partition("/")[0]) is not None


def _find(name: str) -> type:
    package, _, kind = name.split("/")
    found: type = getattr(import_module(f"{package}.msg"), kind)
    return found


CONVERSIONS = Conversions(MessageTypes(_find, _sequence))
"""To messages of rclpy."""
image_message = CONVERSIONS.image_message
time_message = CONVERSIONS.time_message


class ImageTimes:
    """Times of images by the clock of a node, which may be simulated; any thread may use it.

    ROS has 0 for "not set": in a header without a stamp, and on a simulated clock before it begins.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def stamp(self, message: Image | CompressedImage) -> int | None:
        """Nanoseconds by which an image that arrives now is tracked.

        Its stamp, or the time of its arrival if it has none; None if that is not known either.
        """
        now = self._clock.now().nanoseconds
        return nanoseconds(message.header.stamp) or now or None

    def age_ms(self, message: Image | CompressedImage) -> float:
        """Milliseconds from its stamp until now; NaN without a stamp, or a clock."""
        stamp = nanoseconds(message.header.stamp)
        return latency_ms(stamp, self._clock.now().nanoseconds)

    def simulated(self) -> float | None:
        """Seconds on /clock, 0 before it begins; None unless the node goes by simulated time."""
        return self._clock.now().nanoseconds / 1e9 if self._clock.ros_time_is_active else None
