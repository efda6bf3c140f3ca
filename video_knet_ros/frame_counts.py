"""What became of each image: the counts behind /diagnostics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .reasons import Reason


@dataclass
class FrameCounts:
    """What became of the images since activation: each is processed, failed or dropped.

    The executor's thread writes `received`, `arrived`, `watched_since` and what it drops itself:
    `skipped`, `limited`, `interleaved`, `undated`. The inference thread writes all the rest: no
    number has two writers.
    """

    received: int = 0
    arrived: float | None = None
    """When the last image came; None = none has."""
    watched_since: float = field(default_factory=time.monotonic)
    """When images began to be expected: counting, or the present subscription, began."""
    skipped: int = 0
    """Replaced by a newer image before inference began, or withdrawn."""
    limited: int = 0
    """Not taken, to keep to `max_rate`."""
    interleaved: int = 0
    """Of a second camera on the same topic."""
    undated: int = 0
    """Without a stamp, while the clock had no time either."""
    expired: int = 0
    """Older than `max_age_ms` when their turn came."""
    expired_ms: float | None = None
    """Age of the last one that was too old."""
    late: int = 0
    """Earlier than an image that has been processed already."""
    failed: int = 0
    last_failure: str = ""
    processed: int = 0
    """Published, as far as somebody subscribes."""
    numbered: int = 0
    """Frames that were given a sequence number; those that then cannot be published leave a gap."""
    begun: float | None = None
    """When the image under way was begun; None = none is."""
    latency_ms: float = math.nan
    inference_ms: float = math.nan
    epoch: int | None = None
    """`tracker_epoch` of the last frame."""
    epoch_changes: int = 0
    """Frames of another epoch than the frame before: after a reset, or of a resumed stream."""
    resets: int = 0
    """Frames of an epoch that no frame has had before."""
    last_reset: str = ""
    """Why the tracker was reset."""
    dropped_reported: int = 0
    """The part of `dropped` that earlier frames have reported."""
    last_result: float | None = None
    """When the last frame was processed."""
    _newest_epoch: int | None = None
    _at_result: Mapping[Reason, int] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Images that did not go into the engine."""
        taken_out = self.limited + self.interleaved + self.undated
        return self.skipped + taken_out + self.expired + self.late

    def next_frame(self, dropped: int) -> tuple[int, int]:
        """Sequence number of a new frame and the images dropped since the last one.

        Args:
            dropped: value of `dropped` when the frame was begun.
        """
        sequence, self.numbered = self.numbered, self.numbered + 1
        reported, self.dropped_reported = self.dropped_reported, dropped
        return sequence, dropped - reported

    def note_epoch(self, epoch: int, reason: str) -> None:
        """Keep the epoch of a frame, and why it is another one than that of the last frame."""
        if self.epoch is not None and epoch != self.epoch:
            self.epoch_changes += 1
        if self._newest_epoch is not None and epoch > self._newest_epoch:
            self.resets += 1
            self.last_reset = reason
        self.epoch = epoch
        self._newest_epoch = max(epoch, self._newest_epoch or epoch)

    def note_result(self) -> None:
        """Count a frame that went all the way."""
        self._at_result = self._without_result()
        self.last_result = time.monotonic()
        self.processed += 1

    def wait(self, now: float) -> float:
        """Seconds without a result, at `now`."""
        return now - max(self.last_result or -math.inf, self.watched_since)

    def since_result(self) -> dict[Reason, int]:
        """Images since the last result, by the reason for which they gave none."""
        return {r: n - self._at_result.get(r, 0) for r, n in self._without_result().items()}

    def _without_result(self) -> dict[Reason, int]:
        return {
            Reason.ALL_FRAMES_FAILED: self.failed,
            Reason.NO_CLOCK: self.undated,
            Reason.IMAGES_TOO_OLD: self.expired,
            Reason.IMAGES_LATE: self.late,
            Reason.RATE_LIMITED: self.limited,
            Reason.SEVERAL_PUBLISHERS: self.interleaved,
            Reason.ENGINE_BUSY: self.skipped,
        }
