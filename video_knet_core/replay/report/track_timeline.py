"""When and where each track was: the longest ones in full; all in tracks.csv and tracks.json."""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spatial.objects import ObjectTable, RangeSource
from ...types import ClassTable, PanopticFrame, Track, TrackState
from .track_places import PLACE_COLUMNS, TrackPlaces

MOST_TRACKS = 150
"""Tracks of a camera that are kept for the page."""
MOST_SPANS = 16
"""Spans of a track that are kept; with more, those with the smallest gap between become one."""
COLUMNS = (
    *("camera", "epoch", "track_id", "class_id", "class", "first_s", "last_s"),
    *("first_stamp", "last_stamp", "first_frame", "last_frame", "frames", "mean_score"),
    *("first_x", "first_y", "first_width", "first_height"),
    *("last_x", "last_y", "last_width", "last_height", "max_area"),
    *PLACE_COLUMNS,
)
"""Of the table of tracks."""


@dataclass
class TrackSpans:
    """A track, and when it had pixels."""

    epoch: int
    track_id: int
    class_id: int
    """The last one."""
    first_frame: int
    first_stamp: int
    last_stamp: int
    """Nanoseconds."""
    first_box: tuple[int, ...]
    last_box: tuple[int, ...]
    """x, y, width, height."""
    spans: list[list[float]]
    """First and last time of each run of frames with pixels [s]."""
    confirmed: bool = False
    frames: int = 0
    """In which it had pixels."""
    last_frame: int = 0
    score_sum: float = 0.0
    max_area: int = 0
    places: TrackPlaces | None = None
    """None if it was measured nowhere."""

    def add(self, number: int, seconds: float, stamp: int, track: Track) -> None:
        """Take the row of a frame."""
        self.last_stamp, self.last_box = stamp, track.box
        self.score_sum += track.score
        self.max_area = max(self.max_area, track.area)
        self.class_id = track.class_id
        self.confirmed = self.confirmed or track.state == TrackState.CONFIRMED
        if self.frames and number == self.last_frame + 1:
            self.spans[-1][1] = max(seconds, self.spans[-1][1])
        else:
            self.spans.append([seconds, seconds])
        self.frames += 1
        self.last_frame = number
        if len(self.spans) > MOST_SPANS:
            self._join_nearest()

    def _join_nearest(self) -> None:
        gaps = [right[0] - left[1] for left, right in zip(self.spans, self.spans[1:], strict=False)]
        n = gaps.index(min(gaps))
        self.spans[n : n + 2] = [[self.spans[n][0], self.spans[n + 1][1]]]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Larger for what is kept rather; no two tracks have the same."""
        return self.frames, -self.epoch, -self.track_id


class TrackTimeline:
    """The tracks of one camera; `on_end` is called with each confirmed one that has ended."""

    def __init__(self, classes: int, on_end: Callable[[TrackSpans], None]) -> None:
        self._on_end = on_end
        self._epochs: list[int] = []  # the last two: after one wrong stamp the first is resumed
        self._living: dict[tuple[int, int], TrackSpans] = {}  # by epoch and track id
        self._longest: list[tuple[tuple[int, int, int], TrackSpans]] = []  # a heap, shortest first
        self._ended = [0] * classes
        self.unconfirmed = 0
        """Tracks that ended before they were confirmed."""

    def add(
        self, number: int, seconds: float, frame: PanopticFrame, objects: ObjectTable | None = None
    ) -> None:
        """Take a frame: its number, its time in the recording, and its tracks in space."""
        if frame.epoch not in self._epochs[-1:]:
            self._epochs = [*self._epochs[-1:], frame.epoch]
            self._end([name for name in self._living if name[0] not in self._epochs])
        for track in frame.tracks:
            if not (track.track_id and track.label):
                continue
            name, stamp = (frame.epoch, track.track_id), frame.stamp
            if name not in self._living:
                boxes = track.box, track.box
                self._living[name] = TrackSpans(
                    *name, track.class_id, number, stamp, stamp, *boxes, []
                )
            self._living[name].add(number, seconds, stamp, track)
        if objects is not None:
            self._locate(frame.epoch, objects)
        self._end([(frame.epoch, track_id) for track_id in frame.ended])

    def counts(self) -> list[int]:
        """Confirmed tracks by class."""
        counts = self._ended.copy()
        for track in self._living.values():
            counts[track.class_id] += track.confirmed
        return counts

    def longest(self) -> list[TrackSpans]:
        """At most `MOST_TRACKS` confirmed tracks, those with the most frames, as they began."""
        tracks = [*(track for _, track in self._longest), *self.living()]
        tracks = heapq.nlargest(MOST_TRACKS, tracks, key=lambda track: track.rank)
        return sorted(tracks, key=lambda track: (track.epoch, track.spans[0][0], track.track_id))

    def living(self) -> list[TrackSpans]:
        """The confirmed tracks that have not ended."""
        return [self._living[name] for name in sorted(self._living) if self._living[name].confirmed]

    def _locate(self, epoch: int, objects: ObjectTable) -> None:
        """Add the places that were measured, not the predicted ones."""
        for row in objects.rows[objects.rows["source"] != RangeSource.NONE]:
            track = self._living.get((epoch, int(row["track_id"])))
            if track is None:
                continue
            if track.places is None or track.places.frame_id != objects.frame_id:
                track.places = TrackPlaces(objects.frame_id)
            track.places.add(row)

    def _end(self, names: Iterable[tuple[int, int]]) -> None:
        for track in filter(None, [self._living.pop(name, None) for name in names]):
            if not track.confirmed:
                self.unconfirmed += 1
                continue
            self._ended[track.class_id] += 1
            self._on_end(track)
            heapq.heappush(self._longest, (track.rank, track))
            if len(self._longest) > MOST_TRACKS:
                heapq.heappop(self._longest)


class TrackFiles:
    """tracks.csv and tracks.json in `folder`: a row for each confirmed track, as the tracks end.

    Seconds are those of the recording, stamps nanoseconds, boxes and areas pixels of the image,
    positions and ranges metres; without a place they are empty (null).
    """

    def __init__(self, folder: Path, classes: ClassTable) -> None:
        self._classes = classes
        self._separator = ""
        with ExitStack() as stack:
            table, self._json = (
                stack.enter_context(path.open("w", encoding="utf-8", errors="replace", newline=""))
                for path in (folder / "tracks.csv", folder / "tracks.json")
            )
            self._stack = stack.pop_all()
        self._rows = csv.writer(table, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self._json.write("[")

    def add(self, camera: str, track: TrackSpans) -> None:
        """Write the row of a track."""
        row = self._row(camera, track)
        self._rows.writerow(row.values())
        self._json.write(f"{self._separator}\n{json.dumps(row)}")
        self._separator = ","

    def finish(self, living: Iterable[tuple[str, TrackSpans]]) -> None:
        """Write the rows of the tracks that did not end."""
        for camera, track in living:
            self.add(camera, track)
        self._json.write("\n]\n")
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _row(self, camera: str, track: TrackSpans) -> dict[str, Any]:
        values = (
            camera,
            *(track.epoch, track.track_id, track.class_id, self._classes[track.class_id].name),
            *(round(track.spans[0][0], 3), round(track.spans[-1][1], 3)),
            *(track.first_stamp, track.last_stamp, track.first_frame, track.last_frame),
            *(track.frames, round(track.score_sum / track.frames, 4)),
            *map(int, (*track.first_box, *track.last_box, track.max_area)),
            *(track.places.columns() if track.places else [None] * len(PLACE_COLUMNS)),
        )
        return dict(zip(COLUMNS, values, strict=True))
