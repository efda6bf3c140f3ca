from __future__ import annotations

import cv2
import numpy as np
import pytest

from video_knet_core.data.camvid import camvid_clip
from video_knet_core.data.street_frame import STREET_CLASSES
from video_knet_core.image_files import FrameError

NAMES = [
    *("sky", "building", "pole", "road", "sidewalk", "vegetation", "sign", "fence"),
    *("vehicle", "person", "cyclist"),
]
"""Our names for the label values 0..10 of CamVid."""


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for k, name in enumerate(("f_2", "f_1")):
        cv2.imwrite(str(tmp_path / f"images/{name}.jpg"), np.full((12, 8, 3), 80 * k, np.uint8))
        labels = np.arange(12, dtype=np.uint8)[:, None].repeat(8, axis=1)
        cv2.imwrite(str(tmp_path / f"labels/{name}.png"), labels)
    return tmp_path


def test_frames_come_by_name_with_class_ids_of_the_street_model(root):
    clip = camvid_clip(root)
    assert [(frame.name, int(frame.image.mean())) for frame in clip] == [("f_1", 80), ("f_2", 0)]
    frame = clip[0]
    labels = frame.semantic
    assert frame.image.shape == (12, 8, 3) and labels.dtype == np.uint8
    assert labels[:, 0].tolist() == [STREET_CLASSES.index(name) for name in NAMES] + [255]


def test_a_missing_label_image(root):
    (root / "labels/f_2.png").unlink()
    with pytest.raises(FrameError, match=r"f_2 has no label image"):
        camvid_clip(root)


def test_a_folder_that_is_not_camvid(tmp_path):
    with pytest.raises(FrameError, match="images"):
        camvid_clip(tmp_path)
