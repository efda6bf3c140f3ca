"""Shared by the tests of the command."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from video_knet_core.cli import main


@pytest.fixture
def images(tmp_path_factory):
    """Five images of 50 x 70: a red block in the lower left, one column further each time."""
    path = tmp_path_factory.mktemp("video") / "images"
    path.mkdir()
    for t in range(5):
        image = np.zeros((50, 70, 3), np.uint8)
        image[30:, 10 + t : 40 + t, 2] = 255
        cv2.imwrite(str(path / f"{t}.png"), image)
    return path


@pytest.fixture
def track(images, model, tmp_path):
    """`video-knet track` of the images, or of another video, into `tmp_path / out`."""

    def run(*options, video=images, out="out"):
        command = ["track", video, "--model", model, "--out", tmp_path / out, *options]
        return main([str(word) for word in command])

    return run
