"""Bags of videos."""

from __future__ import annotations

import numpy as np
from bag_fixtures import read_all
from replay_results import failure

from video_knet_core.bags.definitions import (
    decode,
)
from video_knet_core.cli import main
from video_knet_core.data.frames import open_frames
from video_knet_core.overlay_video import OverlayVideo


def test_make_bag_of_the_synthetic_street(tmp_path, capsys):
    command = ["make-bag", "synthetic:3", "--out", str(tmp_path / "bag"), "--max-frames", "2"]
    assert main(command) == 0
    assert "2 images on /camera/image_raw" in capsys.readouterr().out
    wanted = [image for image, _ in zip(open_frames("synthetic:3"), range(2), strict=False)]
    for message, (image, _) in zip(read_all(tmp_path / "bag"), wanted, strict=True):
        assert np.array_equal(decode(message).data.reshape(image.shape), image)


def test_make_bag_keeps_the_times_of_a_video(tmp_path):
    stamps = [0, 33_000_000, 967_000_000, 3_033_000_000]
    with OverlayVideo(tmp_path / "a.mp4", 30) as video:
        for stamp in stamps:
            video.write(np.zeros((48, 64, 3), np.uint8), stamp)
    assert main(["make-bag", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "bag")]) == 0
    times = [message.time for message in read_all(tmp_path / "bag")]
    np.testing.assert_allclose(np.array(times) - times[0], stamps, atol=17_000)


def test_make_bag_that_cannot_end_or_has_another_name_is_refused(tmp_path, capsys):
    command = ["make-bag", "synthetic", "--out", str(tmp_path / "bag")]
    assert "never ends: give --max-frames" in failure(command, capsys)
    command += ["--max-frames", "1", "--format", "ros1"]
    assert "expected NAME.bag for ros1, got bag" in failure(command, capsys)
