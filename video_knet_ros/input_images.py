"""What happens to each image that arrives: which are processed, and what became of each.

At most so many a second are, and those of one camera; the counts are those of /diagnostics.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from sensor_msgs.msg import CompressedImage, Image

DROPPED = ("skipped", "limited", "expired", "late", "interleaved", "undated")
"""Counts of images that did not reach the engine."""


@dataclass
class FrameCounts:
    """What became of the images since activation: each is processed, failed or dropped.

    The executor's thread writes `received`, `arrived`, `watched_since` and what it drops itself:
    `skipped`, `limited`, `interleaved`, `undated`. The inference thread writes all the rest: no
    number has two writers. Times are those of `time.monotonic`, in seconds.
    """

    received: int = 0
    arrived: float | None = None
    """Time of the last image; None = none has arrived."""
    watched_since: float = field(default_factory=time.monotonic)
    """Start of counting, or of the present subscription."""
    skipped: int = 0
    """Replaced by a newer image before inference started, or withdrawn."""
    limited: int = 0
    """Dropped because of `max_rate`."""
    interleaved: int = 0
    """From a second camera on the same topic."""
    undated: int = 0
    """Without a stamp, while the clock had no time either."""
    expired: int = 0
    """Older than `max_age_ms` when inference would have started."""
    expired_ms: float = 0.0
    """Age of the last expired image."""
    late: int = 0
    """With an earlier stamp than an image that has been processed already."""
    failed: int = 0
    last_failure: str = ""
    processed: int = 0
    """Published, as far as there are subscribers."""
    numbered: int = 0
    """Frames with a sequence number; one that cannot be published leaves a gap."""
    begun: float | None = None
    """Start of the inference that is running; None = none is."""
    latency_ms: float = math.nan
    inference_ms: float = math.nan
    epoch: int | None = None
    """`tracker_epoch` of the last frame."""
    epoch_changes: int = 0
    """Frames of another epoch than the frame before: after a reset, or of a resumed stream."""
    resets: int = 0
    """Frames of an epoch that no frame had before."""
    last_reset: str = ""
    """Why the tracker was reset."""
    last_result: float | None = None
    """Time at which the last frame was processed."""
    _dropped_reported: int = 0
    _newest_epoch: int = -1
    _at_result: dict[str, int] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Images that did not reach the engine."""
        return sum(getattr(self, name) for name in DROPPED)

    def next_frame(self, dropped: int) -> tuple[int, int]:
        """Sequence number of a new frame, and the images dropped since the last one.

        Args:
            dropped: value of `dropped` when the frame was begun.
        """
        sequence, self.numbered = self.numbered, self.numbered + 1
        reported, self._dropped_reported = self._dropped_reported, dropped
        return sequence, dropped - reported

    def note_epoch(self, epoch: int, reason: str) -> None:
        """Record the epoch of a frame; `reason` is that of the last reset."""
        if self.epoch not in (None, epoch):
            self.epoch_changes += 1
        if -1 < self._newest_epoch < epoch:
            self.resets += 1
            self.last_reset = reason
        self.epoch, self._newest_epoch = epoch, max(epoch, self._newest_epoch)

    def note_result(self) -> None:
        """Count a frame that was published."""
        self._at_result = self._unprocessed()
        self.last_result = time.monotonic()
        self.processed += 1

    def without_result_s(self, now: float) -> float:
        """Seconds without a result, at `now`."""
        return now - max(self.last_result or -math.inf, self.watched_since)

    def since_result(self) -> dict[str, int]:
        """Images that failed or were dropped since the last result, by the name of their count."""
        return {name: n - self._at_result.get(name, 0) for name, n in self._unprocessed().items()}

    def _unprocessed(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("failed", *DROPPED)}


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
