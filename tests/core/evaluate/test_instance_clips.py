"""Tracks of networks of task instance, on clips whose tracks are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from street_fixtures import Oracle, street_table, write_camvid, write_sprites

from synthetic_street import SyntheticStreet
from video_knet_core.cli import main
from video_knet_core.data.street_frame import STREET_THINGS
from video_knet_core.engine.base import ModelError
from video_knet_core.evaluate.clips import HELD_OUT_SEED, evaluate_clips, pasted_clips
from video_knet_core.tracking import tracker_settings
from video_knet_core.types import NO_CLASS, Detections

FIRST_THING = 8
"""Class id of the first thing of the street."""
TRACKINGS = {name: tracker_settings(name) for name in ("embedding", "iou")}


class InstanceOracle(Oracle):
    """Returns the things of the clip and nothing else; on void another vehicle."""

    def __init__(self, clip, names=STREET_THINGS, **options):
        super().__init__(clip, **options)
        self.info = replace(self.info, classes=street_table(names), task="instance")

    def step(self, image, state):
        t = 0 if state is None else state
        found, after = super().step(image, state)
        kept = (found.class_ids >= FIRST_THING) & (found.class_ids != NO_CLASS)
        masks = [found.segment_map == slot + 1 for slot in np.flatnonzero(kept)]
        classes, looks = found.class_ids[kept] - FIRST_THING, found.embeddings[kept]
        void = self._clip.frame(t).semantic == NO_CLASS
        if void.any():
            masks.append(void)
            classes = np.append(classes, STREET_THINGS.index("vehicle"))
            looks = np.concatenate([looks, np.ones((1, looks.shape[1]))])
        masks = np.array(masks, np.uint8).reshape(-1, *found.segment_map.shape)
        front = np.zeros(found.segment_map.shape, np.uint8)
        for slot, mask in enumerate(masks):
            front[mask > 0] = slot + 1
        areas = masks.sum((1, 2)).astype(np.int64)
        scores = np.ones(len(masks), np.float32)
        return Detections(front, classes, scores, areas, looks, masks=masks), after


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A clip with a car of its own, which is void once objects are pasted on it."""
    root = tmp_path_factory.mktemp("data")
    write_camvid(root / "camvid/val_clip", frames=9, car=(slice(60, 70), slice(5, 25)))
    write_sprites(root / "sprites")
    return root


def test_an_engine_with_the_true_labels_has_all_points():
    street = SyntheticStreet(HELD_OUT_SEED)
    scores = evaluate_clips(InstanceOracle(street), [street], 6, TRACKINGS)
    assert scores["embedding"]["ap"] == scores["embedding"]["ap50"] == pytest.approx(1)


def test_without_recognisable_embeddings_only_the_place_distinguishes_tracks():
    street = SyntheticStreet(HELD_OUT_SEED)
    scores = evaluate_clips(InstanceOracle(street, swap=True), [street], 6, TRACKINGS)
    assert scores["embedding"]["ap"] < 0.5 < scores["iou"]["ap"]


def test_what_is_found_on_void_is_no_mistake(data_root):
    (clip,) = pasted_clips(data_root, 1)
    assert (clip.frame(0).semantic == NO_CLASS).any()
    scores = evaluate_clips(InstanceOracle(clip), [clip], 4, TRACKINGS)
    assert scores["embedding"]["ap"] == pytest.approx(1)


def test_a_class_that_the_street_has_not_is_rejected():
    street = SyntheticStreet(HELD_OUT_SEED)
    engine = InstanceOracle(street, names=["person", "tram"])
    with pytest.raises(ModelError, match="got .*'tram'"):
        evaluate_clips(engine, [street], 1, TRACKINGS)


def test_the_command_prints_ap_by_tracker(data_root, monkeypatch, capsys):
    (clip,) = pasted_clips(data_root, 1)
    engine = InstanceOracle(clip)
    monkeypatch.setattr("video_knet_core.cli.options.EngineOptions.open", lambda options: engine)
    options = ["--clips", "1", "--frames", "4", "--trackers", "embedding,iou"]
    assert main(["eval", "pasted", "--root", str(data_root), *options]) == 0
    _, columns, *rows = capsys.readouterr().out.splitlines()
    assert columns.split() == ["tracker", "AP", "AP50", "AP75", "AR10"]
    assert [row.split()[0] for row in rows] == ["embedding", "iou"]


def test_a_semantic_model_has_no_tracks_to_measure(data_root, monkeypatch, capsys):
    (clip,) = pasted_clips(data_root, 1)
    engine = InstanceOracle(clip)
    engine.info = replace(engine.info, task="semantic")
    monkeypatch.setattr("video_knet_core.cli.options.EngineOptions.open", lambda options: engine)
    assert main(["eval", "pasted", "--root", str(data_root), "--clips", "1"]) == 2
    assert "no tracks to measure" in capsys.readouterr().err
