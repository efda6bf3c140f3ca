"""When each track was seen: the longest ones in full, of the others their number."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from ...types import PanopticFrame, Track, TrackState

MOST_LINES = 150
"""Tracks of a camera that are kept."""
MOST_SPANS = 16
"""Spans of a track that are kept; with more, those with the smallest gap between become one."""


@dataclass
class Lifeline:
    """A track, and when it had pixels."""

    epoch: int
    track_id: int
    class_id: int
    """The last one."""
    confirmed: bool
    frames: int
    """In which it had pixels."""
    last_frame: int
    spans: list[list[float]]
    """First and last time of each run of frames with pixels [s]."""

    def see(self, number: int, seconds: float, track: Track) -> None:
        """Take the row of a frame."""
        self.class_id = track.class_id
        self.confirmed = self.confirmed or track.state == TrackState.CONFIRMED
        if self.frames and number == self.last_frame + 1:
            self.spans[-1][1] = max(seconds, self.spans[-1][1])
        else:
            self.spans.append([seconds, seconds])
        self.frames += 1
        self.last_frame = number
        if len(self.spans) > MOST_SPANS:
            self._join()

    def _join(self) -> None:
        gaps = [right[0] - left[1] for left, right in zip(self.spans, self.spans[1:], strict=False)]
        at = gaps.index(min(gaps))
        self.spans[at : at + 2] = [[self.spans[at][0], self.spans[at + 1][1]]]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Larger for what is kept rather; no two tracks have the same."""
        return self.frames, -self.epoch, -self.track_id


class Lifelines:
    """The tracks of one camera.

    Args:
        classes: number of them.
    """

    def __init__(self, classes: int) -> None:
        self._epochs: list[int] = []  # the last two: after one wrong stamp the first is resumed
        self._living: dict[tuple[int, int], Lifeline] = {}  # by epoch and track id
        self._longest: list[tuple[tuple[int, int, int], Lifeline]] = []  # a heap, least rank first
        self._ended = [0] * classes
        self.unconfirmed = 0
        """Tracks that ended before they were confirmed."""

    def add(self, number: int, seconds: float, frame: PanopticFrame) -> None:
        """Take a frame: its number, and its time in the recording."""
        if frame.epoch not in self._epochs[-1:]:
            self._epochs = [*self._epochs[-1:], frame.epoch]
            self._end([name for name in self._living if name[0] not in self._epochs])
        for track in frame.tracks:
            if track.track_id and track.label:
                self._line_of(track, frame.epoch).see(number, seconds, track)
        self._end([(frame.epoch, track_id) for track_id in frame.ended])

    def counts(self) -> list[int]:
        """Confirmed tracks by class."""
        counts = self._ended.copy()
        for line in self._living.values():
            counts[line.class_id] += line.confirmed
        return counts

    def longest(self) -> list[Lifeline]:
        """At most `MOST_LINES` confirmed tracks, those with the most frames, as they began."""
        lines = [line for _, line in self._longest]
        lines += [line for line in self._living.values() if line.confirmed]
        lines = heapq.nlargest(MOST_LINES, lines, key=lambda line: line.rank)
        return sorted(lines, key=lambda line: (line.epoch, line.spans[0][0], line.track_id))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "epochs": self._epochs,
            "living": [astuple(line) for line in self._living.values()],
            "longest": [astuple(line) for _, line in self._longest],
            "ended": self._ended,
            "unconfirmed": self.unconfirmed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        living = [Lifeline(*row) for row in state["living"]]
        longest = [Lifeline(*row) for row in state["longest"]]
        self._epochs, self._ended = state["epochs"], state["ended"]
        self._living = {(line.epoch, line.track_id): line for line in living}
        self._longest = [(line.rank, line) for line in longest]
        self.unconfirmed = state["unconfirmed"]

    def _line_of(self, track: Track, epoch: int) -> Lifeline:
        name = epoch, track.track_id
        if name not in self._living:
            self._living[name] = Lifeline(*name, track.class_id, False, 0, 0, [])
        return self._living[name]

    def _end(self, names: Iterable[tuple[int, int]]) -> None:
        for name in names:
            line = self._living.pop(name, None)
            if line is not None and line.confirmed:
                self._ended[line.class_id] += 1
                heapq.heappush(self._longest, (line.rank, line))
                if len(self._longest) > MOST_LINES:
                    heapq.heappop(self._longest)
            elif line is not None:
                self.unconfirmed += 1
