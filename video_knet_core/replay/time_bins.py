"""Sums over time that take the same room for a minute and for a day."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 240
FIRST_WIDTH = 1 / 16
"""Seconds of a bin at first."""


class TimeBins:
    """Rows of numbers, summed in bins of time.

    All bins are of one width, which doubles whenever a time lies behind the last bin. With
    `combine` np.maximum they hold the largest number, from -inf on.
    """

    def __init__(self, columns: int, dtype: type = np.float64, combine: np.ufunc = np.add) -> None:
        self._combine = combine
        self._empty = 0 if combine is np.add else -np.inf
        self.width = FIRST_WIDTH
        """Seconds of a bin."""
        self.sums: NDArray[Any] = np.full((MOST_BINS, columns), self._empty, dtype)
        """[bins, columns]"""

    @property
    def middles(self) -> NDArray[np.float64]:
        """[bins] seconds."""
        return np.asarray((np.arange(MOST_BINS) + 0.5) * self.width, np.float64)

    def row(self, seconds: float) -> NDArray[Any]:
        """[columns] the sums of the bin of a time, to add to; a time before 0 counts as 0."""
        while seconds >= self.width * MOST_BINS:
            self._double()
        return self.sums[max(int(seconds / self.width), 0)]

    def grouped(self, most: int = MOST_BINS) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Edges [n + 1] in seconds and sums [n, columns] of at most `most` wider bins.

        They reach from the first bin that has something to the last one.
        """
        (filled,) = np.nonzero((self.sums != self._empty).any(axis=1))
        if not len(filled):
            return np.zeros(1), self.sums[:0]
        first, end = filled[0], filled[-1] + 1
        starts = np.arange(first, end, math.ceil((end - first) / max(most, 1)))
        groups = self._combine.reduceat(self.sums[:end], starts, axis=0)
        return np.append(starts, end) * self.width, groups

    def _double(self) -> None:
        pairs = self._combine.reduce(
            self.sums.reshape(MOST_BINS // 2, 2, -1), axis=1, dtype=self.sums.dtype
        )
        self.sums = np.concatenate([pairs, np.full_like(pairs, self._empty)])
        self.width *= 2
