"""The authors' tracker, exactly: which results of the paper's code can be compared with.

`QuasiDenseMatcher` is their QuasiDenseEmbedTracker (knet/video/qdtrack/trackers) with its quirks.
`QuasiDenseTracker` does what their detector does around it, with the face of `Tracker`. A track
exists from its first frame on, has one class, and is remembered for a number of frames.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrackingConfig
from .association import bi_softmax, box_overlap
from .clock import StreamTime
from .detections import ThingDetections
from .history import History, Tracked, visible_rows

Float = NDArray[np.floating]
Labels = NDArray[np.integer]

NO_ID = -1
"""Id of a detection without a track; it may be a backdrop in the next frame."""
DUPLICATE = -2
"""Id of an uncertain detection that looks like a track; it is ignored."""


@dataclass(frozen=True)
class QuasiDenseConstants:
    """The authors' settings for KITTI-STEP. Scores are class scores, 0..1."""

    init_score: float = 0.35
    """A detection without a match starts a track above this score."""
    object_score: float = 0.3
    """A detection continues a track above this score; below it, less overlap is accepted."""
    match_score: float = 0.5
    """Bi-softmax above which a detection and a track are the same."""
    memory_frames: int = 5
    """A track last seen this many frames ago is forgotten."""
    backdrop_frames: int = 1
    """Detections without a track are remembered for this many frames."""
    momentum: float = 0.8
    """Weight of the new embedding in the memory of a track."""
    nms_confidence: float = 0.5
    """Bi-softmax above which an uncertain detection is a duplicate of a track."""
    nms_backdrop_overlap: float = 0.3
    """Box overlap with a better detection above which an uncertain one, or a backdrop, is out."""
    nms_class_overlap: float = 0.7
    """Box overlap with a better detection above which any detection is out."""


@dataclass
class Remembered:
    """A track or a backdrop in memory."""

    label: int
    embedding: Float
    """[E]"""
    last_frame: int


class QuasiDenseMatcher:
    """Ids by the bi-softmax of embeddings, among detections and memory of one class.

    Backdrops, the last detections without a track, take part in the bi-softmax: a detection that
    is most alike to a backdrop continues no track.
    """

    def __init__(self, constants: QuasiDenseConstants | None = None) -> None:
        self.constants = constants or QuasiDenseConstants()
        self.ids_given = 0
        """The next new id; counts on over a reset."""
        self._tracks: dict[int, Remembered] = {}
        self._backdrops: deque[list[Remembered]] = deque(maxlen=self.constants.backdrop_frames)

    @property
    def memory_ids(self) -> tuple[int, ...]:
        """Ids of the tracks in memory, in the order of their birth."""
        return tuple(self._tracks)

    @property
    def backdrop_count(self) -> int:
        """Backdrops in memory."""
        return sum(map(len, self._backdrops))

    def reset(self) -> None:
        """Forget all tracks and backdrops."""
        self._tracks = {}
        self._backdrops.clear()

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore`; not to be changed."""
        return {
            "ids_given": self.ids_given,
            "tracks": self._tracks,
            "backdrops": list(self._backdrops),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another matcher was."""
        self.ids_given, self._tracks = state["ids_given"], state["tracks"]
        self._backdrops.clear()
        self._backdrops.extend(state["backdrops"])

    def match(
        self, bboxes: Float, labels: Labels, embeddings: Float, frame: int
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
        new = (ids == NO_ID) & (bboxes[:, 4] > self.constants.init_score)
        ids[new] = self.ids_given + np.arange(new.sum())
        self.ids_given += int(new.sum())
        backdrops = (ids == NO_ID) & ~_overlaps_better(bboxes, self.constants.nms_backdrop_overlap)
        self._remember_tracks(ids, labels, embeddings, frame)
        self._backdrops.appendleft(_remembered(labels[backdrops], embeddings[backdrops], frame))
        return kept, ids

    def _suppress(self, bboxes: Float) -> NDArray[np.int64]:
        """Detections that overlap no better one too much, by descending score.

        As the authors do it, a detection also yields to one that itself is out.
        """
        constants = self.constants
        order = np.argsort(-bboxes[:, 4], kind="stable")
        limits = np.where(
            bboxes[order, 4] < constants.object_score,
            constants.nms_backdrop_overlap,
            constants.nms_class_overlap,
        )
        return order[~_overlaps_better(bboxes[order], limits[:, None])]

    def _continue(self, scores: Float, labels: Labels, embeddings: Float) -> NDArray[np.int64]:
        """[K] ids of the tracks that detections, by descending score, continue or duplicate."""
        ids = np.full(len(scores), NO_ID, np.int64)
        if not self._tracks or not len(scores):
            return ids
        memory_ids = [*self._tracks, *[NO_ID] * self.backdrop_count]
        alike = self._alike(labels, embeddings)
        certain = scores > self.constants.object_score
        for i in range(len(ids)):
            j = int(alike[i].argmax())
            if alike[i, j] <= self.constants.match_score or memory_ids[j] == NO_ID:
                continue
            if certain[i]:
                ids[i] = memory_ids[j]
                alike[:, j] = 0
            elif alike[i, j] > self.constants.nms_confidence:
                ids[i] = DUPLICATE
        return ids

    def _alike(self, labels: Labels, embeddings: Float) -> Float:
        """[K, M] bi-softmax of the detections and the memory: tracks, then backdrops."""
        memory = [*self._tracks.values(), *chain(*self._backdrops)]
        alike = bi_softmax(embeddings @ np.stack([m.embedding for m in memory]).T)
        return alike * (labels[:, None] == np.array([m.label for m in memory]))

    def _remember_tracks(
        self, ids: NDArray[np.int64], labels: Labels, embeddings: Float, frame: int
    ) -> None:
        """Take the detections with an id into memory, and forget the tracks not seen for long."""
        new = self.constants.momentum
        for id_, seen in zip(ids.tolist(), _remembered(labels, embeddings, frame), strict=True):
            if id_ in self._tracks:
                seen.embedding = (1 - new) * self._tracks[id_].embedding + new * seen.embedding
            if id_ >= 0:
                self._tracks[id_] = seen
        oldest = frame - self.constants.memory_frames
        self._tracks = {i: t for i, t in self._tracks.items() if t.last_frame > oldest}


class QuasiDenseTracker:
    """Gives each thing segment of a stream of frames the id that the authors' code gives it.

    Track ids are theirs + 1, and go on counting over a reset, where theirs start again. As in
    their code a frame without a thing counts as a frame but leaves the memory as it is: what is
    too old by then is forgotten in the next frame with a thing, after that was matched.
    """

    def __init__(self, config: TrackingConfig | None = None, first_epoch: int = 0) -> None:
        self.config = config or TrackingConfig(association="quasi_dense")
        self.epoch = first_epoch
        """Counts the resets."""
        self._matcher = QuasiDenseMatcher()
        self._frame = 0
        self._histories: dict[int, History] = {}

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._matcher.reset()
        self._histories = {}
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore`; not to be changed."""
        return {
            "epoch": self.epoch,
            "frame": self._frame,
            "histories": self._histories,
            "matcher": self._matcher.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another tracker was."""
        self.epoch, self._frame = state["epoch"], state["frame"]
        self._histories = state["histories"]
        self._matcher.restore(state["matcher"])

    def update(
        self,
        detections: ThingDetections,
        stamp: int,
        first_label: int = 1,
        time: StreamTime | None = None,
    ) -> Tracked:
        """Match the segments of one frame with the tracks, start new ones and end old ones.

        Args:
            detections: the thing segments of the frame.
            stamp: nanoseconds; what the tracks tell as first_seen and last_seen.
            first_label: label of the first visible row.
            time: for velocities; None = the stamps are exact and never go back.
        """
        now = time or StreamTime(stamp)
        segments = detections.segments()
        for history in self._histories.values():
            history.visible = False
        owners = {i: self._history(id_, stamp) for i, id_ in self._match(detections)}
        for i, history in owners.items():
            history.see(segments[i], stamp, now)
        ended = self._end()
        return Tracked(
            *visible_rows(segments, owners, stamp, first_label),
            coasted=tuple(h.row(label=0) for h in self._histories.values() if not h.visible),
            born=tuple(h.id for h in owners.values() if h.age == 1),
            ended=ended,
        )

    def _match(self, detections: ThingDetections) -> list[tuple[int, int]]:
        """Pairs of a detection and its track id, by descending score."""
        self._frame += 1
        if not len(detections):
            return []
        scores = detections.scores.astype(np.float32)
        bboxes = np.column_stack([detections.corners.astype(np.float32), scores])
        kept, ids = self._matcher.match(
            bboxes, detections.class_ids, detections.embeddings, self._frame
        )
        if self.config.positional_ids:
            # the authors write the ids of the kept detections on the masks of all, in order
            kept = np.argsort(-scores, kind="stable")[: len(ids)]
        with_id = ids >= 0
        return list(zip(kept[with_id].tolist(), (ids[with_id] + 1).tolist(), strict=True))

    def _history(self, track_id: int, stamp: int) -> History:
        return self._histories.setdefault(track_id, History(track_id, first_seen=stamp))

    def _end(self) -> tuple[int, ...]:
        """Drop the tracks that the matcher has forgotten; their ids."""
        alive = {id_ + 1 for id_ in self._matcher.memory_ids}
        ended = tuple(i for i in self._histories if i not in alive)
        self._histories = {i: h for i, h in self._histories.items() if i in alive}
        return ended


def _overlaps_better(bboxes: Float, limit: float | Float) -> NDArray[np.bool_]:
    """[N] whether a box, of those by descending score, overlaps one before it over `limit`."""
    # in 64 bits, because a limit such as 0.3 in 32 bits is not 0.3
    size = bboxes[:, 2:4] - bboxes[:, :2]
    boxes = np.concatenate([bboxes[:, :2], size], axis=1).astype(np.float64)
    return np.any(np.tril(box_overlap(boxes, boxes), k=-1) > limit, axis=1)


def _remembered(labels: Labels, embeddings: Float, frame: int) -> list[Remembered]:
    rows = zip(labels.tolist(), embeddings, strict=True)
    return [Remembered(label, embedding, frame) for label, embedding in rows]
