"""Base of all trackers: settings, the table of living tracks, and a name in `TRACKERS`.

A tracker is a subclass of `Tracker` with settings of its own, in a module of this package:

    @register
    class NearestTracker(Tracker):
        @settings_class
        class Settings(TrackerSettings):
            tracker: ClassVar[str] = "nearest"
            reach: float = number(50.0, 0, 1000, "Pixels that an object may move.")

Its name is then a value of the node parameter and of the option `tracker`, and its settings are
parameters of the node.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..config_io import number, settings_class
from ..types import TRACK_DTYPE, Detections, TrackState, rows_without_track
from .clock import StreamTime

Ids = NDArray[np.int64]

VELOCITY_MOMENTUM = 0.5
"""Weight of the newest displacement in the velocity of a track."""
_MEMORY = np.dtype(
    [
        ("row", TRACK_DTYPE),  # as when last seen
        *(("seen_ns", np.int64), ("era", np.int64)),  # stream time of `last_seen`
        *(("score_sum", np.float64), ("confirmed", np.bool_), ("visible", np.bool_)),
    ]
)


def _opaque(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The same rows without their fields: NumPy copies structured rows field by field."""
    return rows.view(np.dtype((np.void, rows.itemsize)))


def select_rows(rows: NDArray[np.void], index: NDArray) -> NDArray[np.void]:
    """`rows[index]`, several times faster."""
    return _opaque(rows)[index].view(rows.dtype)


@settings_class
class TrackerSettings:
    """Settings that all trackers have. Times are in seconds, valid at any frame rate."""

    tracker: ClassVar[str]
    """Name of the tracker that they are of."""
    reset_gap_s: float = number(
        5.0, 0, 3600, "Maximum gap between two stamps in seconds; a longer one resets the tracker."
    )


S = TypeVar("S", bound=TrackerSettings)


@dataclass(frozen=True)
class TrackUpdate:
    """What a tracker returns for the N detections of one frame."""

    rows: NDArray[np.void]
    """[N] of `TRACK_DTYPE`, row i for detection i; track id 0 = no track: too uncertain to start
    one, or (quasi-dense) a duplicate. Labels are not set yet."""
    coasted: NDArray[np.void]
    """Confirmed tracks without pixels in this frame, by id."""
    born: tuple[int, ...]
    """Ids first given in this frame."""
    ended: tuple[int, ...]
    """Ids of tracks that ended with this frame."""


class Tracker(ABC, Generic[S]):
    """Assigns a track id to each thing of a stream of frames.

    Subclasses decide which detection gets which id, and when a track ends.

    Args:
        settings: settings; the defaults if None.
    """

    Settings: ClassVar[type[TrackerSettings]]
    any_network: ClassVar[bool] = True
    """Off: it needs the embeddings of one kind of network."""

    def __init__(self, settings: S | None = None) -> None:
        self.settings: S = settings or cast(S, self.Settings())
        """New ones are used from the next frame on."""
        self.next_id = 1
        """Counts on over a reset."""
        self.reset()

    def reset(self) -> None:
        """Remove all tracks; new ids continue the count."""
        self.tracks: NDArray[np.void] = np.zeros(0, _MEMORY)
        """Living tracks by ascending id."""

    @abstractmethod
    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """[N] ids of the detections: of a living track, or one of `new_ids`; or 0."""

    def new_ids(self, count: int) -> Ids:
        """[count] ids that no track has had."""
        self.next_id += count
        return np.arange(self.next_id - count, self.next_id)

    def classes(self, seen: NDArray[np.void]) -> NDArray[np.int64]:
        """[K] classes of tracks whose newest segments are `seen` [K], of `TRACK_DTYPE`."""
        return seen["class_id"]

    def confirmed(self, ages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[K] whether tracks are confirmed that have had pixels in so many frames."""
        return ages > 0

    @abstractmethod
    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """[M] which of `tracks` have not ended."""

    def forget(self, ids: tuple[int, ...]) -> None:
        """Drop what is stored of tracks that have ended."""

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on beside the settings. A reset does not change it."""
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that was kept over a reset."""
        vars(self).update(state)

    def update(
        self, detections: Detections, stamp: int, time: StreamTime | None = None
    ) -> TrackUpdate:
        """Match the detections of one frame with the tracks, start new ones and end old ones.

        Args:
            detections: the things of the frame.
            stamp: nanoseconds, for first_seen and last_seen of the rows.
            time: for all differences; None = the stamps are exact and never go back.

        Raises:
            ConfigError: the engine does not return what the tracker compares.
        """
        now = time or StreamTime(stamp)
        ids = self.assign(detections, now)
        matched = np.flatnonzero(ids)
        born = self._start(ids[matched], stamp)
        rows = rows_without_track(
            detections.class_ids, detections.scores, detections.regions, stamp, is_thing=True
        )
        self.tracks["visible"] = False
        seen = self._see(ids[matched], select_rows(rows, matched), now)
        _opaque(rows)[matched] = _opaque(seen)
        alive = self.alive(now)
        ended = tuple(self.tracks["row"]["track_id"][~alive].tolist())
        self.tracks = select_rows(self.tracks, alive)
        self.forget(ended)
        return TrackUpdate(rows, self._coasted(), born, ended)

    def _start(self, ids: Ids, stamp: int) -> tuple[int, ...]:
        """Add rows for the ids that have none; returns these ids."""
        known = len(self.tracks)
        newest = self.tracks["row"]["track_id"].max(initial=0)
        new = np.sort(ids[ids > newest])  # see `assign`
        # always another array: a suspended stream may still refer to the one before
        tracks = np.zeros(known + len(new), _MEMORY)
        tracks[:known] = self.tracks
        started = tracks["row"][known:]
        started["track_id"], started["first_seen"], started["velocity"] = new, stamp, math.nan
        self.tracks = tracks
        return tuple(new.tolist())

    def _see(self, ids: Ids, seen: NDArray[np.void], now: StreamTime) -> NDArray[np.void]:
        """Update the tracks `ids` [K] with the rows of their segments; returns their new rows."""
        at = np.searchsorted(self.tracks["row"]["track_id"], ids)
        tracks = select_rows(self.tracks, at)
        old = tracks["row"]
        seen["track_id"], seen["first_seen"] = ids, old["first_seen"]
        seen["velocity"] = _velocities(tracks, seen["centroid"], now)
        seen["age"] += old["age"]
        tracks["score_sum"] += seen["score"]
        seen["track_score"] = tracks["score_sum"] / seen["age"]
        seen["class_id"] = self.classes(seen)
        tracks["confirmed"] |= self.confirmed(seen["age"])
        seen["state"] = np.where(
            tracks["confirmed"], int(TrackState.CONFIRMED), int(TrackState.TENTATIVE)
        )
        _opaque(old)[:], tracks["visible"] = _opaque(seen), True
        tracks["seen_ns"], tracks["era"] = now.ns, now.era
        _opaque(self.tracks)[at] = _opaque(tracks)
        return seen

    def _coasted(self) -> NDArray[np.void]:
        hidden = self.tracks["confirmed"] & ~self.tracks["visible"]
        rows = select_rows(self.tracks["row"], hidden)
        rows["state"], rows["area"] = TrackState.COASTED, 0
        return rows


class NoTracker(Tracker[TrackerSettings]):
    """In place of a tracker for a model without thing classes: task semantic."""

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """No detection is a thing."""
        return np.zeros(len(detections), np.int64)

    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """There are no tracks."""
        return np.zeros(0, np.bool_)


TRACKERS: dict[str, type[Tracker]] = {}
"""All trackers by name."""
T = TypeVar("T", bound=type[Tracker])


def register(tracker: T) -> T:
    """Class decorator: a tracker, under the name in its settings."""
    TRACKERS[tracker.Settings.tracker] = tracker
    return tracker


def _velocities(
    tracks: NDArray[np.void], centroids: NDArray[np.float64], now: StreamTime
) -> NDArray[np.float64]:
    """[K, 2] pixels per second, smoothed; NaN until a track was seen at two times.

    `tracks` [K] are as they were when last seen, `centroids` [K, 2] where they are now.
    """
    old = tracks["row"]["velocity"]
    seconds = now.seconds_since(tracks["seen_ns"], tracks["era"])
    seconds[tracks["row"]["age"] == 0] = math.nan
    weight = VELOCITY_MOMENTUM * now.certainty(seconds)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        newest = (centroids - tracks["row"]["centroid"]) / seconds[:, None]
    first = np.where(weight == VELOCITY_MOMENTUM, newest, math.nan)
    mixed = np.where(np.isnan(old), first, weight * newest + (1 - weight) * old)
    # images of one time keep the velocity; where no time could be measured it is unknown
    return np.where((seconds <= 0)[:, None], old, mixed)
