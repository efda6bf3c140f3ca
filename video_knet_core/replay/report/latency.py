"""How long the network takes, over the course of a replay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .time_bins import TimeBins, grouped

LEAST_MS = 0.1
RATIO = 1.04
"""Of a bucket's upper limit to its lower one: quantiles are right to 2 %."""
BUCKETS = 350
"""Up to 90 s."""
QUANTILES = (0.5, 0.9, 0.99)
FRAMES_OF_A_POINT = 10
"""At least, on average: quantiles of fewer say little."""


class Latency:
    """Histograms of milliseconds in bins of time."""

    def __init__(self) -> None:
        self._counts = TimeBins(BUCKETS, np.int32)

    def add(self, seconds: float, milliseconds: float) -> None:
        """Count a frame at a time of the recording."""
        self._counts.row(seconds)[bucket(milliseconds)] += 1

    @property
    def histogram(self) -> NDArray[np.int64]:
        """[BUCKETS] all frames, for `quantiles`."""
        return self._counts.sums.sum(axis=0)

    def over_time(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times [n] in seconds and `QUANTILES` [n, 3] in milliseconds, of at most `most` points."""
        counts = self._counts.sums
        frames = counts.sum(axis=1)
        middles = (np.arange(len(counts)) + 0.5) * self._counts.width
        rows = np.concatenate([np.stack([frames, frames * middles], axis=1), counts], axis=1)
        rows = grouped(rows, min(most, int(frames.sum()) // FRAMES_OF_A_POINT))
        return rows[:, 1] / rows[:, 0], quantiles(rows[:, 2:])

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return self._counts.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another was."""
        self._counts.restore(state)


def quantiles(histograms: NDArray[Any]) -> NDArray[np.float64]:
    """[n, 3] milliseconds of histograms [n, BUCKETS]; NaN for empty ones."""
    out = np.full((len(histograms), len(QUANTILES)), np.nan)
    for row, histogram in zip(out, histograms, strict=True):
        below = np.concatenate([[0], np.cumsum(histogram)])
        if below[-1]:
            places = np.interp(np.array(QUANTILES) * below[-1], *_rising(below))
            row[:] = LEAST_MS * RATIO**places
    return out


def bucket(milliseconds: float) -> int:
    """Of a histogram, 0..`BUCKETS` - 1."""
    place = math.log(max(milliseconds, LEAST_MS) / LEAST_MS) / math.log(RATIO)
    return min(int(place), BUCKETS - 1)


def _rising(below: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts and bucket limits without the empty buckets at both ends and in between."""
    steps = np.diff(below) > 0
    limits = np.flatnonzero(np.append(steps, False) | np.insert(steps, 0, False))
    return below[limits], limits
