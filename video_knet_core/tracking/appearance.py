"""Tracking by features of an image network that was trained for something else.

UniTrack's idea (Wang et al., NeurIPS 2021): a network that was not trained on tracks distinguishes
objects well enough. Nothing of our network but its masks is used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError, settings_class
from ..types import Detections
from .baselines import image_of
from .embedding import Expected, LifecycleSettings, VectorTracker, cosine
from .tracker import register

MIN_COSINE = 0.7
"""Minimum cosine of the features of one object. On synthetic streets 95 % of the objects are above
0.9 from one frame to the next, and four of five above 0.75 a second later; but so is one of five
pairs of different objects of one class."""
MOMENTUM = 0.2
"""Weight of the new features in the memory of a track: little, as a part of it looks different."""
REACH = 1.0
"""Maximum distance of an object from the predicted box of a track, in diagonals of that box."""
OVERLAP_WEIGHT = 0.1
"""Weight of box overlap in the order of possible matches: it decides between look-alikes only."""
NETWORK = "video_knet_core.model.image_features"
"""Module of the network: it needs torch, so nothing imports it before a tracker needs it."""

_Floats = NDArray[np.floating]


@settings_class
class AppearanceSettings(LifecycleSettings):
    """Settings of `AppearanceTracker`."""

    tracker: ClassVar[str] = "appearance"


@register(AppearanceSettings)
class AppearanceTracker(VectorTracker[AppearanceSettings]):
    """Features averaged over the mask of a segment, and motion.

    A segment far from the predicted box of a track is another object, however similar.

    Args:
        settings: settings; the defaults if None.
        features: RGB image [H, W, 3] -> features [C, h, w] of it; None = an ImageNet network.

    Raises:
        ConfigError: a package of the ImageNet network is missing.
    """

    momentum = MOMENTUM

    def __init__(
        self,
        settings: AppearanceSettings | None = None,
        features: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__(settings)
        self._features = features or _imagenet_features()
        self._vectors: _Floats = np.zeros((0, 0))

    def observe(self, detections: Detections) -> None:
        """Run the image network, unless there is no thing; ConfigError without an image."""
        image = image_of(detections, self.settings.tracker)
        if len(detections):
            self._vectors = _pooled(self._features(image), detections.row_masks)

    def vectors(self, detections: Detections) -> _Floats:
        """The features that `observe` has computed."""
        return self._vectors

    def compare(
        self, detections: Detections, expected: Expected
    ) -> tuple[_Floats, NDArray[np.bool_]]:
        """Near and similar; the overlap orders them."""
        similarity = cosine(self._vectors, self.remembered(expected))
        near = expected.distance(detections.regions.boxes) <= REACH
        rank = similarity + OVERLAP_WEIGHT * expected.overlap
        return rank, near & (similarity >= MIN_COSINE)


def _imagenet_features() -> Any:
    try:
        return import_module(NETWORK).imagenet_features()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracker 'appearance' needs {error.name}: pip install 'video_knet_ros[train]'"
        ) from None


def _pooled(features: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[N, C] mean of features [C, h, w] under each mask; a cell counts by its covered fraction.

    So a segment smaller than a cell has features too.
    """
    channels, height, width = features.shape
    shares = [
        cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for mask in masks
    ]
    weights = np.stack(shares).reshape(-1, height * width)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ features.reshape(channels, -1).T
