"""In place of a tracker where a model has no things: task semantic."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import TrackingConfig
from .clock import StreamTime
from .detections import ThingDetections
from .history import Tracked


class NoTracker:
    """The face of `Tracker` for frames without things: it counts resets, and has no tracks.

    Of the settings it knows only reset_gap_s; no association is built.
    """

    def __init__(self, config: TrackingConfig | None = None, first_epoch: int = 0) -> None:
        self.config = config or TrackingConfig()
        self.epoch = first_epoch
        """Counts the resets."""

    def reset(self) -> None:
        """Count a reset."""
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore`."""
        return {"epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self.epoch = state["epoch"]

    def update(
        self,
        detections: ThingDetections,
        stamp: int,
        first_label: int = 1,
        time: StreamTime | None = None,
    ) -> Tracked:
        """No track; ValueError if there is a thing all the same."""
        if len(detections):
            raise ValueError(
                f"a model without thing classes must give no things, found {len(detections)}"
            )
        return Tracked((), np.zeros(0, np.int64), (), (), ())
