"""Detections of a frame to tracks: `build_tracker` gives the tracker a configuration names."""

from __future__ import annotations

from ..config import TrackingConfig
from .quasi_dense import QuasiDenseTracker
from .tracker import Tracker


def build_tracker(
    config: TrackingConfig | None = None, first_epoch: int = 0
) -> Tracker | QuasiDenseTracker:
    """The tracker of `config.association`; its first epoch is `first_epoch`."""
    config = config or TrackingConfig()
    if config.association == "quasi_dense":
        return QuasiDenseTracker(config, first_epoch)
    return Tracker(config, first_epoch)
