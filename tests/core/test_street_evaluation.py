from __future__ import annotations

import numpy as np
import pytest

from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_core.engine.runtime import ModelError, ModelInfo
from video_knet_core.evaluate.street import (
    HELD_OUT_SEED,
    STREET_CLASSES,
    IdSwitches,
    evaluate_synthetic,
)
from video_knet_core.types import ClassInfo, ClassTable, Segments

THINGS = ("person", "cyclist", "vehicle")
SLOTS = 200


def table(names):
    return ClassTable(tuple(ClassInfo(i, n, n in THINGS, (0, 0, 0)) for i, n in enumerate(names)))


class Oracle:
    """An engine that knows the street; `swap` gives each object another look in every frame."""

    name = "oracle"

    def __init__(self, swap=False, names=STREET_CLASSES):
        self.info = ModelInfo("oracle", table(names), 288, 480)
        self._street = SyntheticStreet(HELD_OUT_SEED)
        self._swap = swap

    def step(self, image, state):
        t = 0 if state is None else state
        truth = self._street.frame(t)
        np.testing.assert_array_equal(image, truth.image)
        keys, slots = np.unique(
            truth.semantic.astype(np.int64) * 2**16 + truth.instance, return_inverse=True
        )
        slot_map = slots.reshape(truth.semantic.shape).astype(np.uint8) + 1
        slot_map[truth.semantic == 255] = 0
        looks = [
            np.random.default_rng([key, t if self._swap else 0]).normal(size=64) for key in keys
        ]
        areas = np.bincount(slot_map.ravel(), minlength=len(keys) + 1)[1:]
        scores = np.ones(len(keys), np.float32)
        return Segments(slot_map, keys // 2**16, scores, areas, np.array(looks)), t + 1

    def close(self):
        pass


def test_a_perfect_engine_scores_1():
    scores = evaluate_synthetic(Oracle(), clips=1, frames=8)
    assert scores.sq == pytest.approx(1) and scores.miou == pytest.approx(1)
    assert scores.aq > 0.95 and scores.steady == 1 and scores.switches == 0
    assert scores.stays > 0


def test_without_recognisable_embeddings_only_the_tracking_suffers():
    scores = evaluate_synthetic(Oracle(swap=True), clips=1, frames=8)
    assert scores.sq == pytest.approx(1)
    assert scores.aq < 0.5 and scores.steady < 0.2 and scores.switches > scores.stays


def test_a_model_with_other_classes_is_refused():
    with pytest.raises(ModelError, match="found .*'tram'"):
        evaluate_synthetic(Oracle(names=["road", "tram"]), clips=1, frames=1)


def ids(*values):
    """A row of four pixels for each id."""
    return np.repeat(np.array([values]), 4, axis=1)


def stays_of(*frames):
    counter = IdSwitches()
    for truth, predicted in frames:
        counter.update(truth, predicted)
    counter.end_clip()
    return (*counter.stays(), counter.switches)


def test_an_id_that_stays_is_no_switch():
    assert stays_of((ids(0, 1, 2), ids(0, 7, 8)), (ids(1, 0, 2), ids(7, 0, 8))) == (2, 2, 0)


def test_swapped_ids_are_two_switches():
    assert stays_of((ids(1, 2), ids(7, 8)), (ids(1, 2), ids(8, 7))) == (2, 0, 2)


def test_a_missed_frame_is_no_switch_but_the_id_after_it_counts():
    found, missed = (ids(1), ids(7)), (ids(1), ids(0))
    assert stays_of(found, missed, found) == (1, 1, 0)
    assert stays_of(found, missed, (ids(1), ids(9))) == (1, 0, 1)


def test_an_object_that_left_and_returned_may_have_a_new_id():
    first, away, back = (ids(1), ids(7)), (ids(0), ids(0)), (ids(1), ids(9))
    assert stays_of(first, first, away, back, back) == (2, 2, 0)


def test_a_track_that_covers_less_than_half_is_not_the_objects():
    truth = ids(1, 1, 1, 0)
    assert stays_of((truth, ids(7, 0, 0, 0)), (truth, ids(8, 0, 0, 0))) == (0, 0, 0)


def test_clips_are_kept_apart():
    counter = IdSwitches()
    for track_id in (7, 8):
        counter.update(ids(1), ids(track_id))
        counter.update(ids(1), ids(track_id))
        counter.end_clip()
    assert (*counter.stays(), counter.switches) == (2, 2, 0)
