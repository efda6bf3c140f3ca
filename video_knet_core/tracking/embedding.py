"""Our tracker: association embeddings, and the life of an id, as most trackers have it.

A segment that matches no track starts a tentative one, which is confirmed after a few frames. A
track without pixels coasts: it keeps its embedding, so the object is recognised when it reappears
from behind another, until the track ends by age. Ids count up and are never used twice.

Three additions to the paper:
- Confirmed tracks outrank tentative ones, and overlap with the predicted box of a track outranks a
  little similarity. Two halves of one object, or two identical cars, look the same in each frame:
  without this they would swap ids at random. And a small track that is out of sight must reappear
  near that box (`EmbeddingTracker`), or it passes its id on to a similar object across the street.
- The class is a vote over the life of the track, not part of its identity: a confirmed track also
  takes a segment of another thing class if it is similar, overlaps its box and no segment of its
  own class was left. So a rider who is a person in one frame and a cyclist in the next keeps an id.
- The memory is the life of a track in seconds; the authors count frames.

The paper (QuasiDenseEmbedTracker in the authors' code) matches by bi-softmax of dot products, which
is relative: with one detection and one track it is 1 whatever the embeddings are, and with n
look-alikes it is 1/n however well they match. The cosine is absolute: the auxiliary track loss
trains it towards 1 for one object and below 0.1 for two. So our tracker uses the cosine.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config_io import settings_class
from ..geometry import box_overlap
from ..types import Detections
from .clock import StreamTime
from .tracker import Ids, Tracker, TrackerSettings, number, register, select_rows

CONFIRMED_BONUS = 0.2
"""How much less similar a confirmed track may be than a tentative one and still go first."""
VOTE_DECAY = 0.9
"""Weight of the older votes for the class of a track, per frame."""
NEAR = 1.0
"""Maximum distance of an object from the predicted box of its track, in diagonals of that box."""
FAR_COSINE = 0.8
"""Minimum cosine of an object that is farther off, as after a jerk of the camera."""
LARGE = 0.025
"""Minimum area of the box of a track that is recognised far off after it was out of sight, as a
fraction of the image. Smaller objects all look similar to the network."""

_Floats = NDArray[np.floating]
_Mask = NDArray[np.bool_]
Ranking = tuple[_Floats, _Mask]
"""Rank [N, M] of each pair of a detection and a track, about 0..1 and higher is better, and whether
the pair is possible."""


@settings_class
class LifecycleSettings(TrackerSettings):
    """When tracks start, are confirmed and end."""

    birth_score: float = number(0.3, 0, 1, "Minimum class score of a segment to start a track.")
    confirm_frames: int = number(
        2, 1, 1000, "Number of frames with pixels after which a track is confirmed."
    )
    max_coast_s: float = number(
        2.0, 0, 3600, "Seconds for which a confirmed track without pixels is kept."
    )
    max_tentative_coast_s: float = number(
        0.2, 0, 3600, "Seconds for which a tentative track without pixels is kept."
    )


@settings_class
class EmbeddingSettings(LifecycleSettings):
    """Settings of `EmbeddingTracker`."""

    tracker: ClassVar[str] = "embedding"
    match_threshold: float = number(
        0.5, 0, 1, "Minimum cosine similarity of embeddings to continue a track."
    )
    overlap_weight: float = number(
        0.5, 0, 100, "Weight of box overlap when possible matches are ranked."
    )
    embedding_momentum: float = number(
        0.8, 0, 1, "Weight of the new embedding in the running mean of a track."
    )


S = TypeVar("S", bound=LifecycleSettings)


@dataclass(frozen=True)
class Expected:
    """The M tracks that may continue, where they are if they keep their velocity."""

    cues: Sequence[Any]
    """[M] what is remembered of them: [M, E] where cues are vectors."""
    boxes: NDArray[np.float64]
    """[M, 4] x, y, width, height in image pixels."""
    overlap: _Floats
    """[N, M] intersection over union of the boxes of the N detections with them."""
    visible: _Mask
    """[M] the track had pixels in the frame before."""

    def distance(self, boxes: NDArray) -> _Floats:
        """[N, M] from the centres of boxes [N, 4] to the expected ones, in diagonals of these."""
        centres, expected = (b[:, :2] + b[:, 2:] / 2 for b in (boxes, self.boxes))
        away = np.linalg.norm(centres[:, None] - expected, axis=-1)
        return away / np.linalg.norm(self.boxes[:, 2:], axis=-1)


class LifecycleTracker(Tracker[S]):
    """Starts, confirms, coasts and ends tracks; a subclass compares detections with tracks.

    It recognises an object by its cue: anything that can be compared with those of tracks.
    """

    def reset(self) -> None:
        """Remove all tracks; new ids continue the count."""
        super().reset()
        self.cues: dict[int, Any] = {}
        """What is remembered of each living track, by id."""
        self._votes: dict[int, dict[int, float]] = {}

    @abstractmethod
    def describe(self, detections: Detections) -> Any:
        """A sequence of the N cues. Called once for each frame, also for one without things.

        Raises:
            ConfigError: the engine does not return what this tracker compares.
        """

    @abstractmethod
    def compare(self, detections: Detections, cues: Any, expected: Expected) -> Ranking:
        """The pairs that `assign` chooses from. There is at least one detection and one track."""

    def blend(self, previous: Any, cue: Any) -> Any:
        """What is remembered of a track after this cue: just that, if not overridden."""
        return cue

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """See `Tracker.assign`."""
        cues = self.describe(detections)
        ids = np.zeros(len(detections), np.int64)
        known = select_rows(self.tracks, self.alive(now))
        if len(known) and len(ids):
            for i, j in self.match(detections, cues, known, now):
                ids[i] = known["row"]["track_id"][j]
        order = np.argsort(-detections.scores, kind="stable")
        births = order[(ids[order] == 0) & (detections.scores[order] >= self.settings.birth_score)]
        ids[births] = self.new_ids(len(births))
        for i in np.flatnonzero(ids).tolist():
            track_id, cue = int(ids[i]), cues[i]
            if track_id in self.cues:
                cue = self.blend(self.cues[track_id], cue)
            self.cues[track_id] = cue
        return ids

    def match(
        self, detections: Detections, cues: Any, known: NDArray[np.void], now: StreamTime
    ) -> list[tuple[int, int]]:
        """Pairs of a detection and a track of `known`."""
        rows = known["row"]
        boxes = rows["box"].astype(np.float64)
        seconds = (now.ns - known["seen_ns"]) * 1e-9
        velocity = np.where(np.isnan(rows["velocity"]), 0.0, rows["velocity"])
        boxes[:, :2] += velocity * seconds[:, None]
        overlap = box_overlap(detections.regions.boxes, boxes)
        remembered = [self.cues[track_id] for track_id in rows["track_id"].tolist()]
        expected = Expected(remembered, boxes, overlap, known["visible"])
        rank, possible = self.compare(detections, cues, expected)
        confirmed = known["confirmed"]
        same_class = detections.class_ids[:, None] == rows["class_id"]
        rank = rank + CONFIRMED_BONUS * confirmed
        # a pair of two classes comes after every pair of one class: those rank 0 or higher
        rank = np.where(same_class, rank, rank - 10.0)
        possible = possible & (same_class | (confirmed & (overlap > 0)))
        return match_greedily(rank, possible, detections.scores)

    def classes(self, seen: NDArray[np.void]) -> NDArray[np.int64]:
        """[K] the class with the most votes."""
        winners = []
        columns = (seen[name].tolist() for name in ("track_id", "class_id", "score"))
        for track_id, class_id, score in zip(*columns, strict=True):
            votes = {c: v * VOTE_DECAY for c, v in self._votes.get(track_id, {}).items()}
            votes[class_id] = votes.get(class_id, 0.0) + score
            self._votes[track_id] = votes
            winners.append(max(votes, key=votes.__getitem__))
        return np.array(winners, np.int64)

    def confirmed(self, ages: NDArray[np.int64]) -> _Mask:
        """See `Tracker.confirmed`."""
        return ages >= self.settings.confirm_frames

    def alive(self, now: StreamTime) -> _Mask:
        """[M] whether a track has pixels, or had some not too long ago.

        Without the first, a camera slower than the time limit would lose every track.
        """
        settings = self.settings
        limits = np.where(
            self.tracks["confirmed"],
            round(settings.max_coast_s * 1e9),
            round(settings.max_tentative_coast_s * 1e9),
        )
        return self.tracks["visible"] | (now.ns - self.tracks["seen_ns"] <= limits)

    def forget(self, ids: tuple[int, ...]) -> None:
        """See `Tracker.forget`."""
        for track_id in ids:
            del self.cues[track_id], self._votes[track_id]


@register
class EmbeddingTracker(LifecycleTracker[EmbeddingSettings]):
    """Association embeddings, and the predicted place of a track.

    By embeddings alone, a track that is out of sight passes its id on to a similar object across
    the street. So such a track must reappear near its predicted box. Elsewhere, a visible or large
    one may continue with a very similar segment.
    """

    Settings = EmbeddingSettings

    def describe(self, detections: Detections) -> _Floats:
        """The association embeddings."""
        return detections.embeddings

    def blend(self, previous: _Floats, cue: _Floats) -> _Floats:
        """A running mean."""
        return running_mean(previous, cue, self.settings.embedding_momentum)

    def compare(self, detections: Detections, cues: _Floats, expected: Expected) -> Ranking:
        """Similar and near, or distinct and very similar; the overlap orders them."""
        similarity = cosine(cues, np.stack(expected.cues))
        similar = (similarity > 0) & (similarity >= self.settings.match_threshold)
        near = expected.distance(detections.regions.boxes) <= NEAR
        large = expected.boxes[:, 2:].prod(axis=1) >= LARGE * math.prod(detections.image_size)
        near |= (expected.visible | large) & (similarity >= FAR_COSINE)
        return similarity + self.settings.overlap_weight * expected.overlap, similar & near


def running_mean(mean: _Floats, new: _Floats, weight: float) -> _Floats:
    """The mean after a new value of this weight, 0..1."""
    return weight * new + (1 - weight) * mean


def cosine(a: _Floats, b: _Floats) -> _Floats:
    """Cosine of each row of `a` [N, E] with each row of `b` [M, E]: [N, M]; 0 for a zero vector."""
    return _unit(a) @ _unit(b).T


def _unit(vectors: _Floats) -> _Floats:
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def match_greedily(rank: _Floats, allowed: _Mask, scores: _Floats) -> list[tuple[int, int]]:
    """One-to-one pairs (detection, track), taken by descending rank.

    The authors go through the detections by descending class score instead, so that a confident
    segment can take the track of a more similar one; here the score only decides between equals.

    Args:
        rank: [N, M], higher is better.
        allowed: [N, M]; other pairs are never made.
        scores: [N] class scores of the detections.
    """
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((-scores[rows], -rank[rows, columns]))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return list(pairs.items())
