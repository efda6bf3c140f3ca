"""Label images: values as stored, palettes, damaged files."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from dataset_fixtures import palette_png

from video_knet_core.data import label_png
from video_knet_core.data.video import DatasetError


def test_a_palette_is_read_as_positions_not_colours(tmp_path):
    """Two entries have one colour."""
    colors = bytes([9, 8, 7] * 2 + [200, 0, 0] + [1, 2, 3])
    png = palette_png(3, 2, colors, bytes([0, 0, 1, 2, 0, 3, 1, 0]))
    (tmp_path / "labels.png").write_bytes(png)
    assert label_png.read_values(tmp_path / "labels.png").tolist() == [[0, 1, 2], [3, 1, 0]]


@pytest.mark.slow
def test_damaged_label_images_are_read_or_named(tmp_path):
    path, rng = tmp_path / "label.png", np.random.default_rng(0)
    grey = cv2.imencode(".png", np.arange(16, dtype=np.uint16).reshape(4, 4))[1].tobytes()
    rgb = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    rows = b"\0\1\2\3\4" * 4
    small, cut = (palette_png(side, side, bytes(48), rows) for side in (4, 60000))
    for number in range(600):
        data = bytearray((small, cut, grey, rgb)[number % 4])
        for at in rng.integers(0, len(data), rng.integers(0, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data)) if number % 3 == 0 else None])
        for read in (label_png.read_values, label_png.read_rgb):
            with contextlib.suppress(DatasetError):  # all that may be raised
                assert read(path).size
