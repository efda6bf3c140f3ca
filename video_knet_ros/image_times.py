"""Times of images by the clock of a node, which may be simulated.

ROS has 0 for "not set": in a header without a stamp, and on a simulated clock that has not begun.
"""

from __future__ import annotations

from rclpy.clock import Clock
from sensor_msgs.msg import CompressedImage, Image

from . import conversions


class ImageTimes:
    """Reads a node's clock; any thread may use it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def stamp(self, message: Image | CompressedImage) -> int | None:
        """Nanoseconds by which an image that arrives now is tracked.

        Its stamp, or the time of its arrival if it has none; None if that is not known either.
        """
        now = self._clock.now().nanoseconds
        return conversions.nanoseconds(message.header.stamp) or now or None

    def age_ms(self, message: Image | CompressedImage) -> float:
        """Milliseconds from its stamp until now; NaN without a stamp, or a clock."""
        stamp = conversions.nanoseconds(message.header.stamp)
        return conversions.latency_ms(stamp, self._clock.now().nanoseconds)

    def simulated(self) -> float | None:
        """Seconds on /clock, 0 before it begins; None unless the node goes by simulated time."""
        return self._clock.now().nanoseconds / 1e9 if self._clock.ros_time_is_active else None
