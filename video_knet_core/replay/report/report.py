"""Gathers what a report tells, while a replay runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import TrackingConfig
from ...types import ClassTable
from ..camera import Processed
from ..replay_settings import ReplaySettings
from .camera_notes import CameraNotes
from .latency import quantiles
from .lifelines import Lifeline
from .time_bins import TimeBins
from .track_table import TrackTable

MOST_PICTURES = 12
"""Of all cameras together, unless there are more cameras than that."""


@dataclass(frozen=True)
class Facts:
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
    """What was asked for, in words."""


@dataclass(frozen=True)
class Outcome:
    """What is known after the last frame."""

    failures: dict[str, tuple[int, list[str]]]
    """Topic -> images that could not be used, and the reasons of the first of them."""
    damage: str
    """Where and why the bag could be read no further; empty if all of it could."""
    late: dict[str, int] = field(default_factory=dict)
    """Topic -> images left out because they came after one with a later stamp."""
    left_out: dict[str, TimeBins] = field(default_factory=dict)
    """Topic -> when images were left out: [bins, 2], failed ones and late ones."""


def in_words(settings: ReplaySettings, tracking: TrackingConfig) -> dict[str, str]:
    """What was asked for: names and values of those options that are not the usual ones."""
    words: dict[str, str] = {"Association": tracking.association}
    if settings.every > 1:
        words["Images"] = f"one in {settings.every}"
    if settings.start:
        words["From"] = f"{settings.start:g} s after the first message"
    if settings.duration is not None:
        words["For"] = f"{settings.duration:g} s"
    return words


class Report:
    """What is gathered of all cameras; it takes the same room however long the bag is.

    Args:
        facts: about the replay.
        out: folder for the table of tracks; None = there is no table.
    """

    def __init__(self, facts: Facts, out: Path | None = None) -> None:
        self.facts = facts
        self._table = TrackTable(out, facts.classes) if out is not None else None
        most = max(MOST_PICTURES // len(facts.nodes), 1)
        self.cameras = {
            topic: CameraNotes(facts.classes, most, partial(self._ended, topic))
            for topic in facts.nodes
        }
        self._begun = time.perf_counter()
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """The replay has taken, without what an interruption undid."""
        return self._before + time.perf_counter() - self._begun

    def add(self, topic: str, received: int, result: Processed) -> None:
        """Take a frame and when its image was received [ns]."""
        self.cameras[topic].add((received - self.facts.start) * 1e-9, result)

    def mean_shares(self) -> NDArray[np.float64]:
        """[1 + classes] of the pixels of all frames, the first of no class; 0 without frames."""
        frames = sum(notes.frames for notes in self.cameras.values())
        sums = np.sum([notes.share_sums() for notes in self.cameras.values()], axis=0)
        return sums / max(frames, 1)

    def track_counts(self) -> NDArray[np.int64]:
        """[classes] confirmed tracks of all cameras."""
        return np.sum([notes.tracks.counts() for notes in self.cameras.values()], axis=0)

    def quantiles(self) -> NDArray[np.float64]:
        """[3] `latency.QUANTILES` of all frames in milliseconds; NaN without frames."""
        histograms = [notes.latency.histogram for notes in self.cameras.values()]
        return quantiles(np.sum(histograms, axis=0, keepdims=True))[0]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        cameras = {topic: camera.state() for topic, camera in self.cameras.items()}
        table = self._table.size() if self._table is not None else None
        return {"seconds": self.seconds, "cameras": cameras, "table": table}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another report was."""
        self._before = state["seconds"]
        for topic, camera in self.cameras.items():
            camera.restore(state["cameras"][topic])
        if self._table is not None:
            self._table.restore(state["table"])

    def finish(self) -> None:
        """Complete the table of tracks; OSError if it cannot be written."""
        if self._table is not None:
            self._table.finish(
                (self.facts.nodes[topic], line)
                for topic, notes in self.cameras.items()
                for line in notes.tracks.living()
            )

    def close(self) -> None:
        """Close the files."""
        if self._table is not None:
            self._table.close()

    def _ended(self, topic: str, line: Lifeline) -> None:
        if self._table is not None:
            self._table.add(self.facts.nodes[topic], line)
