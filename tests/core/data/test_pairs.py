"""Training pairs: geometry and labels agree between the two frames."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from street_fixtures import SPRITES, street_table, write_camvid, write_sprites

from video_knet_core.data.camvid import camvid_clip
from video_knet_core.data.copy_paste import CopyPaste
from video_knet_core.data.pairs import (
    CropRange,
    FramePair,
    photometric,
    spoilt_pair,
    warp,
    warped_pair,
)
from video_knet_core.data.sprites import load_sprites, repainted
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import Video

ROAD, VEHICLE, PERSON = 0, 10, 8
RED = SPRITES["walker"][1]


@pytest.fixture(scope="module")
def classes():
    return street_table()


@pytest.fixture
def images(tmp_path) -> Video:
    """One grey image with a car on a road."""
    return camvid_clip(write_camvid(tmp_path / "real", 1, (slice(38, 58), slice(36, 64))))


@pytest.fixture
def sprites(tmp_path, classes) -> list:
    """A red person that walks to the right, and a dog of no known class."""
    return load_sprites(write_sprites(tmp_path, ("walker", "dog"), 5), classes)


def test_only_sprites_of_street_classes_are_read(sprites):
    assert [s.class_id for s in sprites] == [PERSON]
    assert np.diff(sprites[0].centres[:, 0]).tolist() == [2, 2, 2, 2]


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
    (car,) = CopyPaste(images, [], classes.things, crowd=True).paster.singles
    ((image, mask),) = car.cutouts
    assert car.class_id == VEHICLE
    assert image.shape == (20, 28, 3)
    assert mask.shape == (20, 28)
    assert mask.all()


def test_what_the_border_of_an_image_cuts_off_stays_in_it(images, classes):
    labels = cv2.imread(images.frames[0].labels, cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(images.frames[0].labels, np.roll(labels, 64, axis=1))
    assert CopyPaste(images, [], classes.things, crowd=True).paster.singles == []


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
    feet = [[list(source.paster._feet(rng, 96, 128)) for _ in range(200)] for source in sources]
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


def test_a_clip_continues_the_motion_of_its_first_two_frames(images, sprites, classes):
    for seed in range(4):
        pair, clip = (
            CopyPaste(images, sprites, classes.things, 3, crowd=True, frames=frames).sample(
                np.random.default_rng(seed), 96, 128
            )
            for frames in (2, 5)
        )
        for name in ("images", "semantic", "instance"):
            assert np.array_equal(getattr(pair, name), getattr(clip, name)[:2])
        for name in np.unique(clip.instance)[1:]:
            assert len(np.unique(clip.semantic[clip.instance == name])) == 1
        changes = np.abs(np.diff(clip.images.astype(int), axis=0)).mean((1, 2, 3))
        assert (changes > 0).all()


def test_objects_of_a_clip_keep_their_direction(images, sprites, classes):
    """The sprite walks to the right, two pixels of its own a cut-out, and its clip is that walk."""
    source = CopyPaste(images, sprites, classes.things, 1, CropRange((1, 1), (1, 1)), frames=4)
    seen = 0
    for seed in range(40):
        people = source.sample(np.random.default_rng(seed), 96, 128).semantic == PERSON
        inside = people.any(1)[:, 8:-8].any(1).all() and not people[:, :, [0, -1]].any()
        if not inside or people.any((1, 2)).sum() < 4:
            continue
        steps = np.diff([np.nonzero(mask)[1].mean() for mask in people])
        seen += 1
        # sequences are short: at its end the walker stands
        assert (steps > -2).all() or (steps < 2).all()
    assert seen >= 5


def test_spoilt_frames_keep_their_labels_and_the_last_frame_its_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 48, 64, 3), np.uint8)
    instance = np.zeros((4, 48, 64), np.int32)
    instance[:, 20:30, 20:30] = 3
    semantic = np.where(instance, np.uint8(VEHICLE), np.uint8(ROAD))
    before = images.copy()
    pair = FramePair(images, semantic, instance)
    covered = 0
    for seed in range(20):
        spoilt = spoilt_pair(pair, np.random.default_rng(seed), 1.0)
        assert spoilt.semantic is semantic and spoilt.instance is instance
        changed = (spoilt.images != images).any(3)
        assert changed[:-1].any((1, 2)).all() and not changed[-1].any()
        covered += sum(mask[21:29, 21:29].all() and mask.mean() < 0.1 for mask in changed[:-1])
        again = spoilt_pair(pair, np.random.default_rng(seed), 1.0)
        assert np.array_equal(again.images, spoilt.images)
    assert 5 < covered < 30, "of 60 frames"
    assert np.array_equal(images, before)
    assert np.array_equal(spoilt_pair(pair, rng, 0.0).images, images)


def test_regions_of_a_thing_class_become_instances_if_they_look_single(images, classes):
    labels = cv2.imread(images.frames[0].labels, cv2.IMREAD_GRAYSCALE)
    labels[2:30, 2:26] = labels[90:93, 90:93] = labels[38, 38]
    labels[64:70, 4:100] = labels[38, 38]
    cv2.imwrite(images.frames[0].labels, labels)
    pair = CopyPaste(images, [], classes.things, crop=CropRange((1, 1), (1, 1)))
    instances = pair.sample(np.random.default_rng(0), 96, 128).instance[0]
    assert sorted(np.unique(instances)) == [0, 1, 2]
    assert (instances > 0).sum() == 28 * 24 + 20 * 28, "neither the small one nor the wide one"


def test_crops_cover_the_image_and_void_lies_only_outside():
    rng = np.random.default_rng(0)
    none = np.zeros((60, 80), np.uint8)
    frame = StreetFrame(np.zeros((60, 80, 3), np.uint8), none, none)
    for _ in range(30):
        matrix = CropRange().draw(rng, (60, 80), 48, 64)
        _, cropped, _ = warp(frame, matrix, 48, 64)
        assert (cropped == ROAD).mean() > 0.9


def test_a_crop_that_is_enlarged_twice_has_half_the_depth():
    """So does a mirrored one; depth outside is unknown, and stays so where it is unknown."""
    image, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    depth = np.full((60, 80), 12.0, np.float32)
    depth[:, :20] = 0
    frame = StreetFrame(image, labels, labels.astype(np.uint16), depth=depth)
    whole = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    mirrored = np.array([[-1.0, 0, 39], [0, 1, -10]])
    far = np.array([[0.25, 0, 0], [0, 0.25, 0]])
    pair = warped_pair([frame] * 3, [whole, mirrored, far], 30, 40)
    assert pair.depth.dtype == np.float32 and pair.depth.shape == (3, 30, 40)
    assert np.unique(pair.depth[0]).tolist() == [0, 12] and (pair.depth[0, :, :10] == 0).all()
    assert np.unique(pair.depth[1]).tolist() == [0, 6] and (pair.depth[1, :, 20:] == 0).all()
    assert np.unique(pair.depth[2]).tolist() == [0, 24] and (pair.depth[2, 15:] == 0).all()
    assert np.array_equal(pair.key().depth, pair.depth[:1])


def test_a_pair_has_depth_if_both_frames_have():
    image, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    without = StreetFrame(image, labels, labels.astype(np.uint16))
    depth = np.ones((60, 80), np.float32)
    frames = [StreetFrame(image, labels, labels.astype(np.uint16), depth=depth), without]
    pair = warped_pair(frames, [np.eye(2, 3)] * 2, 60, 80)
    assert pair.depth is None and pair.key().depth is None


def test_photometric_changes_are_the_same_for_both_frames():
    frames = np.repeat(np.arange(0, 250, 10, dtype=np.uint8).reshape(1, 5, 5, 1), 2, 0)
    changed = photometric(np.repeat(frames, 3, 3), np.random.default_rng(1))
    assert changed.dtype == np.uint8
    assert abs(changed[0].astype(int) - changed[1]).mean() < 15
    assert (changed != np.repeat(frames, 3, 3)).any()
