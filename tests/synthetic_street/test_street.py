"""The synthetic street: repeatable, with labels that agree with each other and ids that stay."""

from __future__ import annotations

import numpy as np
import pytest

from synthetic_street import SyntheticStreet
from synthetic_street.layout import (
    BUILDING,
    CYCLIST,
    FENCE,
    PERSON,
    POLE,
    ROAD,
    SIDEWALK,
    SIGN,
    SKY,
    VEGETATION,
    VEHICLE,
)
from synthetic_street.street_pairs import StreetPairs
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.data.street_frame import STREET_CLASSES, StreetFrame
from video_knet_core.types import NO_CLASS

SIZE = (96, 160)
THINGS = (PERSON, CYCLIST, VEHICLE)


@pytest.fixture(scope="module")
def drive() -> list[StreetFrame]:
    """Six seconds through a busy town."""
    street = SyntheticStreet(3, *SIZE)
    return [street.frame(t) for t in range(40, 100)]


def test_class_ids_are_those_of_the_street_model(pytestconfig):
    config = load_yaml(ModelConfig, pytestconfig.rootpath / "config/models/street_lite0.yaml")
    names = {
        "road": ROAD, "sidewalk": SIDEWALK, "building": BUILDING, "fence": FENCE, "pole": POLE,
        "sign": SIGN, "vegetation": VEGETATION, "sky": SKY, "person": PERSON, "cyclist": CYCLIST,
        "vehicle": VEHICLE,
    }  # fmt: skip
    assert {c.name: c.id for c in config.classes} == names
    assert config.classes.things == THINGS


@pytest.mark.parametrize("height, width", [(96, 160), (360, 640), (131, 77)])
def test_frames_have_the_size_and_types_requested(height, width):
    frame = SyntheticStreet(1, height, width).frame(4)
    assert frame.image.shape == (height, width, 3) and frame.image.dtype == np.uint8
    assert frame.semantic.shape == (height, width) and frame.semantic.dtype == np.uint8
    assert frame.instance.shape == (height, width) and frame.instance.dtype == np.uint16


def test_a_frame_depends_on_its_number_only():
    forwards, backwards = SyntheticStreet(6, *SIZE), SyntheticStreet(6, *SIZE)
    numbers = [0, 7, 200]
    first = {t: forwards.frame(t) for t in numbers}
    second = {t: backwards.frame(t) for t in reversed(numbers)}
    for t in numbers:
        np.testing.assert_array_equal(first[t].image, second[t].image)
        np.testing.assert_array_equal(first[t].semantic, second[t].semantic)
        np.testing.assert_array_equal(first[t].instance, second[t].instance)


def test_the_frame_rate_sets_the_time_between_frames():
    slow, fast = SyntheticStreet(3, *SIZE, fps=5.0), SyntheticStreet(3, *SIZE, fps=20.0)
    np.testing.assert_array_equal(slow.frame(5).semantic, fast.frame(20).semantic)
    np.testing.assert_array_equal(slow.frame(5).instance, fast.frame(20).instance)


def test_seeds_are_different_streets():
    frames = [SyntheticStreet(seed, *SIZE).frame(10) for seed in range(4)]
    for i, a in enumerate(frames):
        for b in frames[:i]:
            assert np.mean(a.semantic != b.semantic) > 0.05
            assert np.abs(a.image.astype(int) - b.image).mean() > 10


def test_every_pixel_has_a_class_and_things_only_have_ids(drive):
    for frame in drive:
        assert (frame.semantic == NO_CLASS).mean() < 0.01
        np.testing.assert_array_equal(frame.instance > 0, np.isin(frame.semantic, THINGS))


def test_all_classes_occur():
    seen = set()
    for seed in (1, 3, 5, 6):
        seen |= set(np.unique(SyntheticStreet(seed, 144, 240).frame(30).semantic))
    assert seen - {NO_CLASS} == set(range(VEHICLE + 1))


def test_the_street_is_laid_out_as_streets_are():
    """Road below, sky above, for whatever seed."""
    for seed in range(6):
        semantic = SyntheticStreet(seed, *SIZE).frame(20).semantic
        top, bottom = semantic[: SIZE[0] // 8], semantic[-SIZE[0] // 8 :]
        assert not np.isin(top, (ROAD, SIDEWALK)).any()
        assert not (bottom == SKY).any()
        assert np.mean(np.isin(bottom, (ROAD, *THINGS))) > 0.3


def test_an_id_never_changes_its_class(drive):
    classes: dict[int, set[int]] = {}
    for frame in drive:
        pairs = np.unique(np.stack([frame.instance, frame.semantic])[:, frame.instance > 0], axis=1)
        for track_id, class_id in pairs.T.tolist():
            classes.setdefault(track_id, set()).add(class_id)
    assert len(classes) > 20
    assert all(len(of_id) == 1 for of_id in classes.values())


def centroids(frame: StreetFrame, minimum: int) -> dict[int, np.ndarray]:
    """Centre (row, column) of every thing with at least so many pixels."""
    ids, counts = np.unique(frame.instance[frame.instance > 0], return_counts=True)
    return {
        int(i): np.argwhere(frame.instance == i).mean(0)
        for i, n in zip(ids, counts, strict=True)
        if n >= minimum
    }


def test_things_move_smoothly_under_their_id(drive):
    """No id jumps to another object: between frames a far or middling thing moves a little."""
    for before, after in zip(drive[:-1], drive[1:], strict=True):
        old, new = centroids(before, 30), centroids(after, 30)
        for track_id in old.keys() & new.keys():
            # Close things pass quickly: only those away from the border are held to this.
            if 30 < old[track_id][1] < SIZE[1] - 30:
                assert np.abs(new[track_id] - old[track_id]).max() < 20


def test_things_leave_and_return_with_the_same_id(drive):
    """Seen, then hidden or out of view for half a second or more, then seen again."""
    last_seen: dict[int, int] = {}
    returned = set()
    for t, frame in enumerate(drive):
        for track_id in np.unique(frame.instance)[1:].tolist():
            if t - last_seen.get(track_id, t) > 5:
                returned.add(track_id)
            last_seen[track_id] = t
    assert returned


def test_new_things_keep_coming_with_new_ids():
    street = SyntheticStreet(3, *SIZE)
    early = {i for t in range(0, 40, 10) for i in np.unique(street.frame(t).instance)[1:]}
    late = {i for t in range(3000, 3040, 10) for i in np.unique(street.frame(t).instance)[1:]}
    assert len(early) > 5 and len(late) > 5
    with_ego = early & late  # vehicles that drive along with us may stay for ever
    assert len(with_ego) < len(late) / 2


def test_the_picture_shows_the_labels(drive):
    """Edges of large things are edges of the picture too: colour differs across them."""
    inside, across = [], []
    for frame in drive[::20]:
        step = np.abs(np.diff(frame.image.astype(int), axis=1)).sum(2)
        border = frame.instance[:, 1:] != frame.instance[:, :-1]
        across.append(step[border].mean())
        inside.append(step[~border].mean())
    assert np.mean(across) > 1.5 * np.mean(inside)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"seed": -1}, "seed >= 0, got -1"),
        ({"seed": 0, "height": 8}, ">= 32, got 8 x 480"),
        ({"seed": 0, "fps": 0.0}, "fps > 0, got 0.0"),
    ],
)
def test_impossible_streets_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticStreet(**arguments)
    with pytest.raises(ValueError, match="frame number >= 0, got -1"):
        SyntheticStreet(0, *SIZE).frame(-1)


def test_street_clips_are_rendered_once_and_ids_agree(tmp_path):
    source = StreetPairs(1, tmp_path)
    first = source.sample(np.random.default_rng(2), 96, 160)
    files = list(tmp_path.glob("*.npz"))
    again = source.sample(np.random.default_rng(2), 96, 160)
    assert len(files) == 1
    assert (first.images == again.images).all()
    assert set(np.unique(first.instance[0])) & set(np.unique(first.instance[1])) - {0}


def test_street_clips_with_depth_are_kept_apart(tmp_path):
    rng = np.random.default_rng
    plain = StreetPairs(1, tmp_path).sample(rng(2), 96, 160)
    source = StreetPairs(1, tmp_path, depth=True)
    pair, again = (source.sample(rng(2), 96, 160) for _ in range(2))
    assert plain.depth is None and len(list(tmp_path.glob("*.npz"))) == 2
    assert np.array_equal(plain.images, pair.images)
    assert pair.depth.shape == pair.semantic.shape and pair.depth.dtype == np.float32
    assert np.array_equal(pair.depth, again.depth)
    road, sky = (pair.depth[pair.semantic == STREET_CLASSES.index(c)] for c in ("road", "sky"))
    assert 2 < np.median(road) < 40 and (sky == 0).all(), "infinitely far is unknown"
