"""The life of an id: the only place where a kernel slot becomes a track.

A segment that matches no track starts a tentative one, which is confirmed after a few frames. A
track without pixels coasts: it keeps its embedding, so the object is known again when it returns
from behind another, until the track ends by age. Ids count up and are never given twice.

An `Association` (strategy.py) tells which segment is like which track: ours by embeddings, as in
the paper. Three additions to the paper:
- Confirmed tracks outrank tentative ones, and overlap with the place where a track should be now
  outranks a little similarity. Two halves of one object, or two identical cars, look the same in
  each frame: without this they would swap ids at random. And what is small and out of sight
  must come back near that place (`EmbeddingAssociation`): else it passes its id on to a look-alike
  across the street.
- The class is a vote over the life of the track, not part of its identity: a confirmed track also
  takes a segment of another thing class if it is alike, overlaps its place and nothing of its own
  class was left. So a rider who is a person in one frame and a cyclist in the next keeps one id.
- The memory is the life of a track in seconds; the authors count frames.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrackingConfig
from .association import box_overlap, match_greedily
from .clock import StreamTime
from .detections import Segment, ThingDetections
from .history import History, Tracked, visible_rows
from .strategy import Association, EmbeddingAssociation, Expected

CONFIRMED_BONUS = 0.2
"""How much less alike a confirmed track may be than a tentative one and still go first."""
VOTE_DECAY = 0.9
"""Weight of the older votes for the class of a track, per frame."""


class Tracker:
    """Gives each thing segment of a stream of frames its track id.

    Args:
        config: settings; `config.association` is not read here but by `build_tracker`.
        first_epoch: number of the first epoch.
        association: which segment is like which track; by embeddings if None.
    """

    def __init__(
        self,
        config: TrackingConfig | None = None,
        first_epoch: int = 0,
        association: Association | None = None,
    ) -> None:
        self._association = association or EmbeddingAssociation()
        self.config = config or TrackingConfig()
        self.epoch = first_epoch
        """Counts the resets."""
        self._memory: list[Memory] = []
        self._next_id = 1

    @property
    def config(self) -> TrackingConfig:
        """Settings; new ones hold from the next frame on."""
        return self._association.config

    @config.setter
    def config(self, config: TrackingConfig) -> None:
        self._association.config = config

    def reset(self) -> None:
        """Forget all tracks; ids go on counting."""
        self._memory = []
        self._association.reset()
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore`; not to be changed."""
        return {
            "epoch": self.epoch,
            "next_id": self._next_id,
            "memory": self._memory,
            "association": self._association.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another tracker with the same association was."""
        self.epoch, self._next_id = state["epoch"], state["next_id"]
        self._memory = state["memory"]
        self._association.restore(state["association"])

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
            time: for all differences; None = the stamps are exact and never go back.

        Raises:
            ConfigError: the engine does not give what the association compares.
        """
        now = time or StreamTime(stamp)
        self._association.observe(detections)
        known = [m for m in self._memory if self._lives(m, now)]
        owners = {i: known[j] for i, j in self._match(detections, known, now)}
        for memory in self._memory:
            memory.visible = False
        owners |= {i: self._start(stamp) for i in self._births(detections, owners)}
        segments = detections.segments()
        for i, memory in owners.items():
            self._association.remember(memory.id, detections, i)
            self._see(memory, segments[i], stamp, now)
        ended = tuple(m.id for m in self._memory if not self._lives(m, now))
        self._memory = [m for m in self._memory if self._lives(m, now)]
        self._association.forget(ended)
        return Tracked(
            *visible_rows(segments, owners, stamp, first_label),
            coasted=tuple(m.row(label=0) for m in self._memory if m.confirmed and not m.visible),
            born=tuple(m.id for m in owners.values() if m.age == 1),
            ended=ended,
        )

    def _lives(self, memory: Memory, now: StreamTime) -> bool:
        """A track lives while it has pixels, or had some not too long ago.

        Without the first, a camera slower than the time limit would lose every track.
        """
        config = self.config
        limit = config.max_coast_s if memory.confirmed else config.max_tentative_coast_s
        return memory.visible or now.ns - memory.seen_at.ns <= round(limit * 1e9)

    def _match(
        self, detections: ThingDetections, known: list[Memory], now: StreamTime
    ) -> list[tuple[int, int]]:
        if not known or not len(detections):
            return []
        boxes = _boxes_at(known, now)
        overlap = box_overlap(detections.regions.boxes, boxes)
        visible = np.array([m.visible for m in known])
        expected = Expected([m.id for m in known], boxes, overlap, visible)
        rank, alike = self._association.compare(detections, expected)
        confirmed = np.array([m.confirmed for m in known])
        same_class = detections.class_ids[:, None] == np.array([m.class_id for m in known])
        moved_class = confirmed & (overlap > 0)
        rank = rank + CONFIRMED_BONUS * confirmed
        # a pair of two classes comes after every pair of one class: those rank 0 or higher
        rank = np.where(same_class, rank, rank - 10.0)
        return match_greedily(rank, alike & (same_class | moved_class), detections.scores)

    def _births(self, detections: ThingDetections, owners: Container[int]) -> list[int]:
        """Detections that start a track, the most certain first."""
        order = np.argsort(-detections.scores, kind="stable").tolist()
        return [
            i for i in order if i not in owners and detections.scores[i] >= self.config.birth_score
        ]

    def _start(self, stamp: int) -> Memory:
        memory = Memory(self._next_id, first_seen=stamp)
        self._next_id += 1
        self._memory.append(memory)
        return memory

    def _see(self, memory: Memory, segment: Segment, stamp: int, now: StreamTime) -> None:
        """Take a segment into the track."""
        memory.votes = {c: v * VOTE_DECAY for c, v in memory.votes.items()}
        memory.votes[segment.class_id] = memory.votes.get(segment.class_id, 0.0) + segment.score
        memory.see(segment, stamp, now)
        memory.confirmed = memory.confirmed or memory.age >= self.config.confirm_frames


@dataclass
class Memory(History):
    """The history of a track, and the votes for its class."""

    votes: dict[int, float] = field(default_factory=dict)
    confirmed: bool = False

    @property
    def class_id(self) -> int:
        """The class with the most votes."""
        return max(self.votes, key=self.votes.__getitem__)


def _boxes_at(known: list[Memory], now: StreamTime) -> NDArray[np.float64]:
    """[M, 4] where the boxes should be now, if the motion went on."""
    boxes = np.array([m.segment.box for m in known], np.float64)
    seconds = np.array([(now.ns - m.seen_at.ns) * 1e-9 for m in known])
    boxes[:, :2] += np.nan_to_num([m.velocity for m in known]) * seconds[:, None]
    return boxes
