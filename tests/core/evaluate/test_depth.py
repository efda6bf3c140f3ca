"""Depth-aware quality of a model on synthetic streets, with an engine that sees the truth."""

from __future__ import annotations

import numpy as np
import pytest
from networks import small_config

from synthetic_street import SyntheticStreet
from video_knet_core.data.camvid import street_ids
from video_knet_core.engine.base import ModelError, ModelInfo
from video_knet_core.evaluate.depth import MAX_RANGE, evaluate_depth
from video_knet_core.types import Detections

SEED, FRAMES = 3, 4
CLASSES = small_config().classes


class TrueStuff:
    """A runtime of the true stuff and depth of the street, times a factor; its state is the number
    of the frame."""

    name = "truth"
    info = ModelInfo("truth", CLASSES, 288, 480)

    def __init__(self, factor: float | None) -> None:
        self.factor, self.street = factor, SyntheticStreet(SEED, depth=True)

    def step(self, image, state):
        t = state or 0
        truth = self.street.frame(t)
        slots = len(CLASSES)
        ids = street_ids(CLASSES, "truth")[truth.semantic]
        shown = np.where(np.isin(ids, CLASSES.stuff), ids + 1, 0).astype(np.uint8)
        return Detections(
            segment_map=shown,
            class_ids=np.arange(slots),
            scores=np.ones(slots, np.float32),
            areas=np.bincount(shown.ravel(), minlength=slots + 1)[1:],
            embeddings=np.zeros((slots, 1), np.float32),
            depth=None if self.factor is None else self.factor * truth.depth,
        ), t + 1

    def close(self):
        pass


def test_depth_that_is_off_by_a_third_costs_the_two_strict_thresholds():
    exact, off = (evaluate_depth(TrueStuff(factor), [SEED], FRAMES) for factor in (1.0, 4 / 3))
    assert exact["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert exact["rmse"] == pytest.approx(0, abs=1e-4)
    assert exact["delta"] == 1.0
    assert 0.3 < exact["dvpq"] < 1, "things are missed"
    assert off["abs_rel"] == pytest.approx(1 / 3, rel=1e-5)
    assert off["delta"] == 0.0
    assert 0 < off["rmse"] < MAX_RANGE / 3
    assert off["dvpq"] < 0.8 * exact["dvpq"]


def test_a_model_without_depth_is_an_error():
    with pytest.raises(ModelError, match="estimates depth"):
        evaluate_depth(TrueStuff(None), [SEED], 1)
