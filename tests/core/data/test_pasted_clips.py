"""Moving sprites on a real clip: what is seen, and what its labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from street_fixtures import GREY_STEP, HEIGHT, WIDTH, street_table, write_camvid, write_sprites

from video_knet_core.data.camvid import camvid_clip
from video_knet_core.data.pasted_clips import (
    CAMERA_METRES,
    FARTHEST,
    HORIZON,
    PastedClip,
    ping_pong_index,
)
from video_knet_core.data.sprites import HELD_OUT_SPRITES, load_sprites
from video_knet_core.data.street_frame import MIN_VISIBLE, drop_small_objects
from video_knet_core.image_files import FrameError
from video_knet_core.types import NO_CLASS

CLASSES = street_table()
VEHICLE = CLASSES.id_of("vehicle")
OWN_CAR = slice(50, 70), slice(40, 80)


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    return load_sprites(write_sprites(tmp_path_factory.mktemp("sprites")), CLASSES, "all")


@pytest.fixture(scope="module")
def empty_street(tmp_path_factory):
    return camvid_clip(write_camvid(tmp_path_factory.mktemp("empty")))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """With a car whose wheels are at row 70 of 96."""
    return camvid_clip(write_camvid(tmp_path_factory.mktemp("street"), car=OWN_CAR))


def paste(clip, sprites, seed=0):
    return PastedClip(clip, sprites, CLASSES.things, seed)


def at_rest(item, nearness, metres=0.0):
    """The object at a place that only its own motion changes."""
    still = replace(item.aside, reach=0.0)
    return replace(item, nearness=nearness, metres=metres, aside=still, nearer=still)


def maps(frame):
    return frame.image, frame.semantic, frame.instance


def test_frames_of_a_seed_may_be_requested_in_any_order(street, sprites):
    first, second = paste(street, sprites, 3), paste(street, sprites, 3)
    forward = [first.frame(t) for t in range(9)]
    for t in (7, 0, 8, 3):
        for one, other in zip(maps(second.frame(t)), maps(forward[t]), strict=True):
            np.testing.assert_array_equal(one, other)
    other = paste(street, sprites, 4).frame(5)
    assert (other.instance != forward[5].instance).any()


def test_the_street_is_played_forward_and_backward(empty_street, sprites):
    assert [ping_pong_index(t, 4) for t in range(8)] == [0, 1, 2, 3, 2, 1, 0, 1]
    assert ping_pong_index(5, 1) == 0
    clip = paste(empty_street, sprites)
    greys = [int(clip.frame(t).image[0, 0, 0]) for t in range(12)]
    assert set(np.abs(np.diff(greys))) == {GREY_STEP} and len(set(greys)) == 4


def test_three_to_six_objects_and_none_twice_if_there_are_enough(street, sprites):
    counts = set()
    for seed in range(40):
        objects = paste(street, sprites, seed).objects
        counts.add(len(objects))
        used = {id(item.sprite) for item in objects}
        assert len(used) == min(len(objects), len(sprites))
    assert counts == {3, 4, 5, 6}


def test_a_track_is_one_object_and_moves(empty_street, sprites):
    clip = paste(empty_street, sprites, 1)
    places = {k: [] for k in range(1, len(clip.objects) + 1)}
    for t in range(0, 40, 4):
        frame = clip.frame(t)
        assert (frame.semantic[frame.instance > 0] != NO_CLASS).all()
        for k in set(np.unique(frame.instance)) - {0}:
            seen = frame.instance == k
            assert set(frame.semantic[seen]) == {clip.objects[k - 1].sprite.class_id}
            places[k].append(np.nonzero(seen)[1].mean())
    assert max(len(p) for p in places.values()) > 5
    assert all(np.ptp(p) > 1 for p in places.values() if len(p) > 1)


def test_labels_lie_on_the_pixels_of_the_object(empty_street, sprites):
    clip = paste(empty_street, sprites)
    clip.objects = [at_rest(clip.objects[0], 0.3)]
    frame = clip.frame(0)
    colour = clip.objects[0].sprite.cutouts[0][0][0, 0] * clip.objects[0].brightness
    rows, columns = np.nonzero(frame.instance == 1)
    middle = frame.image[rows[len(rows) // 2], int(columns.mean())]
    np.testing.assert_allclose(middle, np.minimum(colour, 255), atol=6)
    assert (frame.image[frame.instance == 0][:WIDTH] == frame.image[0, 0]).all()


def test_objects_stand_on_the_ground_and_nearer_ones_are_larger(empty_street, sprites):
    clip = paste(empty_street, sprites)
    for item in clip.objects:
        for nearness in (0.15, 0.3):
            clip.objects = [at_rest(item, nearness)]
            rows = np.nonzero(clip.frame(0).instance)[0]
            expected = item.sprite.metres * item.size / CAMERA_METRES * nearness * HEIGHT
            assert rows.max() + 1 == pytest.approx((HORIZON + nearness) * HEIGHT, abs=1.5)
            assert np.ptp(rows) + 1 == pytest.approx(expected, abs=2.5)


def test_no_object_floats_in_the_sky(empty_street, sprites):
    highest = (HORIZON + FARTHEST) * HEIGHT
    for seed in range(4):
        clip = paste(empty_street, sprites, seed)
        for item in list(clip.objects):
            clip.objects = [item]
            for t in (0, 30, 60):
                rows = np.nonzero(clip.frame(t).instance)[0]
                assert not len(rows) or rows.max() + 1 >= highest - 1.5


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_object_hides_the_farther_one(order, empty_street, sprites):
    clip = paste(empty_street, sprites)
    both = [at_rest(clip.objects[0], 0.2), at_rest(clip.objects[1], 0.4)]
    clip.objects = [both[1]]
    near = clip.frame(0).instance > 0
    clip.objects = [both[k] for k in order]
    seen = clip.frame(0).instance[near]
    assert (seen == 1 + order.index(1)).all()


def test_things_of_the_street_itself_are_void(street, sprites):
    clip = paste(street, sprites)
    clip.objects = []
    frame = clip.frame(0)
    assert (frame.semantic[OWN_CAR] == NO_CLASS).all() and not frame.instance.any()
    assert (frame.semantic == NO_CLASS).sum() == 20 * 40


def test_things_of_the_street_hide_what_is_behind_them_only(street, sprites):
    clip = paste(street, sprites)
    left = (60 - WIDTH / 2) / (0.1 * HEIGHT / CAMERA_METRES)
    clip.objects = [at_rest(clip.objects[0], 0.1, left)]
    behind = clip.frame(0)
    assert (behind.semantic[OWN_CAR] == NO_CLASS).all()
    assert (behind.image[OWN_CAR] == behind.image[0, 0]).all()
    clip.objects = [at_rest(clip.objects[0], 0.4)]
    before = clip.frame(0)
    assert (before.instance[OWN_CAR] == 1).any()


def test_cutouts_at_the_border_of_their_own_video_are_not_shown(tmp_path, street):
    root = write_sprites(tmp_path, ["walker"], frames=16, cut_off=(3, 15))
    (walker,) = load_sprites(root, CLASSES)
    assert np.flatnonzero(~walker.whole).tolist() == [3, 15]
    item = paste(street, [walker]).objects[0]
    assert {item.view(t, 0.0).cutout for t in range(60)} == set(range(4, 15))


def test_a_sprite_that_is_never_whole_cannot_be_pasted(tmp_path, street):
    sprites = load_sprites(write_sprites(tmp_path, ["walker"], 6, range(6)), CLASSES)
    with pytest.raises(FrameError, match="none of 1 sprites shows its object whole in 10"):
        paste(street, sprites)


def test_an_own_motion_is_mirrored_with_its_object(empty_street, sprites):
    item = replace(paste(empty_street, sprites).objects[0], first=0)
    ways = [
        [replace(still, mirror=mirror).view(t, 0.0).metres for t in range(12)]
        for still in [at_rest(item, 0.3)]
        for mirror in (False, True)
    ]
    assert (np.diff(ways[0]) > 0).all()
    np.testing.assert_allclose(ways[0], -np.array(ways[1]))


def test_specks_are_void():
    semantic = np.full((100, 110), VEHICLE, np.uint8)
    instance = np.zeros((100, 110), np.uint16)
    minimum = int(MIN_VISIBLE * instance.size) + 1
    instance[0, :minimum] = 1
    instance[5, : minimum - 1] = 2
    semantic, instance = drop_small_objects(semantic, instance)
    assert np.unique(instance).tolist() == [0, 1]
    assert np.count_nonzero(semantic == NO_CLASS) == minimum - 1


def colours(sprites):
    return {tuple(int(v > 127) for v in sprite.cutouts[0][0][0, 0]) for sprite in sprites}


def test_training_has_the_sprites_that_are_not_held_out(tmp_path):
    root = write_sprites(tmp_path)
    assert {"lucia", "car-turn"} <= set(HELD_OUT_SPRITES)
    assert colours(load_sprites(root, CLASSES)) == {(1, 0, 0), (0, 1, 0)}
    assert colours(load_sprites(root, CLASSES, "held_out")) == {(0, 0, 1), (1, 1, 0)}
    assert len(load_sprites(root, CLASSES, "all")) == 4


def test_a_folder_without_held_out_sprites_is_all_for_training(tmp_path):
    root = write_sprites(tmp_path, ["walker", "van"])
    assert len(load_sprites(root, CLASSES)) == 2
    with pytest.raises(FrameError, match=r"none of the held-out sprites \(car-turn, .*'walker'"):
        load_sprites(root, CLASSES, "held_out")
