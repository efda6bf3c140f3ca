"""Scores of the model on clips, and which model is the best."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import golden
import numpy as np
import pytest
import torch
import yaml
from dataset_fixtures import FIXTURES
from networks import small_config, small_network
from street_fixtures import write_camvid
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import (
    PERSON,
    ROAD,
    SKY,
    VOID,
    lean_semantic,
    overlapping,
    small_model,
    write_run,
)

from video_knet_core.config_io import ConfigError, from_dict, to_dict
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import DatasetError, InstanceMasks
from video_knet_core.evaluate.instances import InstanceClips
from video_knet_core.evaluate.semantic import SemanticClips
from video_knet_core.model.checkpoint import read_metadata
from video_knet_core.training.batches import batches
from video_knet_core.training.clip_validation import Quality, Validation
from video_knet_core.training.monitor import Monitor
from video_knet_core.training.train_config import DataConfig, ValidationConfig
from video_knet_core.training.trainer import (
    Trainer,
    train_from_config,
)

NAN = math.nan


class Seen:
    """What a predictor would give: masks by track id, all of one class and score."""

    def __init__(self, masks: dict[int, np.ndarray], class_id: int = 2) -> None:
        self.masks = masks
        self.tracks = [
            SimpleNamespace(label=i, track_id=i, class_id=class_id, score=0.9) for i in masks
        ]

    def mask(self, track) -> np.ndarray:
        return self.masks[track.track_id]


def test_ap_of_tracks_is_one_for_the_truth_and_less_for_half_of_it():
    """Whole masks count, and an object may come later and go earlier than the clip."""
    semantic, instance, whole = overlapping()
    both = SimpleNamespace(semantic=semantic, instance=instance, masks=whole)
    first = InstanceMasks(whole.ids[:1], whole.class_ids[:1], whole.masks[:1])
    one = SimpleNamespace(semantic=semantic, instance=instance, masks=first)
    classes = small_model("instance").classes
    perfect, half = InstanceClips(classes), InstanceClips(classes)
    for clip_number in (0, 1):
        for truth in (one, both, one):
            masks = {7 + int(i): m for i, m in zip(truth.masks.ids, truth.masks.masks, strict=True)}
            perfect.update(truth, Seen(masks), clip_number)
            half.update(truth, Seen({8: masks[8] & (np.arange(32) < 18)}), clip_number)
    scores = perfect.scores()
    assert scores["ap"] == scores["ap50"] == pytest.approx(1.0)
    scores = half.scores()
    assert 0 < scores["ap"] < scores["ap50"] < 0.6


def test_true_masks_come_from_the_map_where_there_are_no_others():
    semantic, instance, _ = overlapping()
    truth = StreetFrame(np.zeros((32, 32, 3), np.uint8), semantic, instance)
    metric = InstanceClips(small_model("instance").classes)
    crowd = (semantic == 2) & (instance == 0)
    metric.update(truth, Seen({1: instance == 1, 2: instance == 2, 3: crowd}), 0)
    assert metric.scores()["ap"] == pytest.approx(1.0), "a crowd is ignored"


def test_miou_counts_what_is_predicted_for_labelled_pixels():
    semantic = np.array([[ROAD, ROAD, SKY, VOID]], np.uint8)
    seen = SimpleNamespace(semantic_map=lambda: np.array([[ROAD, SKY, SKY, PERSON]], np.uint8))
    metric = SemanticClips(small_model("semantic").classes)
    metric.update(SimpleNamespace(semantic=semantic), seen, 0)
    assert metric.scores() == {"miou": pytest.approx(0.5)}


def test_the_best_model_has_its_metric_inside_and_pictures_are_logged(tmp_path):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    scores = iter([0.5, 0.4])
    measure = trainer.validation
    trainer.validation = lambda model: replace(measure(model), scores={"stq": next(scores)})
    trainer.run()
    best = read_metadata(tmp_path / "out" / "best.safetensors")
    assert (best["step"], best["metrics"]["stq"]) == (1, 0.5)
    last = read_metadata(tmp_path / "out" / "last.safetensors")
    assert (last["step"], last["metrics"]["stq"]) == (2, 0.4)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("validation/stq")] == pytest.approx([0.5, 0.4])
    picture = events.Images("clip 0")[0]
    assert (picture.height, picture.width) == (288, 480)


@pytest.mark.parametrize(
    ("scores", "best", "decided_by"),
    [
        ([{"stq": 0.5}, {"stq": 0.4}, {"stq": 0.3}], 1, "stq"),
        ([{"stq": 0.0}] * 3, 3, "stq"),
        ([{"stq": NAN, "aq": NAN, "sq": s} for s in (0.1, 0.3, 0.2)], 2, "sq"),
        ([{"stq": NAN, "aq": NAN, "sq": 0.25}] * 3, 3, "sq"),
        ([{"stq": NAN, "aq": NAN, "sq": NAN}] * 3, 3, None),
    ],
    ids=["the highest", "the newest of equal ones", "second score", "equal second", "none"],
)
def test_which_model_is_the_best(scores, best, decided_by, tmp_path, capsys):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), steps=3, validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    trainer.train_step, trainer.save = lambda batches: {"total": torch.zeros(())}, lambda: None
    rows = iter(scores)
    trainer.validation = lambda model: Quality(next(rows), ())
    trainer.run()
    assert read_metadata(tmp_path / "out" / "best.safetensors")["step"] == best
    assert trainer.progress.best_by == decided_by
    out = capsys.readouterr().out
    unmeasured = [name for name, score in scores[0].items() if math.isnan(score)]
    assert out.count("warning:") == bool(unmeasured)
    assert f"step 1: {next(iter(scores[0]))} " in out and "nan" not in out
    if unmeasured:
        rule = f"{decided_by or 'the newest model'} "
        assert f"warning: {', '.join(unmeasured)} cannot be measured" in out and rule in out


def test_a_resumed_run_keeps_the_best_of_before(tmp_path):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    trainer.validation = lambda model: Quality({"stq": NAN, "sq": 0.3}, ())
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.progress.step = 1
    trainer.validate(Monitor(tmp_path / "out", 2, 0, silent=True))
    trainer.save()
    other = Trainer(path, tmp_path / "out", device="cpu")
    other.resume()
    assert (other.progress.best, other.progress.best_by) == (0.3, "sq")
    assert other.progress.metrics == {"step": 1, "stq": None, "sq": 0.3}


@pytest.mark.parametrize("void", [False, True])
def test_data_without_tracks_or_labels_is_validated_by_what_it_has(void, tmp_path):
    """No things in it, or nothing labelled yet."""
    FIXTURES["custom"].write(tmp_path / "data" / "mine")
    for path in (tmp_path / "data/mine/val/panoptic").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        road = np.zeros_like(labels)
        cv2.imwrite(str(path), np.full_like(labels, 65535) if void else road)
    validation = {"every": 1, "dataset": "custom", "path": "mine", "clips": 1, "frames": 2}
    path = write_run(tmp_path, small_network(), validation=validation)
    train_from_config(path, tmp_path / "out", tmp_path / "data", device="cpu")
    best = read_metadata(tmp_path / "out" / "best.safetensors")
    assert best["metrics"]["stq"] is best["metrics"]["aq"] is None
    assert best["metrics"]["sq"] is None if void else best["metrics"]["sq"] >= 0
    assert best["step"] == 2 or not void


def test_a_run_without_validation_needs_no_street():
    classes = golden.small_config().classes
    assert classes != small_config().classes
    Validation(ValidationConfig(), replace(small_config(), classes=classes), None)


@pytest.mark.parametrize("settings", [{"path": "nowhere"}, {"split": "train"}])
def test_a_validation_that_cannot_be_is_an_error_at_once(settings, tmp_path):
    FIXTURES["custom"].write(tmp_path / "mine")
    config = ValidationConfig(**{"every": 1, "dataset": "custom", "path": "mine"} | settings)
    with pytest.raises(DatasetError, match="nowhere|split 'train'"):
        Validation(config, small_config(), tmp_path)
    with pytest.raises(ConfigError, match="validation: custom: .*--data"):
        Validation(config, small_config(), None)


def test_a_validation_may_be_on_what_is_held_out(tmp_path):
    """Single images are clips of their own."""
    FIXTURES["custom"].write(tmp_path / "mine")
    clip = {"dataset": "custom", "path": "mine", "split": "val", "hold_out": 2}
    config = ValidationConfig(every=1, dataset="held_out", clips=2)
    for images, expected in ((True, [1, 1]), (False, [3])):
        data = from_dict(DataConfig, {"clips": [clip | {"pseudo_video": images}]})
        clips = Validation(config, small_config(), tmp_path, data)._clips
        assert [len(video) for video in clips] == expected
    with pytest.raises(ConfigError, match="expected data.clips with hold_out for it"):
        Validation(config, small_config(), tmp_path, DataConfig())


def test_a_run_of_images_keeps_the_model_with_the_best_miou(tmp_path):
    """Also what such a run needs to resume: layers that do not learn have no optimiser state."""
    root = tmp_path / "data"
    write_camvid(root / "camvid/val_clip", frames=2)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(lean_semantic())))
    settings = {
        **{"model": "model.yaml", "video": False, "steps": 1, "batch": 2, "warmup_steps": 0},
        **{"height": 64, "width": 96, "workers": 0, "threads": 1},
        "data": {"clips": [{"dataset": "camvid", "path": "camvid", "split": "val_clip"}]},
        "validation": {"every": 1, "dataset": "camvid", "path": "camvid", "split": "val_clip"},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    train_from_config(path, tmp_path / "run", root, device="cpu")
    metrics = read_metadata(tmp_path / "run" / "best.safetensors")["metrics"]
    assert list(metrics) == ["step", "miou"] and 0 <= metrics["miou"] < 1
    again = Trainer(path, tmp_path / "run", root, "cpu")
    again.resume()
    assert again.progress.best == metrics["miou"]
