"""What a report keeps while frames come: a little, however long the recording is."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...tracking import TrackerSettings
from ...types import ClassTable, PanopticFrame
from ...visualize import overlay
from ..camera import Processed
from ..replay_settings import ReplaySettings
from ..time_bins import TimeBins
from .track_places import CameraPlaces
from .track_timeline import TrackFiles, TrackSpans, TrackTimeline

MOST_PICTURES = 12
"""Of all cameras together, unless there are more cameras than that."""
LARGEST_PICTURE = 960
"""Pixels of the longer side."""
JPEG_QUALITY = 80
MINIMUM_MS = 0.1
RATIO = 1.04
"""Of a bucket's upper limit to its lower one: quantiles are right to 2 %."""
BUCKETS = 350
"""Up to 90 s."""
QUANTILES = (0.5, 0.9, 0.99)
FRAMES_OF_A_BIN = 2
"""Minimum, on average: else bins between two frames would look like gaps of the recording."""
FRAMES_OF_QUANTILES = 10
"""Minimum, on average: quantiles of fewer are unreliable."""
MOST_EVENTS = 20
"""Gaps, and resets, that are kept."""
GAP = 3
"""Of the median interval: longer ones are gaps."""

Floats = NDArray[np.float64]


class Latency:
    """How long the network takes: histograms of milliseconds in bins of time."""

    def __init__(self) -> None:
        self._counts = TimeBins(BUCKETS, np.int32)

    def add(self, seconds: float, milliseconds: float) -> None:
        """Count a frame at a time of the recording."""
        self._counts.row(seconds)[_bucket(milliseconds)] += 1

    @property
    def histogram(self) -> NDArray[np.int64]:
        """[BUCKETS] all frames, for `quantiles`."""
        return self._counts.sums.sum(axis=0)

    def over_time(self, most: int) -> tuple[Floats, Floats]:
        """Edges [n + 1] of at most `most` bins in seconds, and their `quantiles` [n, 3]."""
        frames = int(self.histogram.sum())
        edges, counts = self._counts.grouped(min(most, frames // FRAMES_OF_QUANTILES))
        return edges, np.array([quantiles(row) for row in counts]).reshape(-1, len(QUANTILES))


def quantiles(histogram: NDArray[Any]) -> Floats:
    """`QUANTILES` in milliseconds of a histogram [BUCKETS]; NaN if it is empty."""
    if not histogram.any():
        return np.full(len(QUANTILES), np.nan)
    middles = MINIMUM_MS * RATIO ** (np.arange(BUCKETS) + 0.5)
    return np.asarray(np.quantile(np.repeat(middles, histogram), QUANTILES), np.float64)


def _bucket(milliseconds: float) -> int:
    """Of a histogram, 0..`BUCKETS` - 1."""
    place = math.log(max(milliseconds, MINIMUM_MS) / MINIMUM_MS) / math.log(RATIO)
    return min(int(place), BUCKETS - 1)


class _Gap(NamedTuple):
    """A long interval, and when it ended; both in seconds."""

    interval: float
    seconds: float


class StampNotes:
    """Intervals between the stamps of successive frames, and where the tracker was reset."""

    def __init__(self) -> None:
        self.resets: list[float] = []
        """Seconds of the recording, of the first ones."""
        self.reset_count = 0
        self._largest = TimeBins(1, combine=np.maximum)
        self._intervals = np.zeros((BUCKETS, 2))
        """Of each bucket of milliseconds the number of intervals, and their sum."""
        self._longest: list[_Gap] = []
        self._last: tuple[int, int] | None = None

    def add(self, seconds: float, frame: PanopticFrame) -> None:
        """Take a frame at a time of the recording."""
        last, self._last = self._last, (frame.stamp, frame.epoch)
        if last is None:
            return
        interval = (frame.stamp - last[0]) * 1e-9
        row = self._largest.row(seconds)
        np.maximum(row, 1e3 * interval, out=row)
        self._intervals[_bucket(1e3 * interval)] += 1, 1e3 * interval
        self._longest = heapq.nlargest(MOST_EVENTS, [*self._longest, _Gap(interval, seconds)])
        if frame.epoch != last[1]:
            self.reset_count += 1
            self.resets = [*self.resets, seconds][:MOST_EVENTS]

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

    def gaps(self) -> list[_Gap]:
        """The longest ones, at most `MOST_EVENTS`, by time."""
        long = [gap for gap in self._longest if 1e3 * gap.interval > GAP * self.median]
        return sorted(long, key=lambda gap: gap.seconds)

    def over_time(self, most: int) -> tuple[Floats, Floats]:
        """Edges [n + 1] of at most `most` bins in seconds, and the largest interval [n] of each.

        The intervals are in milliseconds; NaN in a bin without any.
        """
        intervals = int(self._intervals[:, 0].sum())
        edges, largest = self._largest.grouped(min(most, intervals // FRAMES_OF_A_BIN))
        return edges, np.where(np.isfinite(largest), np.maximum(largest, 0), np.nan)[:, 0]


@dataclass(frozen=True)
class Picture:
    """A frame with its overlay."""

    number: int
    seconds: float
    """Of the recording."""
    jpeg: bytes
    width: int
    height: int
    things: dict[str, int]
    """Instances by class name."""
    tracks: frozenset[tuple[int, int]]
    """Epoch and track id of those that are to be seen."""


class _Pictures:
    """Every n-th frame is kept; whenever there are more than `most`, every second goes, n doubles.

    At least half as many are there, if there are frames.
    """

    def __init__(self, most: int, classes: ClassTable) -> None:
        self._most, self._classes = most, classes
        self._every = 1
        self.kept: list[Picture] = []
        """In the order of the frames."""

    def add(self, seconds: float, result: Processed) -> None:
        """Keep a frame if it is its turn."""
        if result.number % self._every:
            return
        self.kept.append(self._picture(seconds, result))
        if len(self.kept) > self._most:
            self.kept = self.kept[::2]
            self._every *= 2

    def showing(self, track: TrackSpans) -> Picture | None:
        """The first one with a track."""
        name = track.epoch, track.track_id
        return next((picture for picture in self.kept if name in picture.tracks), None)

    def nearest(self, seconds: float) -> Picture:
        """The one that is nearest to a time; there is one as soon as there is a frame."""
        return min(self.kept, key=lambda picture: abs(picture.seconds - seconds))

    def _picture(self, seconds: float, result: Processed) -> Picture:
        frame = result.frame
        drawn = overlay(result.image, frame, self._classes)
        scale = min(LARGEST_PICTURE / max(drawn.shape[:2]), 1.0)
        width, height = (max(round(side * scale), 1) for side in (drawn.shape[1], drawn.shape[0]))
        small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
        visible = [track for track in frame.tracks if track.label]
        things = Counter(track.class_id for track in visible if track.is_thing)
        names = {self._classes[class_id].name: n for class_id, n in sorted(things.items())}
        tracks = frozenset((frame.epoch, track.track_id) for track in visible if track.track_id)
        return Picture(result.number, seconds, jpeg.tobytes(), width, height, names, tracks)


class CameraNotes:
    """Tracks, places, class shares, times and at most so many pictures of one camera.

    `on_end` is called with each confirmed track that has ended.
    """

    def __init__(
        self, classes: ClassTable, pictures: int, on_end: Callable[[TrackSpans], None]
    ) -> None:
        self.tracks = TrackTimeline(len(classes), on_end)
        self.stamps = StampNotes()
        self.latency = Latency()
        self.pictures = _Pictures(pictures, classes)
        self.places: CameraPlaces | None = None
        """Of the newest frame of reference; None without objects in space."""
        self.first = self.last = 0.0
        """Times of the first and the last frame [s]."""
        self.frames = 0
        self.size = (0, 0)
        """Width and height of the newest image."""
        self._shares = TimeBins(len(classes) + 2)  # frames, no class, each class

    def add(self, seconds: float, result: Processed) -> None:
        """Take a frame, received at so many seconds of the recording."""
        self.first = min(self.first, seconds) if self.frames else seconds
        self.last = max(self.last, seconds)
        self.frames += 1
        self.size = (result.image.shape[1], result.image.shape[0])
        row = self._shares.row(seconds)
        row += [1.0, *_class_shares(result.frame, len(row) - 2)]
        self.tracks.add(result.number, seconds, result.frame, result.objects)
        self._locate(result)
        self.stamps.add(seconds, result.frame)
        self.latency.add(seconds, result.times.step)
        self.pictures.add(seconds, result)

    def _locate(self, result: Processed) -> None:
        if (table := result.objects) is None:
            return
        if self.places is None or self.places.frame_id != table.frame_id:
            own = result.header.frame_id.lstrip("/") == table.frame_id.lstrip("/")
            self.places = CameraPlaces(table.frame_id, is_optical=own)
        self.places.add(table)

    def shares_over_time(self, most: int) -> tuple[Floats, Floats]:
        """Edges [n + 1] of at most `most` bins in seconds and shares [n, 1 + classes] of each.

        The first fraction is of pixels without a class. NaN in a bin without frames.
        """
        edges, sums = self._shares.grouped(min(most, self.frames // FRAMES_OF_A_BIN))
        with np.errstate(invalid="ignore"):
            return edges, sums[:, 1:] / sums[:, :1]

    def share_sums(self) -> Floats:
        """[1 + classes] fractions, summed over all frames; the first of no class."""
        return self._shares.sums[:, 1:].sum(axis=0)


def _class_shares(frame: PanopticFrame, classes: int) -> Floats:
    """[1 + classes] fractions of the label map; the first of no class.

    They are of the map and not of the masks of instances, which may overlap: so they sum to 1.
    """
    small = frame.label_map.small
    pixels = np.bincount(small.ravel())
    column = np.zeros(len(pixels), np.int64)
    for track in frame.tracks:
        if track.label and track.label < len(column):
            column[track.label] = 1 + track.class_id
    return np.bincount(column, pixels, minlength=1 + classes) / small.size


@dataclass(frozen=True)
class ReportFacts:
    """What is known before the first frame."""

    bag: str
    model: str
    backend: str
    classes: ClassTable
    nodes: dict[str, str]
    """Topic -> node whose outputs it gets."""
    start: int
    """When the first message of the bag was received [ns]."""
    options: dict[str, str]
    """The settings, in words."""


def changed_options(settings: ReplaySettings, tracking: TrackerSettings) -> dict[str, str]:
    """The settings: the tracker, and names and values of options other than the defaults."""
    usual, options = asdict(ReplaySettings()), {"tracker": tracking.tracker}
    for name, value in asdict(settings).items():
        if value != usual[name]:
            options[name] = ", ".join(value) if isinstance(value, tuple) else str(value)
    return options


class ReplayReport:
    """What is gathered of all cameras; the page and the table of tracks are written into `out`."""

    def __init__(self, facts: ReportFacts, out: Path) -> None:
        self.facts, self.out = facts, out
        self._table = TrackFiles(out, facts.classes)
        most = max(MOST_PICTURES // len(facts.nodes), 1)
        self.cameras = {
            topic: CameraNotes(facts.classes, most, partial(self._table.add, node))
            for topic, node in facts.nodes.items()
        }
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The replay has taken."""
        return time.perf_counter() - self._begun

    def add(self, topic: str, received: int, result: Processed) -> None:
        """Take a frame and when its image was received [ns]."""
        self.cameras[topic].add((received - self.facts.start) * 1e-9, result)

    def mean_shares(self) -> Floats:
        """[1 + classes] of the pixels of all frames, the first of no class; 0 without frames."""
        frames = sum(notes.frames for notes in self.cameras.values())
        sums = np.sum([notes.share_sums() for notes in self.cameras.values()], axis=0)
        return sums / max(frames, 1)

    def track_counts(self) -> NDArray[np.int64]:
        """[classes] confirmed tracks of all cameras."""
        return np.sum([notes.tracks.counts() for notes in self.cameras.values()], axis=0)

    def quantiles(self) -> Floats:
        """[3] `QUANTILES` of all frames in milliseconds; NaN without frames."""
        return quantiles(
            np.sum([notes.latency.histogram for notes in self.cameras.values()], axis=0)
        )

    def finish(self) -> None:
        """Complete the table of tracks; OSError if it cannot be written."""
        self._table.finish(
            (self.facts.nodes[topic], track)
            for topic, notes in self.cameras.items()
            for track in notes.tracks.living()
        )

    def close(self) -> None:
        """Close the files."""
        self._table.close()
