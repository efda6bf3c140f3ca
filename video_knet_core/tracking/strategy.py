"""How a tracker knows an object again: what it remembers of a track, and which segment is like it.

`Tracker` owns the life of ids, and one `Association` tells it which segment could be which track.
Ours is here; the trackers to compare with are in `baselines.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import TrackingConfig
from .association import Float, cosine
from .detections import ThingDetections

NEAR = 1.0
"""Diagonals of a track's box that an object may be off its place."""
FAR_COSINE = 0.8
"""Least cosine of an object that is farther off, as after a jerk of the camera."""
LARGE = 0.025
"""Share of the image that the box of a track covers which is known again far off, after it was out
of sight. Smaller objects are all alike to the network."""

Cue = TypeVar("Cue")
"""What an association remembers of a track: an embedding, a mask, the state of a filter."""


@dataclass(frozen=True)
class Expected:
    """The M tracks that may go on, where they should be if their motion went on."""

    ids: Sequence[int]
    """[M] track ids."""
    boxes: NDArray[np.float64]
    """[M, 4] x, y, width, height in image pixels."""
    overlap: NDArray[np.floating]
    """[N, M] intersection over union of the boxes of the N detections with them."""
    visible: NDArray[np.bool_]
    """[M] the track had pixels in the frame before."""

    def distance(self, boxes: NDArray) -> Float:
        """[N, M] from the centres of boxes [N, 4] to the expected ones, in diagonals of these."""
        centres, wanted = (b[:, :2] + b[:, 2:] / 2 for b in (boxes, self.boxes))
        away = np.linalg.norm(centres[:, None] - wanted, axis=-1)
        return away / np.linalg.norm(self.boxes[:, 2:], axis=-1)


class Association(ABC, Generic[Cue]):
    """Tells which detection could be which track. One per tracker; `cues` is its memory."""

    def __init__(self, config: TrackingConfig | None = None) -> None:
        self.config = config or TrackingConfig()
        """The tracker's settings, kept up to date by it."""
        self.cues: dict[int, Cue] = {}
        """What is remembered of each living track, by id."""

    def observe(self, detections: ThingDetections) -> None:
        """Bring memory to a new frame. Called once for each frame, also for one without things.

        Raises:
            ConfigError: the engine does not give what this association compares.
        """

    @abstractmethod
    def compare(
        self, detections: ThingDetections, expected: Expected
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Rank [N, M] of each pair, about 0..1 and higher is better, and whether it may be made.

        There is at least one detection and one track.
        """

    @abstractmethod
    def remember(self, track_id: int, detections: ThingDetections, i: int) -> None:
        """Take detection i of the observed frame into the memory of a track, or start with it."""

    def forget(self, track_ids: Iterable[int]) -> None:
        """Drop tracks that have ended."""
        for track_id in track_ids:
            del self.cues[track_id]

    def reset(self) -> None:
        """Forget everything: the next frame is a first one."""
        self.cues = {}

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore`."""
        return {"cues": self.cues}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what another association of this class did."""
        self.cues = state["cues"]


class VectorAssociation(Association[Float]):
    """An association that remembers a running mean of a vector per segment."""

    @property
    @abstractmethod
    def momentum(self) -> float:
        """Weight of the new vector in the memory of a track, 0..1."""

    @abstractmethod
    def vectors(self, detections: ThingDetections) -> Float:
        """[N, E] the vectors of the observed frame."""

    def remembered(self, expected: Expected) -> Float:
        """[M, E] the vectors of the tracks."""
        return np.stack([self.cues[track_id] for track_id in expected.ids])

    def remember(self, track_id: int, detections: ThingDetections, i: int) -> None:
        """Mix the vector of detection i into the mean."""
        vector, new = self.vectors(detections)[i], self.momentum
        if track_id in self.cues:
            vector = new * vector + (1 - new) * self.cues[track_id]
        self.cues[track_id] = vector


class EmbeddingAssociation(VectorAssociation):
    """Ours: association embeddings, and the place where a track should be.

    Embeddings alone give the id of a track that is out of sight to a look-alike across the street.
    So such a track must come back near the place where it should be. Elsewhere, one in sight or a
    large one may go to who is very much like it.
    """

    @property
    def momentum(self) -> float:
        """As configured."""
        return self.config.embedding_momentum

    def vectors(self, detections: ThingDetections) -> Float:
        """The association embeddings."""
        return detections.embeddings

    def compare(
        self, detections: ThingDetections, expected: Expected
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Alike and near, or distinct and very much alike; the overlap orders them."""
        similarity = cosine(detections.embeddings, self.remembered(expected))
        alike = (similarity > 0) & (similarity >= self.config.match_threshold)
        near = expected.distance(detections.regions.boxes) <= NEAR
        large = expected.boxes[:, 2:].prod(axis=1) >= LARGE * math.prod(detections.image_size)
        distinct = expected.visible | large
        near |= distinct & (similarity >= FAR_COSINE)
        return similarity + self.config.overlap_weight * expected.overlap, alike & near
