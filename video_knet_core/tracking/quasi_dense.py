"""The authors' tracker, exactly: which results of the paper's code can be compared with.

`QuasiDenseMatcher` is their QuasiDenseEmbedTracker (knet/video/qdtrack/trackers) with its quirks,
`QuasiDenseTracker` what their detector does around it. A track exists from its first frame on, has
one class, and is remembered for a number of frames.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any, ClassVar

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
_Memory = tuple[_Labels, _Floats]
"""Classes [M] and embeddings [M, E]."""

NO_ID = -1
"""Id of a detection without a track; it may be a backdrop in the next frame."""
DUPLICATE = -2
"""Id of an uncertain detection that looks like a track; it is ignored."""


@settings_class
class QuasiDenseSettings(TrackerSettings):
    """Defaults are the authors' for KITTI-STEP. Scores are class scores, 0..1."""

    tracker: ClassVar[str] = "quasi_dense"
    positional_ids: Annotated[
        bool,
        Field(
            description="Give ids to the wrong segments after a duplicate, as the authors' code."
        ),
    ] = False
    init_score: Annotated[
        float, number(0, 1, "An unmatched detection starts a track above this score.")
    ] = 0.35
    object_score: Annotated[
        float,
        number(
            0, 1, "A detection continues a track above this score; below, less overlap is allowed."
        ),
    ] = 0.3
    match_score: Annotated[
        float, number(0, 1, "Bi-softmax above which a detection continues a track.")
    ] = 0.5
    memory_frames: Annotated[
        int,
        number(1, 1000, "Frames without pixels after which a track ends."),
    ] = 5
    backdrop_frames: Annotated[
        int,
        number(0, 1000, "Frames for which detections without a track are kept."),
    ] = 1
    momentum: Annotated[
        float, number(0, 1, "Weight of the new embedding in the memory of a track.")
    ] = 0.8
    nms_confidence: Annotated[
        float,
        number(0, 1, "Bi-softmax above which an uncertain detection is a duplicate."),
    ] = 0.5
    nms_backdrop_overlap: Annotated[
        float,
        number(0, 1, "Box overlap above which an uncertain detection yields to a better."),
    ] = 0.3
    nms_class_overlap: Annotated[
        float, number(0, 1, "Box overlap above which any detection yields to a better one.")
    ] = 0.7


class QuasiDenseMatcher:
    """Ids by the bi-softmax of embeddings, among detections and memory of one class.

    Backdrops, the last detections without a track, take part in the bi-softmax: a detection that
    is most similar to a backdrop continues no track.
    """

    def __init__(self, settings: QuasiDenseSettings | None = None) -> None:
        self.settings = settings or QuasiDenseSettings()
        self.ids_given = 0
        """The next new id; counts on over a reset."""
        self.reset()

    def reset(self) -> None:
        """Forget all tracks and backdrops."""
        self.memory_ids: Ids = np.zeros(0, np.int64)
        """[M] ids of the tracks in memory, in the order of their birth."""
        self._tracks: _Memory | None = None
        self._last_frames: Ids = np.zeros(0, np.int64)
        self._backdrops: deque[_Memory] = deque(maxlen=self.settings.backdrop_frames)

    @property
    def backdrop_count(self) -> int:
        """Backdrops in memory."""
        return sum(len(classes) for classes, _ in self._backdrops)

    def state(self) -> dict[str, Any]:
        """Everything that the next frames depend on, as plain values; not to be changed."""
        return {
            "ids_given": self.ids_given,
            "memory_ids": self.memory_ids,
            "tracks": self._tracks,
            "last_frames": self._last_frames,
            "backdrops": list(self._backdrops),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the state of another matcher."""
        self.ids_given, self.memory_ids = state["ids_given"], state["memory_ids"]
        self._tracks, self._last_frames = state["tracks"], state["last_frames"]
        self._backdrops = deque(state["backdrops"], maxlen=self.settings.backdrop_frames)

    def match(
        self, bboxes: _Floats, labels: _Labels, embeddings: _Floats, frame: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of the N detections of one frame.

        Args:
            bboxes: [N, 5] x0, y0, x1, y1, score. Their area is (x1 - x0) * (y1 - y0): that of the
                authors' boxes, which name the first and last pixel, is a row and a column short.
            labels: [N] classes.
            embeddings: [N, E], not normalised.
            frame: number of the frame, higher than the last one.

        Returns:
            The K detections that the non-maximum suppression keeps, by descending score [K]; and
            their ids [K], which count from 0, or `NO_ID` or `DUPLICATE`.
        """
        kept = self._suppress(bboxes)
        bboxes, labels, embeddings = bboxes[kept], labels[kept], embeddings[kept]
        ids = self._continue(bboxes[:, 4], labels, embeddings)
        new = (ids == NO_ID) & (bboxes[:, 4] > self.settings.init_score)
        ids[new] = self.ids_given + np.arange(new.sum())
        self.ids_given += int(new.sum())
        backdrops = (ids == NO_ID) & ~_overlaps_better(bboxes, self.settings.nms_backdrop_overlap)
        self._remember_tracks(ids, labels, embeddings, frame)
        self._backdrops.appendleft((labels[backdrops], embeddings[backdrops]))
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
        if self._tracks is None or not len(self.memory_ids) or not len(scores):
            return ids
        memory_ids = [*self.memory_ids.tolist(), *[NO_ID] * self.backdrop_count]
        similarity = self._similarity(self._tracks, labels, embeddings)
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

    def _similarity(self, tracks: _Memory, labels: _Labels, embeddings: _Floats) -> _Floats:
        """[K, M] bi-softmax of the detections and the memory: tracks, then backdrops."""
        classes, vectors = (
            np.concatenate(parts) for parts in zip(tracks, *self._backdrops, strict=True)
        )
        return bi_softmax(embeddings @ vectors.T) * (labels[:, None] == classes)

    def _remember_tracks(self, ids: Ids, labels: _Labels, embeddings: _Floats, frame: int) -> None:
        """Store the detections with an id, and forget the tracks not seen for long."""
        seen = np.flatnonzero(ids >= 0)
        ids, labels, embeddings = ids[seen], labels[seen], embeddings[seen]
        known = np.isin(ids, self.memory_ids)
        classes, vectors = self._tracks or (labels[:0], embeddings[:0])
        at = np.searchsorted(self.memory_ids, ids[known])
        new = self.settings.momentum
        vectors, last = vectors.copy(), self._last_frames.copy()
        vectors[at] = (1 - new) * vectors[at] + new * embeddings[known]
        last[at] = frame
        started = ~known
        memory_ids = np.concatenate([self.memory_ids, ids[started]])
        last = np.concatenate([last, np.full(started.sum(), frame)])
        kept = last > frame - self.settings.memory_frames
        self.memory_ids, self._last_frames = memory_ids[kept], last[kept]
        self._tracks = (
            np.concatenate([classes, labels[started]])[kept],
            np.concatenate([vectors, embeddings[started]])[kept],
        )


@register(QuasiDenseSettings)
class QuasiDenseTracker(Tracker[QuasiDenseSettings]):
    """Gives each thing segment of a stream of frames the id that the authors' code gives it.

    Track ids are theirs + 1, and continue over a reset, where theirs start again. As in
    their code a frame without a thing counts as a frame but leaves the memory as it is: what is
    too old by then is forgotten in the next frame with a thing, after that was matched.
    """

    def __init__(self, settings: QuasiDenseSettings | None = None) -> None:
        super().__init__(settings)
        self._matcher = QuasiDenseMatcher(self.settings)
        self._frame = 0

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """See `Tracker.assign`."""
        self._frame += 1
        self._matcher.settings = self.settings
        assigned = np.zeros(len(detections), np.int64)
        if not len(detections):
            return assigned
        scores = detections.scores.astype(np.float32)
        bboxes = np.column_stack([_corners(detections).astype(np.float32), scores])
        kept, ids = self._matcher.match(
            bboxes, detections.class_ids, detections.embeddings, self._frame
        )
        if self.settings.positional_ids:
            # the authors write the ids of the kept detections on the masks of all, in order
            kept = np.argsort(-scores, kind="stable")[: len(ids)]
        assigned[kept] = np.maximum(ids + 1, 0)
        return assigned

    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """[M] which tracks the matcher remembers."""
        return np.isin(self.tracks["row"]["track_id"], self._matcher.memory_ids + 1)

    def reset(self) -> None:
        """Remove all tracks; new ids continue the count."""
        super().reset()
        self._matcher.reset()

    def state(self) -> dict[str, Any]:
        """See `Tracker.state`."""
        return {**super().state(), "frame": self._frame, "matcher": self._matcher.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Tracker.restore`."""
        super().restore(state)
        self._frame = state["frame"]
        self._matcher.restore(state["matcher"])


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
