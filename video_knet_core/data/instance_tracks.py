"""Tracks of instances put together from the predictions of frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..run_lengths import RunLengths
from .predictions import Instance, Instances


@dataclass
class _CollectedTrack:
    """One track of a video so far. Run lengths are kept, no masks."""

    masks: list[RunLengths | None]
    """One for every frame so far."""
    score: float = 0.0
    """Mean of its scores in frames."""
    frames: int = 0
    votes: dict[int, float] = field(default_factory=dict)
    """Summed score of each class."""

    @property
    def class_id(self) -> int:
        """The class with the largest sum of scores, of equal ones the first."""
        return max(self.votes, key=lambda class_id: self.votes[class_id])

    def add(self, instance: Instance) -> None:
        """Add the next frame."""
        self.masks.append(instance.mask)
        votes = self.votes.get(instance.class_id, 0.0) + instance.score
        self.votes[instance.class_id] = votes
        self.frames += 1
        self.score += (instance.score - self.score) / self.frames  # exact for equal scores


class TrackCollector:
    """Puts the tracks of one video together, frame after frame."""

    def __init__(self) -> None:
        self.tracks: dict[int, _CollectedTrack] = {}
        """By track id, in the order of their first frames."""
        self._frames = 0

    def add(self, instances: Instances) -> None:
        """Add the next frame; ValueError if a track is there twice."""
        for instance in instances:
            track = self.tracks.setdefault(
                instance.track_id, _CollectedTrack([None] * self._frames)
            )
            if len(track.masks) > self._frames:
                raise ValueError(f"expected one mask of the track {instance.track_id}, got two")
            track.add(instance)
        self._frames += 1
        for track in self.tracks.values():
            track.masks += [None] * (self._frames - len(track.masks))
