"""The life of an id: the only place where a kernel slot becomes a track.

A segment that matches no track starts a tentative one, which is confirmed after a few frames. A
track without pixels coasts: it keeps its embedding, so the object is known again when it returns
from behind another, until the track ends by age. Ids count up and are never given twice.

Matching is by embeddings, as in the paper, with three additions:
- Confirmed tracks outrank tentative ones, and overlap with the place where a track should be now
  outranks a little similarity. Both only order candidates; neither makes or forbids a match. Two
  halves of one object, or two identical cars, look the same in each frame: without this they
  would swap ids at random.
- The class is a vote over the life of the track, not part of its identity: a confirmed track also
  takes a segment of another thing class if it is alike, overlaps its place and nothing of its own
  class was left. So a rider who is a person in one frame and a cyclist in the next keeps one id.
- The memory is the life of a track in seconds; the authors count frames.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import TrackingConfig
from ..geometry import Regions
from ..types import Track, TrackState
from .association import box_overlap, embedding_similarity, match_greedily

CONFIRMED_BONUS = 0.2
"""How much less alike a confirmed track may be than a tentative one and still go first."""
VOTE_DECAY = 0.9
"""Weight of the older votes for the class of a track, per frame."""
VELOCITY_MOMENTUM = 0.5
"""Weight of the newest displacement in the velocity of a track."""
UNKNOWN = (math.nan, math.nan)
"""Velocity of a track seen only once."""


@dataclass(frozen=True)
class Detections:
    """The thing segments of one frame, N of them."""

    class_ids: NDArray[np.int64]
    """[N]"""
    scores: NDArray[np.float32]
    """[N] class scores 0..1."""
    embeddings: NDArray[np.float32]
    """[N, E]"""
    regions: Regions
    """Geometry in image pixels."""

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True)
class Tracked:
    """What the tracker makes of the N detections of one frame."""

    visible: tuple[Track, ...]
    """N rows by track id, labels counting up; then, with track id 0, the segments too uncertain
    to start a track."""
    detection_of: NDArray[np.int64]
    """[N] the detection of each visible row."""
    coasted: tuple[Track, ...]
    """Confirmed tracks without pixels in this frame, by id."""
    born: tuple[int, ...]
    """Ids first given in this frame."""
    ended: tuple[int, ...]


class Tracker:
    """Gives each thing segment of a stream of frames its track id."""

    def __init__(self, config: TrackingConfig | None = None, first_epoch: int = 0) -> None:
        self.config = config or TrackingConfig()
        self.epoch = first_epoch
        """Counts the resets."""
        self._memory: list[_Memory] = []
        self._next_id = 1

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._memory = []
        self.epoch += 1

    def update(self, detections: Detections, stamp: int, first_label: int = 1) -> Tracked:
        """Match the segments of one frame with the tracks, start new ones and end old ones.

        Args:
            detections: the thing segments of the frame.
            stamp: nanoseconds, not before the stamp of the last update.
            first_label: label of the first visible row.
        """
        known = [m for m in self._memory if self._lives(m, stamp)]
        owners = {i: known[j] for i, j in self._match(detections, known, stamp)}
        for memory in self._memory:
            memory.visible = False
        owners |= {i: self._start(stamp) for i in self._births(detections, owners)}
        segments = _segments(detections)
        for i, memory in owners.items():
            self._see(memory, segments[i], stamp)
        ended = tuple(m.id for m in self._memory if not self._lives(m, stamp))
        self._memory = [m for m in self._memory if self._lives(m, stamp)]
        order = sorted(owners, key=lambda i: owners[i].id)
        order += [i for i in range(len(segments)) if i not in owners]
        return Tracked(
            visible=tuple(
                owners[i].row(label) if i in owners else _untracked(segments[i], label, stamp)
                for label, i in enumerate(order, start=first_label)
            ),
            detection_of=np.array(order, np.int64),
            coasted=tuple(m.row(label=0) for m in self._memory if m.confirmed and not m.visible),
            born=tuple(m.id for m in owners.values() if m.age == 1),
            ended=ended,
        )

    def _lives(self, memory: _Memory, stamp: int) -> bool:
        """A track lives while it has pixels, or had some not too long ago.

        Without the first, a camera slower than the time limit would lose every track.
        """
        config = self.config
        limit = config.max_coast_s if memory.confirmed else config.max_tentative_coast_s
        return memory.visible or stamp - memory.last_seen <= round(limit * 1e9)

    def _match(
        self, detections: Detections, known: list[_Memory], stamp: int
    ) -> list[tuple[int, int]]:
        if not known or not len(detections):
            return []
        similarity = embedding_similarity(
            detections.embeddings, np.stack([m.embedding for m in known]), self.config.least_cosine
        )
        overlap = box_overlap(detections.regions.boxes, _boxes_at(known, stamp))
        confirmed = np.array([m.confirmed for m in known])
        same_class = detections.class_ids[:, None] == np.array([m.class_id for m in known])
        moved_class = confirmed & (overlap > 0)
        alike = (similarity > 0) & (similarity >= self.config.match_threshold)
        rank = similarity + self.config.overlap_weight * overlap + CONFIRMED_BONUS * confirmed
        # a pair of two classes comes after every pair of one class: those rank 0 or higher
        rank = np.where(same_class, rank, rank - 10.0)
        return match_greedily(rank, alike & (same_class | moved_class), detections.scores)

    def _births(self, detections: Detections, owners: Container[int]) -> list[int]:
        """Detections that start a track, the most certain first."""
        order = np.argsort(-detections.scores, kind="stable").tolist()
        return [
            i for i in order if i not in owners and detections.scores[i] >= self.config.birth_score
        ]

    def _start(self, stamp: int) -> _Memory:
        memory = _Memory(self._next_id, first_seen=stamp)
        self._next_id += 1
        self._memory.append(memory)
        return memory

    def _see(self, memory: _Memory, segment: _Segment, stamp: int) -> None:
        """Take a segment into the track."""
        if memory.age:
            new = self.config.embedding_momentum
            memory.embedding = new * segment.embedding + (1 - new) * memory.embedding
            memory.velocity = _velocity(memory, segment.centroid, stamp)
        else:
            memory.embedding = segment.embedding
        memory.segment = segment
        memory.votes = {c: v * VOTE_DECAY for c, v in memory.votes.items()}
        memory.votes[segment.class_id] = memory.votes.get(segment.class_id, 0.0) + segment.score
        memory.score_sum += segment.score
        memory.last_seen = stamp
        memory.age += 1
        memory.confirmed = memory.confirmed or memory.age >= self.config.confirm_frames
        memory.visible = True


@dataclass(frozen=True)
class _Segment:
    """One detection, as plain numbers."""

    class_id: int
    score: float
    embedding: NDArray[np.float32]
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    truncated: bool


@dataclass
class _Memory:
    """One track, as it was when last seen."""

    id: int
    first_seen: int
    last_seen: int = 0
    segment: _Segment = field(init=False)
    embedding: NDArray[np.floating] = field(init=False)
    velocity: tuple[float, float] = UNKNOWN
    votes: dict[int, float] = field(default_factory=dict)
    score_sum: float = 0.0
    age: int = 0
    confirmed: bool = False
    visible: bool = True

    @property
    def class_id(self) -> int:
        return max(self.votes, key=self.votes.__getitem__)

    def row(self, label: int) -> Track:
        """The track as others see it; without pixels its state is coasted and its area 0."""
        seen = TrackState.CONFIRMED if self.confirmed else TrackState.TENTATIVE
        return Track(
            label=label,
            track_id=self.id,
            class_id=self.class_id,
            is_thing=True,
            state=seen if self.visible else TrackState.COASTED,
            score=self.segment.score,
            track_score=self.score_sum / self.age,
            age=self.age,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            box=self.segment.box,
            centroid=self.segment.centroid,
            velocity=self.velocity,
            area=self.segment.area if self.visible else 0,
            truncated=self.segment.truncated,
        )


def _segments(detections: Detections) -> list[_Segment]:
    regions = detections.regions
    columns = (
        detections.class_ids.tolist(),
        detections.scores.tolist(),
        detections.embeddings,
        regions.areas.tolist(),
        map(tuple, regions.boxes.tolist()),
        map(tuple, regions.centroids.tolist()),
        regions.truncated.tolist(),
    )
    return [_Segment(*row) for row in zip(*columns, strict=True)]


def _boxes_at(known: list[_Memory], stamp: int) -> NDArray[np.float64]:
    """[M, 4] where the boxes should be at `stamp`, if the motion went on."""
    boxes = np.array([m.segment.box for m in known], np.float64)
    seconds = np.array([stamp - m.last_seen for m in known]) * 1e-9
    boxes[:, :2] += np.nan_to_num([m.velocity for m in known]) * seconds[:, None]
    return boxes


def _velocity(memory: _Memory, centroid: tuple[float, float], stamp: int) -> tuple[float, float]:
    """Pixels per second, smoothed; unknown until the track was seen at two stamps."""
    seconds = (stamp - memory.last_seen) * 1e-9
    if seconds <= 0:
        return memory.velocity
    x, y = (
        (new - old) / seconds for new, old in zip(centroid, memory.segment.centroid, strict=True)
    )
    if memory.velocity is UNKNOWN:
        return x, y
    keep = 1 - VELOCITY_MOMENTUM
    return (
        VELOCITY_MOMENTUM * x + keep * memory.velocity[0],
        VELOCITY_MOMENTUM * y + keep * memory.velocity[1],
    )


def _untracked(segment: _Segment, label: int, stamp: int) -> Track:
    """The row of a thing without an identity."""
    return Track(
        label=label,
        track_id=0,
        class_id=segment.class_id,
        is_thing=True,
        state=TrackState.TENTATIVE,
        score=segment.score,
        track_score=segment.score,
        age=1,
        first_seen=stamp,
        last_seen=stamp,
        box=segment.box,
        centroid=segment.centroid,
        velocity=UNKNOWN,
        area=segment.area,
        truncated=segment.truncated,
    )
