"""Training pairs: geometry and labels agree between the two frames."""

from __future__ import annotations

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from networks import small_config

from video_knet_core.data.camvid import camvid_clip
from video_knet_core.data.copy_paste import CopyPaste, cut_out, instances_of_regions
from video_knet_core.data.pairs import CropRange, photometric, warp
from video_knet_core.data.sprites import load_sprites, repainted
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import Video

CAMVID_ROAD, CAMVID_SKY, CAMVID_CAR = 3, 0, 8
ROAD, VEHICLE, PERSON = 0, 10, 8
RED = (250, 10, 10)


@pytest.fixture(scope="module")
def classes():
    return small_config().classes


@pytest.fixture
def images(tmp_path) -> Video:
    """One grey image with a car on a road."""
    labels = np.full((60, 80), CAMVID_SKY, np.uint8)
    labels[30:] = CAMVID_ROAD
    labels[20:40, 22:50] = CAMVID_CAR
    for folder in ("images", "labels"):
        (tmp_path / "real" / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "real/images/00000.jpg"), np.full((60, 80, 3), 100, np.uint8))
    cv2.imwrite(str(tmp_path / "real/labels/00000.png"), labels)
    return camvid_clip(tmp_path / "real")


@pytest.fixture
def sprites(tmp_path, classes) -> list:
    """A red person that walks to the right, and a dog of no known class."""
    index = {}
    for name, kind in (("walker", "person"), ("dog", "animal")):
        (tmp_path / name).mkdir()
        frames = []
        for i in range(5):
            red = np.full((30, 12, 3), RED[::-1], np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{i:05d}.jpg"), red)
            cv2.imwrite(str(tmp_path / name / f"{i:05d}.png"), np.full((30, 12), 255, np.uint8))
            frames.append({"frame": i, "bbox": [4 * i, 0, 4 * i + 11, 29], "scale": 1.0})
        index[name] = {"class": kind, "frames": frames}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return load_sprites(tmp_path, classes)


def test_only_sprites_of_street_classes_are_read(sprites):
    assert [s.class_id for s in sprites] == [PERSON]
    assert np.diff(sprites[0].centres[:, 0]).tolist() == [4, 4, 4, 4]


def test_a_pair_shows_one_scene_twice(images, sprites, classes):
    source = CopyPaste(images, [], classes.things)
    pair = source.sample(np.random.default_rng(4), 48, 64)
    assert pair.images.shape == (2, 48, 64, 3)
    assert pair.semantic.shape == pair.instance.shape == (2, 48, 64)
    for semantic, instance in zip(pair.semantic, pair.instance, strict=True):
        assert ((instance > 0) == (semantic == VEHICLE)).all()
    assert set(np.unique(pair.instance[0])) == set(np.unique(pair.instance[1]))


def test_pasted_objects_have_their_pixels_and_one_id_in_both_frames(images, sprites, classes):
    source = CopyPaste(images, sprites, classes.things, max_sprites=1)
    seen = 0
    for seed in range(20):
        pair = source.sample(np.random.default_rng(seed), 96, 128)
        people = pair.semantic == PERSON
        if not people.any((1, 2)).all():
            continue
        seen += 1
        assert len(np.unique(pair.instance[people])) == 1
        inner = cv2.erode(people[0].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if inner.any():
            red, green, _ = pair.images[0][inner].mean(0)
            assert red > 2 * green
    assert seen >= 3


def test_single_objects_of_the_images_are_cut_out(images, classes):
    (car,) = cut_out(images, classes.things)
    ((image, mask),) = car.cutouts
    assert car.class_id == VEHICLE
    assert image.shape == (20, 28, 3)
    assert mask.shape == (20, 28)
    assert mask.all()


def test_what_the_border_of_an_image_cuts_off_stays_in_it(images, classes):
    labels = cv2.imread(images.frames[0].labels, cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(images.frames[0].labels, np.roll(labels, 30, axis=1))
    assert cut_out(images, classes.things) == []


def test_a_crowd_is_made_of_sprites_and_of_what_stands_in_the_images(images, sprites, classes):
    source = CopyPaste(images, sprites, classes.things, max_sprites=8, causal=True, crowd=True)
    people = cars = 0
    for seed in range(20):
        pair = source.sample(np.random.default_rng(seed), 96, 128)
        for name in np.unique(pair.instance)[1:]:
            assert len(np.unique(pair.semantic[pair.instance == name])) == 1
        instances = pair.instance[0]
        people += len(np.unique(instances[pair.semantic[0] == PERSON]))
        cars += len(np.unique(instances[pair.semantic[0] == VEHICLE]))
    assert people > 20
    assert cars > 20 + 20  # one stands in each still


def test_a_crowd_stands_close_together(images, sprites, classes):
    sources = [
        CopyPaste(images, sprites, classes.things, max_sprites=8, crowd=crowd)
        for crowd in (False, True)
    ]
    rng = np.random.default_rng(0)
    feet = [[list(source._feet(rng, 96, 128)) for _ in range(200)] for source in sources]
    alone, close = (
        np.median([abs(b[0] - a[0]) for row in rows for a, b in pairwise(row)]) for rows in feet
    )
    assert close < alone / 2


def test_paint_changes_colours_and_leaves_light_and_grey():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8), 3, axis=2)
    red = np.full((8, 8, 3), RED, np.uint8)
    green = repainted(red, 85, 1.0)  # a third round
    assert (repainted(grey, 85, 1.0) == grey).all()
    assert green[0, 0].argmax() == 1 and green.max() == red.max()
    assert np.ptp(repainted(red, 0, 0.3)[0, 0].astype(int)) < np.ptp(RED) / 2


@pytest.mark.parametrize("crowd", [False, True])
def test_the_same_generator_gives_the_same_pair(images, sprites, classes, crowd):
    source = CopyPaste(images, sprites, classes.things, crowd=crowd)
    a, b = (source.sample(np.random.default_rng(9), 48, 64) for _ in range(2))
    assert (a.images == b.images).all()
    assert (a.instance == b.instance).all()


def test_regions_of_a_thing_class_become_instances():
    semantic = np.zeros((40, 40), np.uint8)
    semantic[2:14, 2:14] = semantic[20:32, 20:32] = VEHICLE
    semantic[38, 38] = VEHICLE
    instance = instances_of_regions(semantic, (VEHICLE,))
    assert sorted(np.unique(instance)) == [0, 1, 2]
    assert instance[38, 38] == 0


def test_crops_cover_the_image_and_void_lies_only_outside():
    rng = np.random.default_rng(0)
    none = np.zeros((60, 80), np.uint8)
    frame = StreetFrame(np.zeros((60, 80, 3), np.uint8), none, none)
    for _ in range(30):
        matrix = CropRange().draw(rng, (60, 80), 48, 64)
        _, cropped, _ = warp(frame, matrix, 48, 64)
        assert (cropped == ROAD).mean() > 0.9


def test_photometric_changes_are_the_same_for_both_frames():
    frames = np.repeat(np.arange(0, 250, 10, dtype=np.uint8).reshape(1, 5, 5, 1), 2, 0)
    changed = photometric(np.repeat(frames, 3, 3), np.random.default_rng(1))
    assert changed.dtype == np.uint8
    assert abs(changed[0].astype(int) - changed[1]).mean() < 15
    assert (changed != np.repeat(frames, 3, 3)).any()
