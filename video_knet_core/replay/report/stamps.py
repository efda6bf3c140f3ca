"""The stamps of a camera's images: how far they are apart, and where the tracker was reset."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import PanopticFrame
from .latency import BUCKETS, bucket
from .time_bins import TimeBins

MOST_EVENTS = 20
"""Gaps, and resets, that are kept."""
GAP = 3
"""Of the median interval: longer ones are gaps."""


class Gap(NamedTuple):
    """A long interval, and when it ended; both in seconds."""

    interval: float
    seconds: float


class Stamps:
    """Intervals between the stamps of successive frames."""

    def __init__(self) -> None:
        self.resets: list[float] = []
        """Seconds of the recording, of the first ones."""
        self.reset_count = 0
        self._largest = TimeBins(1, combine=np.maximum)
        self._intervals = np.zeros((BUCKETS, 2))
        """Of each bucket of milliseconds the number of intervals, and their sum."""
        self._gaps: list[Gap] = []  # a heap, shortest first
        self._last: tuple[int, int] | None = None

    def add(self, seconds: float, frame: PanopticFrame) -> None:
        """Take a frame at a time of the recording."""
        if self._last is not None:
            self._add_interval(seconds, (frame.stamp - self._last[0]) * 1e-9)
            if frame.epoch != self._last[1]:
                self.reset_count += 1
                self.resets = [*self.resets, seconds][:MOST_EVENTS]
        self._last = frame.stamp, frame.epoch

    def _add_interval(self, seconds: float, interval: float) -> None:
        row = self._largest.row(seconds)
        np.maximum(row, 1e3 * interval, out=row)
        self._intervals[bucket(1e3 * interval)] += 1, 1e3 * interval
        heapq.heappush(self._gaps, Gap(interval, seconds))
        if len(self._gaps) > MOST_EVENTS:
            heapq.heappop(self._gaps)

    @property
    def median(self) -> float:
        """Interval in milliseconds, to 4 %; NaN with fewer than two frames.

        It is the mean of its bucket, so that of equal intervals it is exact.
        """
        below = np.cumsum(self._intervals[:, 0])
        if not below[-1]:
            return math.nan
        count, total = self._intervals[np.searchsorted(below, below[-1] / 2)]
        return float(total / count)

    def gaps(self) -> list[Gap]:
        """The longest ones, at most `MOST_EVENTS`, by time."""
        long = [gap for gap in self._gaps if 1e3 * gap.interval > GAP * self.median]
        return sorted(long, key=lambda gap: gap.seconds)

    def over_time(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times [n] in seconds and the largest interval [n] in milliseconds in each bin."""
        largest = self._largest.sums[:, 0]
        filled = np.isfinite(largest)
        return self._largest.middles[filled], np.maximum(largest[filled], 0)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "resets": self.resets,
            "reset_count": self.reset_count,
            "largest": self._largest.state(),
            "intervals": self._intervals,
            "gaps": [tuple(gap) for gap in self._gaps],
            "last": self._last,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        self.resets, self.reset_count = state["resets"], state["reset_count"]
        self._largest.restore(state["largest"])
        self._intervals = state["intervals"]
        self._gaps = [Gap(*gap) for gap in state["gaps"]]
        self._last = state["last"]
