"""Detections of a frame to tracks: `build_tracker` gives the tracker a configuration names."""

from __future__ import annotations

from collections.abc import Callable

from ..config import TrackingConfig
from ..config_io import ConfigError
from .baselines import (
    AppearanceAssociation,
    ImageFeatures,
    KernelAssociation,
    MaskOverlap,
    MaskPropagation,
)
from .clock import Mark, StreamClock, StreamTime
from .detections import Segment
from .history import History
from .quasi_dense import QuasiDenseTracker, Remembered
from .sort import BoxFilter, SortAssociation
from .strategy import Association, EmbeddingAssociation
from .tracker import Memory, Tracker
from .untracked import NoTracker

_ASSOCIATIONS: dict[str, Callable[[], Association]] = {
    "embedding": EmbeddingAssociation,
    "kernels": KernelAssociation,
    "iou": MaskOverlap,
    "sort": SortAssociation,
    "mask_propagation": MaskPropagation,
}
"""Those that need nothing to be built."""
STATE_CLASSES = (
    *(BoxFilter, History, Memory, Remembered, Segment),
    *(Mark, StreamClock, StreamTime),
)
"""What the `state()` of a tracker holds beside plain values."""


def build_tracker(
    config: TrackingConfig | None = None,
    first_epoch: int = 0,
    image_features: Callable[[], ImageFeatures] | None = None,
    has_things: bool = True,
) -> Tracker | QuasiDenseTracker | NoTracker:
    """The tracker of `config.association`, or none for a model without things.

    Args:
        config: settings.
        first_epoch: number of the first epoch.
        image_features: opens the image network of "appearance"; the others do not call it.
        has_things: whether the model has thing classes.

    Raises:
        ConfigError: "appearance" without `image_features`.
    """
    config = config or TrackingConfig()
    if not has_things:
        return NoTracker(config, first_epoch)
    if config.association == "quasi_dense":
        return QuasiDenseTracker(config, first_epoch)
    if config.association != "appearance":
        return Tracker(config, first_epoch, _ASSOCIATIONS[config.association]())
    if image_features is None:
        raise ConfigError("association 'appearance' needs an image network: give image_features")
    return Tracker(config, first_epoch, AppearanceAssociation(image_features()))
