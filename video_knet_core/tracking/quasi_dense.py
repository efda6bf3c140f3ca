"""The authors' tracker, exactly: which results of the paper's code can be compared with.

It is their QuasiDenseEmbedTracker (knet/video/qdtrack/trackers) with its quirks. A track exists
from its first frame on, has one class, and is remembered for a number of frames.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..config_io import settings_class
from ..geometry import box_overlap
from ..types import Detections
from .clock import StreamTime
from .tracker import Ids, Tracker, TrackerSettings, number, register

_Floats = NDArray[np.floating]
_Labels = NDArray[np.integer]

NO_ID = 0
"""Id of a detection without a track; it may be a backdrop in the next frame."""
DUPLICATE = -1
"""Id of an uncertain detection that looks like a track; it is ignored."""


@settings_class
class QuasiDenseSettings(TrackerSettings):
    """Defaults are the authors' for KITTI-STEP. Scores are class scores, 0..1."""

    tracker: ClassVar[str] = "quasi_dense"
    positional_ids: bool = Field(
        False,
        description="Reproduce the authors' code: ids are shifted after a suppressed box.",
    )
    init_score: float = number(
        0.35, 0, 1, "Score above which an unmatched detection starts a track."
    )
    object_score: float = number(
        *(0.3, 0, 1),
        "Score above which a detection continues a track; below it, less overlap is allowed.",
    )
    match_score: float = number(0.5, 0, 1, "Bi-softmax above which a detection continues a track.")
    memory_frames: int = number(
        5, 1, 1000, "Number of frames without pixels after which a track ends."
    )
    backdrop_frames: int = number(
        1, 0, 1000, "Number of frames for which detections without a track are kept."
    )
    momentum: float = number(
        0.8, 0, 1, "Weight of the new embedding in the running mean of a track."
    )
    nms_confidence: float = number(
        0.5, 0, 1, "Bi-softmax above which an uncertain detection is removed as a duplicate."
    )
    nms_backdrop_overlap: float = number(
        0.3,
        0,
        1,
        "Box overlap above which an uncertain detection is removed in favour of a better one.",
    )
    nms_class_overlap: float = number(
        0.7, 0, 1, "Box overlap above which any detection is removed in favour of a better one."
    )


@register
class QuasiDenseTracker(Tracker[QuasiDenseSettings]):
    """Ids by the bi-softmax of embeddings, among detections and memory of one class.

    Backdrops, the last detections without a track, take part in the bi-softmax: a detection that
    is most similar to a backdrop continues no track.

    Track ids are the authors' + 1, and continue over a reset, where theirs start again. As in
    their code a frame without a thing counts as a frame but leaves the memory as it is: what is
    too old by then is forgotten in the next frame with a thing, after that was matched.
    """

    Settings = QuasiDenseSettings

    def __init__(self, settings: QuasiDenseSettings | None = None) -> None:
        super().__init__(settings)
        self._frame = 0

    def reset(self) -> None:
        """Remove all tracks and backdrops; new ids continue the count."""
        super().reset()
        self.memory_ids: Ids = np.zeros(0, np.int64)
        """[M] ids of the tracks in memory, in the order of their birth."""
        self._classes: _Labels = np.zeros(0, np.int64)
        self._vectors: _Floats = np.zeros((0, 0))
        self._last_frames: Ids = np.zeros(0, np.int64)
        self.backdrops: tuple[tuple[_Labels, _Floats], ...] = ()
        """Classes and embeddings of the last frames' detections without a track, newest first."""

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """See `Tracker.assign`."""
        self._frame += 1
        assigned = np.zeros(len(detections), np.int64)
        if not len(detections):
            return assigned
        scores = detections.scores.astype(np.float32)
        bboxes = np.column_stack([_corners(detections).astype(np.float32), scores])
        kept, ids = self.match(bboxes, detections.class_ids, detections.embeddings, self._frame)
        if self.settings.positional_ids:
            # the authors write the ids of the kept detections on the masks of all, in order
            kept = np.argsort(-scores, kind="stable")[: len(ids)]
        assigned[kept] = np.maximum(ids, 0)
        return assigned

    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """[M] which tracks are in memory."""
        return np.isin(self.tracks["row"]["track_id"], self.memory_ids)

    def match(
        self, bboxes: _Floats, labels: _Labels, embeddings: _Floats, frame: int
    ) -> tuple[NDArray[np.int64], Ids]:
        """Ids of the N detections of one frame.

        Args:
            bboxes: [N, 5] x0, y0, x1, y1, score. Their area is (x1 - x0) * (y1 - y0): that of the
                authors' boxes, which name the first and last pixel, is a row and a column short.
            labels: [N] classes.
            embeddings: [N, E], not normalised.
            frame: number of the frame, higher than the last one.

        Returns:
            The K detections that the non-maximum suppression keeps, by descending score [K]; and
            their ids [K], or `NO_ID` or `DUPLICATE`.
        """
        kept = self._suppress(bboxes)
        bboxes, labels, embeddings = bboxes[kept], labels[kept], embeddings[kept]
        ids = self._continue(bboxes[:, 4], labels, embeddings)
        new = (ids == NO_ID) & (bboxes[:, 4] > self.settings.init_score)
        ids[new] = self.new_ids(int(new.sum()))
        backdrop = (ids == NO_ID) & ~_overlaps_better(bboxes, self.settings.nms_backdrop_overlap)
        self._remember(ids, labels, embeddings, frame)
        backdrops = (labels[backdrop], embeddings[backdrop]), *self.backdrops
        self.backdrops = backdrops[: self.settings.backdrop_frames]
        return kept, ids

    def _suppress(self, bboxes: _Floats) -> NDArray[np.int64]:
        """Detections that overlap no better one too much, by descending score.

        As the authors do it, a detection also yields to one that itself is out.
        """
        settings = self.settings
        order = np.argsort(-bboxes[:, 4], kind="stable")
        limits = np.where(
            bboxes[order, 4] < settings.object_score,
            settings.nms_backdrop_overlap,
            settings.nms_class_overlap,
        )
        return order[~_overlaps_better(bboxes[order], limits[:, None])]

    def _continue(self, scores: _Floats, labels: _Labels, embeddings: _Floats) -> Ids:
        """[K] ids of the tracks that detections, by descending score, continue or duplicate."""
        ids = np.full(len(scores), NO_ID, np.int64)
        if not len(self.memory_ids) or not len(ids):
            return ids
        classes, vectors = (
            np.concatenate(parts)
            for parts in zip((self._classes, self._vectors), *self.backdrops, strict=True)
        )
        memory_ids = np.full(len(classes), NO_ID)
        memory_ids[: len(self.memory_ids)] = self.memory_ids
        similarity = bi_softmax(embeddings @ vectors.T) * (labels[:, None] == classes)
        certain = scores > self.settings.object_score
        for i in range(len(ids)):
            j = int(similarity[i].argmax())
            if similarity[i, j] <= self.settings.match_score or memory_ids[j] == NO_ID:
                continue
            if certain[i]:
                ids[i] = memory_ids[j]
                similarity[:, j] = 0
            elif similarity[i, j] > self.settings.nms_confidence:
                ids[i] = DUPLICATE
        return ids

    def _remember(self, ids: Ids, labels: _Labels, embeddings: _Floats, frame: int) -> None:
        """Store the detections with an id, and forget the tracks not seen for long."""
        seen = np.flatnonzero(ids > 0)
        ids, labels, embeddings = ids[seen], labels[seen], embeddings[seen]
        new = ~np.isin(ids, self.memory_ids)
        at, weight = np.searchsorted(self.memory_ids, ids[~new]), self.settings.momentum
        # the embeddings of the first tracks decide the size and the type of all
        vectors = self._vectors.copy() if len(self.memory_ids) else embeddings[:0]
        vectors[at] = (1 - weight) * vectors[at] + weight * embeddings[~new]
        last = self._last_frames.copy()
        last[at] = frame
        last = np.concatenate([last, np.full(new.sum(), frame)])
        kept = last > frame - self.settings.memory_frames
        self.memory_ids = np.concatenate([self.memory_ids, ids[new]])[kept]
        self._classes = np.concatenate([self._classes, labels[new]])[kept]
        self._vectors = np.concatenate([vectors, embeddings[new]])[kept]
        self._last_frames = last[kept]


def bi_softmax(logits: _Floats) -> _Floats:
    """Mean of the softmax over the columns and over the rows of [N, M] dot products, each 0..1."""
    if not logits.size:
        return np.zeros(logits.shape)
    return (_softmax(logits, axis=1) + _softmax(logits, axis=0)) / 2


def _softmax(logits: _Floats, axis: int) -> _Floats:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _corners(detections: Detections) -> NDArray[np.floating | np.integer]:
    """[N, 4] x0, y0, x1, y1, the first and last pixel: `boxes`, or those of the regions."""
    if detections.boxes is not None:
        return detections.boxes
    upper_left, size = detections.regions.boxes[:, :2], detections.regions.boxes[:, 2:]
    return np.concatenate([upper_left, upper_left + size - 1], axis=1)


def _overlaps_better(bboxes: _Floats, limit: float | _Floats) -> NDArray[np.bool_]:
    """[N] whether a box, of those by descending score, overlaps one before it over `limit`."""
    # in 64 bits, because a limit such as 0.3 in 32 bits is not 0.3
    size = bboxes[:, 2:4] - bboxes[:, :2]
    boxes = np.concatenate([bboxes[:, :2], size], axis=1).astype(np.float64)
    return np.any(np.tril(box_overlap(boxes, boxes), k=-1) > limit, axis=1)
