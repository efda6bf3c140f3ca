"""Tracking by features of an image network that was trained for something else.

UniTrack's idea (Wang et al., NeurIPS 2021): a network that was not trained on tracks distinguishes
objects well enough. Nothing of our network but its masks is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError, settings_class
from ..types import Detections
from .baselines import image_of
from .embedding import Expected, LifecycleSettings, LifecycleTracker, Ranking, cosine, running_mean
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
LEVEL = 1
"""Stride 8 of the pyramid of the ImageNet network. Coarser features separate objects on synthetic
streets as well, but those of a small object are mostly of its surroundings: it looks like what
stood there before."""

_Floats = NDArray[np.floating]
_Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""RGB image [H, W, 3] -> features [C, h, w] of it."""


@register
class AppearanceTracker(LifecycleTracker):
    """Features averaged over the mask of a segment, and motion.

    A segment far from the predicted box of a track is another object, however similar.

    Args:
        settings: settings; the defaults if None.
        features: the image network; None = one that was trained on ImageNet.

    Raises:
        ConfigError: a package of the ImageNet network is missing.
    """

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "appearance"

    def __init__(self, settings: Settings | None = None, features: _Features | None = None) -> None:
        super().__init__(settings)
        self._features = features or _imagenet_features()

    def describe(self, detections: Detections) -> _Floats:
        """Run the image network, unless there is no thing; ConfigError without an image."""
        image = image_of(detections, self.settings.tracker)
        if not len(detections):
            return np.zeros((0, 0))
        return _pooled(self._features(image), detections.row_masks)

    def blend(self, previous: _Floats, cue: _Floats) -> _Floats:
        """A running mean."""
        return running_mean(previous, cue, MOMENTUM)

    def compare(self, detections: Detections, cues: _Floats, expected: Expected) -> Ranking:
        """Near and similar; the overlap orders them."""
        similarity = cosine(cues, np.stack(expected.cues))
        near = expected.distance(detections.regions.boxes) <= REACH
        rank = similarity + OVERLAP_WEIGHT * expected.overlap
        return rank, near & (similarity >= MIN_COSINE)


def _imagenet_features() -> _Features:
    try:  # only who needs this tracker needs torch
        from ..model.backbone import imagenet_features

        return imagenet_features(LEVEL)
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
