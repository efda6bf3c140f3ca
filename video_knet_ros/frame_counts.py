"""What became of each image: the counts of /diagnostics."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

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
