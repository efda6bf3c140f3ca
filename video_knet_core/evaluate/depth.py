"""Depth-aware panoptic quality on synthetic streets, whose depth is known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..data.camvid import street_ids
from ..engine.base import ModelError, Runtime
from ..metrics.dvpq import DepthAwarePanopticQuality
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..tracking import TrackerSettings
from ..types import Detections
from .panoptic import panoptic_maps

MAX_RANGE = 80.0
"""Metres beyond which the true depth counts as unknown, as on KITTI (Eigen et al., 2014)."""


def evaluate_depth(
    runtime: Runtime, streets: Iterable[int], frames: int, tracking: TrackerSettings | None = None
) -> dict[str, float]:
    """Scores of a model that estimates depth.

    Args:
        streets: seeds.
        frames: of each street; 4 at least, for all windows of the metric.
        tracking: settings of the tracker.

    Returns:
        By name: "dvpq" 0..1 (`metrics/dvpq.py`); over all pixels up to `MAX_RANGE`, "abs_rel",
        "rmse" in metres, and "delta", the fraction that is less than a quarter off.

    Raises:
        ModelError: the model estimates no depth.
        ConfigError: a class of the street is none of the model's.
    """
    classes = runtime.info.classes
    ids = street_ids(classes, runtime.info.name)
    metric = DepthAwarePanopticQuality(len(classes), classes.things)
    for seed in streets:
        street, of_depth = SyntheticStreet(seed, depth=True), _DepthRuntime(runtime)
        predictor = VideoPredictor(of_depth, tracking)
        for t in progress_bar(range(frames), f"street {seed}", leave=False):
            truth = street.frame(t).relabelled(ids)
            assert truth.depth is not None
            frame = predictor.step(truth.image, round(t * 1e9 / street.fps))
            depth = np.where(truth.depth <= MAX_RANGE, truth.depth, 0)
            metric.update(
                *(truth.semantic, truth.instance, depth, *panoptic_maps(frame)),
                of_depth.enlarged(truth.depth.shape),
                sequence=seed,
            )
    quality = metric.compute()
    errors = quality.errors
    return {
        **{"dvpq": quality.vpq, "abs_rel": errors.abs_rel},
        **{"rmse": errors.rmse, "delta": errors.delta},
    }


class _DepthRuntime:
    """A `Runtime` that remembers the depth of its last step."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.info = runtime.name, runtime.info
        self._runtime = runtime
        self._depth: NDArray[np.float32] | None = None

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        detections, state = self._runtime.step(image, state)
        if detections.depth is None:
            raise ModelError(f"{self.info.name}: expected a model that estimates depth")
        self._depth = detections.depth
        return detections, state

    def enlarged(self, size: tuple[int, ...]) -> NDArray[np.float32]:
        """The depth of the last step at the size (height, width) of the image."""
        assert self._depth is not None, "there was a step"
        return np.asarray(cv2.resize(self._depth, size[::-1]), np.float32)

    def close(self) -> None:
        self._runtime.close()
