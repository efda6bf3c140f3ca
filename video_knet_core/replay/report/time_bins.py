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

    All bins are of one width, which doubles whenever a time lies behind the last bin. So the sums
    depend on what was added and not on how often the bins were stored in between.

    Args:
        columns: numbers in a row.
        dtype: of the sums.
        combine: np.add; or np.maximum for bins that hold the largest number, from -inf on.
    """

    def __init__(self, columns: int, dtype: type = np.float64, combine: np.ufunc = np.add) -> None:
        self._combine = combine
        self.width = FIRST_WIDTH
        """Seconds of a bin."""
        self.sums: NDArray[Any] = np.full((MOST_BINS, columns), self._empty, dtype)
        """[bins, columns]"""

    @property
    def _empty(self) -> float:
        return 0 if self._combine is np.add else -np.inf

    @property
    def middles(self) -> NDArray[np.float64]:
        """[bins] seconds."""
        return np.asarray((np.arange(MOST_BINS) + 0.5) * self.width, np.float64)

    def row(self, seconds: float) -> NDArray[Any]:
        """[columns] the sums of the bin of a time, to add to; a time before 0 counts as 0."""
        while seconds >= self.width * MOST_BINS:
            self._double()
        return self.sums[max(int(seconds / self.width), 0)]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"width": self.width, "sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        self.width, self.sums = state["width"], state["sums"]

    def _double(self) -> None:
        pairs = self._combine.reduce(
            self.sums.reshape(MOST_BINS // 2, 2, -1), axis=1, dtype=self.sums.dtype
        )
        self.sums = np.concatenate([pairs, np.full_like(pairs, self._empty)])
        self.width *= 2


def grouped(sums: NDArray[Any], most: int) -> NDArray[Any]:
    """Neighbouring bins [n, columns] summed up to at most `most`; those without anything left out.

    The first column counts what is in a bin.
    """
    (filled,) = np.nonzero(sums[:, 0])
    if not len(filled):
        return sums[:0]
    first, last = filled[0], filled[-1]
    size = math.ceil((last - first + 1) / max(most, 1))
    starts = np.arange(first, last + 1, size)
    groups = np.add.reduceat(sums[: last + 1], starts, axis=0)
    return groups[groups[:, 0] > 0]
