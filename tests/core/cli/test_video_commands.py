"""`video-knet track`, `replay` and `make-bag`, run on a tiny model."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np

from video_knet_core.data.frames import open_frames


def test_the_epochs_of_two_videos_differ_and_those_of_one_do_not(images, track, tmp_path):
    again = tmp_path / "other"
    shutil.copytree(images, again)  # it begins with the same image
    (again / "4.png").unlink()
    epochs = []
    for video, out in ((images, "a"), (images, "b"), (again, "c")):
        assert track(video=video, out=out) == 0
        lines = (tmp_path / out / "tracks.jsonl").read_text().splitlines()
        epochs.append({json.loads(line)["epoch"] for line in lines})
    (first,), (second,), (other,) = epochs
    assert first == second != other and 0 < first < 2**48


def test_track_writes_labels_that_agree_with_the_table(track, tmp_path):
    out = tmp_path / "out"
    assert track() == 0
    lines = [json.loads(line) for line in (out / "tracks.jsonl").read_text().splitlines()]
    assert [line["stamp"] for line in lines] == [k * 100_000_000 for k in range(5)]
    for line in lines:
        labels = cv2.imread(str(out / f"labels/{line['frame']:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16 and labels.shape == (50, 70)
        road, vehicle = line["tracks"]
        assert (road["class_name"], road["track_id"]) == ("road", 0)
        assert (vehicle["class_name"], vehicle["track_id"]) == ("vehicle", 1)
        for row in (road, vehicle):
            assert row["area"] == (labels == row["label"]).sum()
    states = [line["tracks"][1]["state"] for line in lines]
    assert states == ["tentative"] + ["confirmed"] * 4
    assert lines[0]["born"] == [1] and lines[0]["tracks"][1]["velocity"] is None
    assert lines[4]["tracks"][1]["velocity"][0] > 0


def test_track_makes_a_video_that_can_be_read_and_a_summary(track, tmp_path, capsys):
    out = tmp_path / "out"
    track()
    frames = list(open_frames(out / "overlay.mp4"))
    assert len(frames) == 5 and frames[0][0].shape == (50, 70, 3)
    report = capsys.readouterr().out
    assert "5 frames in" in report and "tracks: 1 vehicle" in report and str(out) in report


def test_a_broken_frame_keeps_what_came_before(images, track, tmp_path, capsys):
    (images / "3.png").write_bytes(b"broken")
    assert track() == 2
    assert "3.png is not an image" in capsys.readouterr().err
    assert len((tmp_path / "out/tracks.jsonl").read_text().splitlines()) == 3
    assert len(list(open_frames(tmp_path / "out/overlay.mp4"))) == 3


def test_images_of_two_sizes_are_no_video(images, track, capsys):
    cv2.imwrite(str(images / "2.png"), np.zeros((40, 70, 3), np.uint8))
    assert track() == 2
    assert "frame 2 is (40, 70), those before it are (50, 70)" in capsys.readouterr().err
