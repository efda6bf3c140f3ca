"""Segmentation and tracking on clips whose tracks are known, through the whole predictor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from dataset_fixtures import write_custom
from street_fixtures import HEIGHT, WIDTH, Oracle, street_table, write_camvid, write_sprites

from synthetic_street import SyntheticStreet
from video_knet_core.cli import main
from video_knet_core.data.camvid import camvid_clip
from video_knet_core.data.spoiling import SpoiltFrames
from video_knet_core.engine.base import ModelError, ModelInfo
from video_knet_core.evaluate.clips import (
    HELD_OUT_SEED,
    _SharedRuntime,
    compare,
    evaluate_camvid,
    evaluate_clips,
    pasted_clips,
    street_clips,
    synthetic_streets,
)
from video_knet_core.evaluate.conditions import CONDITIONS, Condition
from video_knet_core.evaluate.panoptic import tracked_boxes
from video_knet_core.metrics.box_tracking import TrackedBoxes
from video_knet_core.metrics.vss import VideoSemanticConsistency
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import TRACKERS, tracker_settings
from video_knet_core.types import Detections

TRACKINGS = {name: tracker_settings(name) for name in ("embedding", "quasi_dense")}


@pytest.fixture(scope="module")
def street():
    return SyntheticStreet(HELD_OUT_SEED)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A data root of training, but that its images are tiny."""
    root = tmp_path_factory.mktemp("data")
    write_camvid(root / "camvid/val_clip", frames=9)
    write_sprites(root / "sprites")
    return root


@pytest.fixture(scope="module")
def pasted(data_root):
    (clip,) = pasted_clips(data_root, 1)
    return clip


def on_street(engine, frames):
    clips = synthetic_streets(1)
    return evaluate_clips(engine, clips, frames, {"": tracker_settings()})[""]


def test_a_perfect_engine_scores_1(street):
    scores = on_street(Oracle(street), 8)
    assert scores["sq"] == pytest.approx(1) and scores["miou"] == pytest.approx(1)
    assert scores["aq"] > 0.95 and scores["id_consistency"] == 1 and scores["idsw"] == 0
    assert scores["vpq"] > 0.95 and scores["segments"] > 0
    assert scores["box_found"] == scores["box_mota"] == scores["box_ids"] == 1
    assert scores["box_idf1"] == pytest.approx(1) and scores["box_hota"] == pytest.approx(1)


def test_without_recognisable_embeddings_only_the_tracking_suffers(street):
    scores = on_street(Oracle(street, swap=True), 8)
    assert scores["sq"] == pytest.approx(1)
    assert (
        scores["aq"] < 0.5
        and scores["id_consistency"] < 0.2
        and scores["idsw"] > scores["segments"]
    )
    assert scores["vpq"] < 0.95


def test_a_model_with_other_classes_is_rejected(street):
    with pytest.raises(ModelError, match="got .*'tram'"):
        on_street(Oracle(street, names=["road", "tram"]), 1)


def test_the_streets_are_none_of_training():
    seeds = [street.seed for street in synthetic_streets(2)]
    assert seeds == [HELD_OUT_SEED, HELD_OUT_SEED + 1]


def test_pasted_clips_are_measured_as_streets_are(pasted):
    scores = evaluate_clips(Oracle(pasted), [pasted], 12, TRACKINGS)["embedding"]
    assert scores["sq"] == pytest.approx(1) and scores["miou"] == pytest.approx(1)
    assert scores["id_consistency"] == 1 and scores["segments"] >= len(pasted.objects) - 1


def test_several_trackers_share_the_steps_of_the_network(pasted):
    engine = Oracle(pasted, swap=True)
    together = evaluate_clips(engine, [pasted, pasted], 5, TRACKINGS)
    assert engine.steps == 2 * 5
    assert list(together) == list(TRACKINGS)
    for name, tracking in TRACKINGS.items():
        alone = evaluate_clips(engine, [pasted, pasted], 5, {name: tracking})
        assert together[name] == alone[name]


def test_a_shared_engine_steps_again_for_another_image_or_state(pasted):
    engine = Oracle(pasted)
    shared = _SharedRuntime(engine)
    first, second = pasted.frame(0).image, pasted.frame(1).image
    segments, state = shared.step(first, None)
    assert shared.step(first.copy(), None)[0] is segments and engine.steps == 1
    shared.step(second, state)
    assert shared.step(first, None)[0] is not segments and engine.steps == 3


def test_the_boxes_of_tracks_are_those_of_their_pixels(street):
    predictor = VideoPredictor(Oracle(street))
    for t in range(3):
        frame = predictor.step(street.frame(t).image, t)
    maps = frame.semantic_map(), frame.track_id_map()
    by_row, by_pixel = tracked_boxes(frame), TrackedBoxes.of_maps(*maps, street_table().things)
    order = np.lexsort((by_row.class_ids, by_row.ids))
    assert len(order) > 1
    for row, pixel in zip(by_row, by_pixel, strict=True):
        assert row[order].tolist() == pixel.tolist()


class Blink:
    """An engine that returns road in the lower half, and above it sky in every other frame."""

    name = "blink"
    info = ModelInfo("blink", street_table(), HEIGHT, WIDTH)

    def step(self, image, state):
        t = state or 0
        slots = np.ones((HEIGHT, WIDTH), np.uint8)
        slots[: HEIGHT // 2] = 2 if t % 2 else 0
        areas = np.bincount(slots.ravel(), minlength=3)[1:]
        classes = np.array([0, 7])
        return Detections(slots, classes, np.ones(2, np.float32), areas, np.ones((2, 4))), t + 1


class Watcher(Blink):
    """An engine that records the images and the states that it gets."""

    def __init__(self):
        self.images, self.states = [], []

    def step(self, image, state):
        self.images.append(image.copy())
        self.states.append(state)
        found, t = super().step(image, state and state[0])
        return found, [t]


def test_all_conditions_are_measured_in_one_pass(pasted):
    engine, frames = Watcher(), 8
    clips = street_clips(engine, [pasted], frames)
    scores = compare(engine, clips, TRACKINGS, CONDITIONS)
    assert list(scores) == list(CONDITIONS) and all(
        list(s) == list(TRACKINGS) for s in scores.values()
    )
    spoilt = [SpoiltFrames(1).damage(t) is not None for t in range(frames)]
    assert 0 < sum(spoilt) < frames
    # clean, and spoilt where it differs: with memory from the first spoilt frame on
    later = frames - spoilt.index(True)
    assert len(engine.images) == 2 * frames + later + sum(spoilt)
    with_memory = [state for state in engine.states if state is not None]
    assert len(with_memory) == frames - 1 + later
    for condition in CONDITIONS:
        alone = evaluate_clips(engine, [pasted], frames, TRACKINGS, condition)
        for name, row in alone.items():
            assert row == pytest.approx(scores[condition][name], nan_ok=True)


def test_a_condition_shows_spoilt_images_and_takes_the_memory_away(pasted):
    engine, frames = Watcher(), 8
    tracker = {"": tracker_settings()}
    evaluate_clips(engine, [pasted], frames, tracker, Condition(spoilt=True, memory=False))
    assert engine.states == frames * [None]
    show = SpoiltFrames(1)
    for t, image in enumerate(engine.images):
        assert np.array_equal(image, show(pasted.frame(t).image, t))


def test_camvid_is_measured_by_miou_and_by_mvc8_as_released(tmp_path):
    root = write_camvid(tmp_path, frames=10, car=(slice(0, 8), slice(0, 8)))
    scores = evaluate_camvid(Blink(), root)
    assert scores.per_class[0] == 1 and scores.per_class[10] == 0  # road, vehicle
    assert scores.mvc[8] == pytest.approx(0.5)
    expected, predictor = VideoSemanticConsistency(11, (8,), void=(255,)), VideoPredictor(Blink())
    for t, frame in enumerate(camvid_clip(root)):
        expected.update(frame.semantic, predictor.step(frame.image, t).semantic_map())
    assert scores.mvc[8] == expected.compute().mvc[8] and scores.miou == expected.compute().miou


def test_mvc8_needs_nine_frames(tmp_path):
    assert np.isnan(evaluate_camvid(Blink(), write_camvid(tmp_path, frames=8)).mvc[8])


@pytest.fixture
def run(monkeypatch, pasted, data_root, capsys):
    """Run `eval pasted` on four frames, with an engine that returns the truth of the clip."""
    engine = Oracle(pasted)
    monkeypatch.setattr("video_knet_core.cli.options.EngineOptions.open", lambda options: engine)

    def run(*options):
        arguments = ["--root", str(data_root), "--clips", "1", "--frames", "4", *options]
        code = main(["eval", "pasted", *arguments])
        return code, capsys.readouterr()

    return run


def test_the_command_prints_one_tracker(run, pasted):
    code, output = run()
    assert code == 0
    head, columns, row = output.out.splitlines()
    assert head.startswith("1 pasted clips of 4 frames, sprites: held_out")
    names = columns.replace("one id", "one_id").split()
    scores = dict(zip(names, row.split(), strict=True))
    assert scores["tracker"] == "embedding" and scores["IDSW"] == "0"
    assert scores["SQ"] == scores["mIoU"] == scores["one_id"] == "1.000"


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("embedding", ["embedding"]),
        ("quasi_dense,embedding,quasi_dense", ["quasi_dense", "embedding"]),
        ("all", ["embedding", "quasi_dense"]),
    ],
)
def test_the_command_compares_trackers_in_a_table(names, rows, run, monkeypatch):
    trackers = {name: TRACKERS[name] for name in TRACKINGS}
    monkeypatch.setattr("video_knet_core.cli.options.TRACKERS", trackers)
    code, output = run("--trackers", names)
    _, columns, *table = output.out.splitlines()
    assert code == 0 and columns.split()[:5] == ["tracker", "STQ", "AQ", "SQ", "VPQ"]
    assert [line.split()[0] for line in table] == rows


def test_the_command_compares_settings_of_a_tracker(run):
    code, output = run("--trackers", "embedding:overlap_weight=0,embedding")
    assert code == 0
    assert [line.split()[0] for line in output.out.splitlines()[2:]] == [
        "embedding:overlap_weight=0",
        "embedding",
    ]


@pytest.mark.parametrize("options", [(), ("--trackers", "iou")])
def test_a_score_that_cannot_be_measured_is_not_printed_as_nan(options, run):
    """VPQ needs as many frames as its longest window has."""
    code, output = run("--frames", "1", *options)
    assert code == 0 and "n/a" in output.out and "nan" not in output.out


def test_a_tracker_that_is_none_is_a_usage_error(run):
    code, output = run("--trackers", "embedding,magic")
    assert code == 2 and "--trackers" in output.err and "'magic'" in output.err


def test_sprites_of_the_users_own_are_never_held_out(run, tmp_path):
    write_camvid(tmp_path / "camvid/val_clip")
    write_sprites(tmp_path / "sprites", ["walker"])
    code, output = run("--root", str(tmp_path))
    assert code == 2
    (line,) = output.err.splitlines()
    assert line.startswith("video-knet eval pasted: ") and "none of the held-out sprites" in line


def test_a_data_root_without_a_clip_is_one_line(run, tmp_path):
    code, output = run("--root", str(tmp_path))
    assert code == 2 and "camvid/val_clip/images" in output.err


@pytest.fixture
def judges(monkeypatch, data_root, capsys, tmp_path):
    """Run `eval judges` on two sets, with an engine that finds a road and a sky."""
    write_custom(tmp_path / "drives")
    for part in ("camvid", "sprites"):
        (tmp_path / part).symlink_to(data_root / part)
    engine = Watcher()
    engine.close = lambda: None
    monkeypatch.setattr("video_knet_core.cli.options.EngineOptions.open", lambda options: engine)

    def run(*options):
        code = main(["eval", "judges", "--root", str(tmp_path), "--frames", "4", *options])
        return code, capsys.readouterr(), engine

    return run


def test_judges_print_a_row_for_each_set_condition_and_tracker(judges, tmp_path):
    file = tmp_path / "out.json"
    options = ["--sets", "pasted,drives", "--clips", "1", "--trackers", "iou,embedding"]
    code, output, engine = judges(*options, "--json", str(file))
    assert code == 0
    head, *rows = output.out.splitlines()
    assert head.split()[:5] == ["set,", "frames,", "tracker", "STQ", "AQ"]
    titles = [
        f"{name}, {condition}, {tracker}"
        for name in ("pasted", "drives")
        for condition in ("clean", "spoilt", "clean, no memory", "spoilt, no memory")
        for tracker in ("iou", "embedding")
    ]
    assert [row[: len(title)] for row, title in zip(rows, titles, strict=True)] == titles
    figures = json.loads(file.read_text())
    assert figures["drives"]["spoilt"]["iou"]["box_boxes"] > 0
    assert 0 < figures["drives"]["clean"]["iou"]["sq"] < 1
    # four frames of the pasted clip and three of the first video, and what else is spoilt of them
    assert 2 * 7 <= len(engine.images) < 4 * 7


def test_judges_take_panoptic_models_of_the_classes_alone(judges, monkeypatch):
    info = ModelInfo("other", street_table(["road", "person"]), HEIGHT, WIDTH)
    monkeypatch.setattr(Watcher, "info", info)
    code, output, _ = judges("--sets", "drives")
    assert code == 2 and "its classes are not those of custom" in output.err
    monkeypatch.setattr(Watcher, "info", replace(info, task="semantic"))
    code, output, _ = judges("--sets", "drives")
    assert code == 2 and "expected a model of task panoptic, got one of task semantic" in output.err
