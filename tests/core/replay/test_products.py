"""The outputs of each task, and the files beside the bag."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from bag_fixtures import PERIOD, bag_of, drive, read_all
from replay_results import ALL, result_of
from tiny_onnx import TASKS

from video_knet_core.bags.definitions import read_cdr, ros2_types
from video_knet_core.bags.making import DELAY, FIRST_STAMP
from video_knet_core.data.frames import open_frames
from video_knet_core.messages.result_messages import DETECTIONS, LABEL_INFO, nanoseconds
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings

USUAL = {
    "panoptic": {"class_map": 1, "instances": 3, "panoptic/image": 3},
    "semantic": {"class_map": 1, "semantic/image": 3},
    "instance": {"class_map": 1, "instances": 3, "panoptic/image": 3},
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_usual_outputs_of_its_own(task, runtimes, tmp_path):
    replay(bag_of(tmp_path, 3), runtimes[task], tmp_path / "out")
    times = result_of(tmp_path / "out").times
    assert {topic: len(found) for topic, found in times.items()} == {
        f"/video_knet/{topic}": count for topic, count in USUAL[task].items()
    }
    assert times[max(times)] == [FIRST_STAMP + n * PERIOD + DELAY for n in range(3)]


def test_files_of_a_semantic_model_have_classes_and_no_ids(runtimes, tmp_path):
    out, settings = tmp_path / "out", ReplaySettings(labels=True, tracks=True, overlay=True)
    replay(bag_of(tmp_path, 3), runtimes["semantic"], out, settings)
    for line in (out / "tracks/video_knet.jsonl").open():
        frame = json.loads(line)
        image = cv2.imread(str(out / f"labels/video_knet/{frame['frame']:06d}.png"))
        semantic, high, low = cv2.split(image[..., ::-1])
        assert not high.any() and not low.any()
        assert [(row["class_id"], row["track_id"], row["area"]) for row in frame["tracks"]] == [
            (class_id, 0, (semantic == class_id).sum()) for class_id in range(3)
        ]
    assert len(list(open_frames(out / "overlay/video_knet/0000.mp4"))) == 3


def test_label_files_of_an_instance_model_show_the_one_in_front(runtimes, tmp_path):
    out, settings = tmp_path / "out", ReplaySettings(labels=True, tracks=True)
    replay(bag_of(tmp_path, 3), runtimes["instance"], out, settings)
    for line in (out / "tracks/video_knet.jsonl").open():
        frame = json.loads(line)
        image = cv2.imread(str(out / f"labels/video_knet/{frame['frame']:06d}.png"))
        semantic, _, track = cv2.split(image[..., ::-1])
        front, behind = frame["tracks"]
        assert [row["track_id"] for row in (front, behind)] == [1, 2]
        assert (track == 1).sum() == front["area"] and 0 < (track == 2).sum() < behind["area"]
        assert (semantic[track == 1] == 0).all() and (semantic[track == 2] == 1).all()
        assert (semantic[track == 0] == 255).all() and (track == 0).any()


def test_detections_come_with_the_names_of_their_classes_and_need_no_vision_msgs(runtime, tmp_path):
    outputs = ("instances", "detections")
    replay(bag_of(tmp_path, 3), runtime, tmp_path / "out", ReplaySettings(outputs=outputs))
    messages = read_all(tmp_path / "out/bag")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    found = [read_cdr(m.data, DETECTIONS) for m in messages if m.topic.type == DETECTIONS]
    for table, message in zip(tables, found, strict=True):
        (row,) = (row for row in table.instances if row.is_thing)
        (detection,) = message.detections
        assert message.header == detection.header == table.header
        assert detection.id == f"{table.tracker_epoch}/{row.track_id}"
        centre, box = detection.bbox.center.position, detection.bbox
        assert (box.size_x, box.size_y) == (row.roi.width, row.roi.height)
        assert centre.x - box.size_x / 2 == row.roi.x_offset
        assert centre.y - box.size_y / 2 == row.roi.y_offset
        (result,) = detection.results
        assert result.hypothesis.class_id == "1"
        assert result.hypothesis.score == pytest.approx(0.8)
    (names,) = (read_cdr(m.data, LABEL_INFO) for m in messages if m.topic.type == LABEL_INFO)
    assert [(c.class_id, c.class_name) for c in names.class_map] == [(0, "road"), (1, "vehicle")]


def test_the_types_of_vision_msgs_have_the_hashes_of_version_4():
    for kind, digest in (
        (DETECTIONS, "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"),
        (LABEL_INFO, "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"),
    ):
        assert ros2_types().hash_rihs01(kind) == f"RIHS01_{digest}"


def test_labels_tracks_and_overlay_agree_with_the_bag(runtime, tmp_path):
    out = tmp_path / "out"
    replay(bag_of(tmp_path, 10), runtime, out, ALL)
    tables = result_of(out).tables["/video_knet/instances"]
    lines = [json.loads(line) for line in (out / "tracks/video_knet.jsonl").open()]
    assert [line["stamp"] for line in lines] == [nanoseconds(t.header.stamp) for t in tables]
    for line, table in zip(lines, tables, strict=True):
        assert [row["area"] for row in line["tracks"]] == [row.area for row in table.instances]
        path = out / f"labels/video_knet/{line['frame']:06d}.png"
        semantic, high, low = cv2.split(cv2.imread(str(path))[..., ::-1])
        road, vehicle = line["tracks"]
        assert (semantic == 0).sum() == road["area"] and (semantic == 1).sum() == vehicle["area"]
        assert ((high == 0) & (low == 1) & (semantic == 1)).sum() == vehicle["area"]
    videos = [list(open_frames(path)) for path in sorted((out / "overlay/video_knet").iterdir())]
    assert [len(frames) for frames in videos] == [7, 3] and videos[0][0][0].shape == (50, 70, 3)


def test_overlays_are_shown_at_the_stamps_of_the_images(runtime, tmp_path):
    replay(bag_of(tmp_path, 4), runtime, tmp_path / "out", ReplaySettings(overlay=True))
    (video,) = (tmp_path / "out/overlay/video_knet").iterdir()
    shown = [stamp for _, stamp in open_frames(video)]
    np.testing.assert_allclose(shown, [stamp for _, stamp in drive(4)], atol=17_000)
