"""Predictions in the files that are submitted; see also tests/core/evaluate."""

from __future__ import annotations

import json
from itertools import islice

import cv2
import numpy as np
import pytest
from dataset_fixtures import opened

from video_knet_core.data import label_png
from video_knet_core.data.datasets import DATASETS
from video_knet_core.data.label_png import step_rgb, write_step
from video_knet_core.data.predictions import Instance
from video_knet_core.data.video import LabelledFrame, Labels, Video
from video_knet_core.run_lengths import RunLengths


def test_step_results_have_the_code_of_the_labels(written, tmp_path, expected_frames):
    labels = written["kitti_step"] / "panoptic_maps/val"
    for truth in expected_frames["kitti_step"]:
        write_step(tmp_path, truth.video, truth.name, truth.semantic, truth.instance)
        paths = [folder / truth.video / f"{truth.name}.png" for folder in (tmp_path, labels)]
        np.testing.assert_array_equal(*(cv2.imread(str(path)) for path in paths))


def test_step_ids_are_those_of_two_bytes():
    none = np.zeros((2, 2), np.uint8)
    assert step_rgb(none, np.full((2, 2), 65535))[0, 0].tolist() == [0, 255, 255]
    with pytest.raises(ValueError, match=r"0\.\.65535, got 65536\.\.65536"):
        step_rgb(none, np.full((2, 2), 65536))
    with pytest.raises(ValueError, match=r"got \(2, 2\), \(2, 3\)"):
        step_rgb(none, np.zeros((2, 3), int))


def stored_prediction(name, out, video, frame, prediction):
    """Write one frame as the data set `name` has it submitted."""
    writer = DATASETS[name].predictions.writer(out)
    labels = Labels(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int64))
    frame = LabelledFrame(
        **vars(labels), video=video.name, name=frame, image=np.zeros((2, 2, 3), np.uint8)
    )
    writer.update(video, frame, prediction)
    writer.end_video(video)
    return writer.close()


@pytest.mark.parametrize("class_id", [-1, 256, 65535])
@pytest.mark.parametrize("name", ["kitti_step", "vspw", "cityscapes_vps", "vipseg", "custom"])
def test_class_ids_that_8_bits_do_not_hold_are_never_written(name, class_id, tmp_path):
    semantic, none = np.full((2, 2), class_id), np.zeros((2, 2), np.int64)
    prediction = semantic if name == "vspw" else (semantic, none)
    video = Video("v", (), read=lambda _: None)
    with pytest.raises(ValueError, match=rf"class ids 0\.\..*, got {class_id}\.\."):
        stored_prediction(name, tmp_path, video, "f", prediction)
    assert not list(tmp_path.iterdir())


def test_cityscapes_vps_results_are_read_back_as_labels(written, tmp_path, expected_frames):
    root, expected = written["cityscapes_vps"], expected_frames["cityscapes_vps"]
    writer = DATASETS["cityscapes_vps"].predictions.writer(tmp_path / "out")
    frames = iter(expected)
    for video in opened("cityscapes_vps", root):
        for frame, truth in zip(video, islice(frames, len(video)), strict=True):
            writer.update(video, frame, (truth.semantic, truth.instance))
        writer.end_video(video)
    writer.close()
    annotations = json.loads((tmp_path / "out/pred.json").read_text())["annotations"]
    ids: dict[tuple[str, int], set[int]] = {}
    for truth, annotation in zip(expected, annotations, strict=True):
        png = label_png.read_rgb(tmp_path / f"out/pan_pred/{truth.name}.png")
        segments = label_png.segment_ids(png)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert infos.keys() == set(np.unique(segments).tolist()) - {0}
        assert ((segments == 0) == (truth.semantic == 255)).all()
        for i, info in infos.items():
            rows, columns = np.nonzero(segments == i)
            x, y, width, height = info["bbox"]
            assert (rows.min(), columns.min()) == (y, x) and info["area"] == len(rows)
            assert (rows.max() + 1, columns.max() + 1) == (y + height, x + width)
            assert set(truth.semantic[rows, columns]) == {info["category_id"]}
            (instance,) = set(truth.instance[rows, columns].tolist())
            if instance:
                ids.setdefault((truth.video, instance), set()).add(i)
    assert ids and all(len(found) == 1 for found in ids.values())


def test_youtube_vis_results(written, tmp_path):
    video = opened("youtube_vis_2019", written["youtube_vis_2019"])[1]
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1:3, 2:6] = masks[2, :, 6] = True
    writer = DATASETS["youtube_vis_2019"].predictions.writer(tmp_path / "out")
    for frame, mask in zip(video, masks, strict=True):
        writer.update(video, frame, [Instance(7, 0, 0.5, RunLengths.from_mask(mask))])
    writer.end_video(video)
    (track,) = json.loads(writer.close().read_text())
    assert (track["video_id"], track["category_id"], track["score"]) == (2, 1, 0.5)
    first, second, third = track["segmentations"]
    assert second is None
    for entry, mask in ((first, masks[0]), (third, masks[2])):
        np.testing.assert_array_equal(RunLengths.from_coco(entry).mask(), mask)
