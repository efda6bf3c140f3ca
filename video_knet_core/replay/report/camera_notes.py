"""What a report keeps of one camera while frames come: a little, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...types import ClassTable, PanopticFrame
from ..camera import Processed
from .latency import Latency
from .lifelines import Lifeline, Lifelines
from .pictures import Pictures
from .stamps import Stamps
from .time_bins import TimeBins, grouped


class CameraNotes:
    """Tracks, class shares, times and pictures of one camera.

    Args:
        classes: of the model.
        pictures: at most.
        ended: called with each confirmed track that has ended.
    """

    def __init__(
        self,
        classes: ClassTable,
        pictures: int,
        ended: Callable[[Lifeline], None] = lambda line: None,
    ) -> None:
        self.tracks = Lifelines(len(classes), ended)
        self.stamps = Stamps()
        self.latency = Latency()
        self.pictures = Pictures(pictures, classes)
        self.first = self.last = 0.0
        """Times of the first and the last frame [s]."""
        self.frames = 0
        self.size = (0, 0)
        """Width and height of the newest image."""
        self._shares = TimeBins(len(classes) + 3)  # frames, their times, no class, each class

    def add(self, seconds: float, result: Processed) -> None:
        """Take a frame, received at so many seconds of the recording."""
        self.first = min(self.first, seconds) if self.frames else seconds
        self.last = max(self.last, seconds)
        self.frames += 1
        self.size = (result.image.shape[1], result.image.shape[0])
        row = self._shares.row(seconds)
        row += np.concatenate([[1.0, seconds], _shares(result.frame, len(row) - 3)])
        self.tracks.add(result.number, seconds, result.frame)
        self.stamps.add(seconds, result.frame)
        self.latency.add(seconds, result.times.step)
        self.pictures.add(seconds, result)

    def shares_over_time(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times [n] in seconds and shares [n, 1 + classes], the first of no class; n <= `most`."""
        rows = grouped(self._shares.sums, min(most, self.frames))
        times = rows[:, 1] / rows[:, 0]
        times[0], times[-1] = self.first, self.last  # the means of both would leave their ends bare
        return times, rows[:, 2:] / rows[:, :1]

    def share_sums(self) -> NDArray[np.float64]:
        """[1 + classes] shares, summed over all frames; the first of no class."""
        return self._shares.sums[:, 2:].sum(axis=0)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "span": (self.first, self.last),
            "frames": self.frames,
            "size": self.size,
            "shares": self._shares.state(),
            "tracks": self.tracks.state(),
            "stamps": self.stamps.state(),
            "latency": self.latency.state(),
            "pictures": self.pictures.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        self.first, self.last = state["span"]
        self.frames, self.size = state["frames"], state["size"]
        self._shares.restore(state["shares"])
        self.tracks.restore(state["tracks"])
        self.stamps.restore(state["stamps"])
        self.latency.restore(state["latency"])
        self.pictures.restore(state["pictures"])


def _shares(frame: PanopticFrame, classes: int) -> NDArray[np.float64]:
    """[1 + classes] shares of the label map; the first of no class.

    They are of the map and not of the masks of instances, which may overlap: so they sum to 1.
    """
    small = frame.label_map.small
    pixels = np.bincount(small.ravel())
    column = np.zeros(len(pixels), np.int64)
    for track in frame.tracks:
        if track.label and track.label < len(column):
            column[track.label] = 1 + track.class_id
    return np.bincount(column, pixels, minlength=1 + classes) / small.size
