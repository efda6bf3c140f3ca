"""Which of the images that arrive are processed: at most so many a second, and of one camera."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image


class RateLimit:
    """Accepts at most so many images per second, evenly: not the first ones of each second."""

    SLACK = 0.1
    """Part of a period by which an image may be early, for cameras are not exact."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._due: float | None = None

    def restart(self) -> None:
        """Begin a new schedule with the next image."""
        self._due = None

    def accepts(self, rate: float) -> bool:
        """Whether an image that arrives now is processed at `rate` per second; 0 = all are.

        Another rate than the last one's begins a new schedule.
        """
        if rate != self._rate:
            self._rate, self._due = rate, None
        if rate <= 0:
            return True
        now, period = self._clock(), 1.0 / rate
        due = now if self._due is None else self._due
        if now < due - self.SLACK * period:
            return False
        # from the schedule, not from now, or each image that is late would slow the rate
        self._due = period + (due if now - due < period else now)
        return True


@dataclass(eq=False)
class _Camera:
    """The images of one camera so far."""

    kind: Hashable
    """`frame_id`, and size as far as the message has it."""
    stamp: int
    seen: float
    """Time of the last one."""

    def continues(self, kind: Hashable, stamp: int) -> bool:
        """Whether an image may be the next one: the tracker would be reset by another stamp."""
        return kind == self.kind and -0.5e9 <= stamp - self.stamp <= 5e9


class SingleCameraFilter:
    """Accepts the images of one camera when those of several alternate on one topic.

    The images of a camera have `frame_id` and size in common, and stamps that follow each other. A
    camera may change all of them, and change back; but when images of two alternate, those of one
    are dropped, or ids would be lost with each image.
    """

    HOLD_S = 2.0
    """Seconds without images after which a camera counts as gone."""
    MAX_CHANGES = 2
    """Changes of camera within `HOLD_S` that are followed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._current: _Camera | None = None
        self._cameras: list[_Camera] = []
        self._changes: deque[float] = deque(maxlen=self.MAX_CHANGES)

    def accepts(self, message: Image | CompressedImage, stamp: int) -> bool:
        """Whether an image that arrives now is processed; `stamp` in nanoseconds."""
        now = self._clock()
        size = (message.height, message.width) if isinstance(message, Image) else ()
        kind = (message.header.frame_id, *size)
        self._cameras = [c for c in self._cameras if now - c.seen <= self.HOLD_S]
        fitting = [camera for camera in self._cameras if camera.continues(kind, stamp)]
        camera = min(fitting, key=lambda camera: abs(stamp - camera.stamp), default=None)
        returns = camera is not None
        if camera is None:
            camera = _Camera(kind, stamp, now)
            self._cameras.append(camera)
        camera.stamp, camera.seen = max(camera.stamp, stamp), now
        if self._current in (None, camera):
            self._current = camera
            return True
        full = len(self._changes) == self.MAX_CHANGES
        alternating = full and now - self._changes[0] <= self.HOLD_S
        self._changes.append(now)
        if alternating and returns and self._current in self._cameras:
            return False
        self._current = camera
        return True
