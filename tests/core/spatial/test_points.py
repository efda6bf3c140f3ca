"""Points with class and track: which there are, and what is left of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spatial_scenes import frame_of, thing

from video_knet_core.geometry import LabelMap, NearestUpsampling
from video_knet_core.spatial.camera_model import CameraModel
from video_knet_core.spatial.points import (
    MAX_POINTS,
    POINT_DTYPE,
    LabelledPoints,
    point_size,
    points_of_cloud,
    points_of_depth,
    stride_of,
    thinned,
)
from video_knet_core.types import NO_CLASS, PanopticFrame

HEIGHT, WIDTH = 24, 32
REACH = (0.2, 2000.0)
ROAD, PERSON, VEHICLE = 0, 1, 2


def camera(height: int = HEIGHT, width: int = WIDTH) -> CameraModel:
    k = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    return CameraModel(width, height, "camera", k)


def a_frame(size: tuple[int, int] = (HEIGHT, WIDTH)) -> PanopticFrame:
    """A person (label 1) on a road (label 2) under nothing, in a map of 24 x 32 cells."""
    small = np.zeros((HEIGHT, WIDTH), np.uint16)
    small[12:] = 2
    small[6:18, 10:20] = 1
    labels = LabelMap(small, NearestUpsampling(small.shape, size))
    person, road = thing(1, 7, PERSON, score=0.75), thing(2, 0, ROAD, is_thing=False, score=0.5)
    return frame_of(labels, [person, road])


def an_image(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def points(depth: np.ndarray | None = None, stride: int = 1, **changes) -> LabelledPoints:
    depth = np.full((HEIGHT, WIDTH), 4, np.float32) if depth is None else depth
    rays = camera(*depth.shape).rays()
    return points_of_depth(
        a_frame(**changes), an_image(), depth.astype(np.float32), rays, stride, REACH
    )


def cells_of(xyz: np.ndarray, voxel: float) -> np.ndarray:
    return np.floor(xyz * np.float32(1 / voxel)).astype(np.int64)


# --- one point for each cube ---------------------------------------------------------------------


@pytest.mark.parametrize("voxel", [0.01, 0.1, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("spread", [0.05, 1.0, 60.0])
def test_there_is_exactly_one_point_of_each_cube(voxel, spread):
    xyz = np.random.default_rng(0).normal(0, spread, (20_000, 3)).astype(np.float32)
    kept = thinned(xyz, voxel)
    cubes = np.unique(cells_of(xyz, voxel), axis=0)
    assert len(kept) == len(cubes)
    assert np.unique(cells_of(xyz[kept], voxel), axis=0).tolist() == cubes.tolist()
    assert (np.diff(kept) > 0).all()


@given(
    st.lists(st.tuples(*[st.floats(-500, 500, width=32)] * 3), max_size=60),
    st.sampled_from([0.01, 0.1, 0.7, 10.0]),
)
@settings(max_examples=100, deadline=None)
def test_any_points_are_thinned_to_one_of_each_cube(rows, voxel):
    xyz = np.array(rows, np.float32).reshape(-1, 3)
    kept = thinned(xyz, voxel)
    assert len(kept) == len({tuple(cell) for cell in cells_of(xyz, voxel).tolist()})


def test_no_points_are_thinned_to_none():
    assert thinned(np.zeros((0, 3), np.float32), 0.1).tolist() == []


def test_cubes_below_zero_are_not_those_above():
    xyz = np.array([[-0.05, 0, 1], [0.05, 0, 1], [0.06, 0, 1]], np.float32)
    assert len(thinned(xyz, 0.1)) == 2


# --- of depth images -----------------------------------------------------------------------------


def test_points_are_in_the_order_of_the_pixels():
    found = points()
    assert (found.size, len(found.xyz)) == ((HEIGHT, WIDTH), HEIGHT * WIDTH)
    pixels, in_front = camera().project(found.xyz)
    v, u = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    assert in_front.all()
    assert pixels == pytest.approx(np.stack([u, v], axis=1), abs=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3, 5, 7, 31, 64])
def test_every_nth_row_and_column_is_a_point(stride):
    depth = np.arange(1, 1 + HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    stride = stride_of(depth.shape, stride)
    found = points(depth, stride)
    start = stride // 2
    assert found.xyz[:, 2].tolist() == depth[start::stride, start::stride].ravel().tolist()
    assert found.size == point_size(depth.shape, stride)
    labels = a_frame().label_map.small[start::stride, start::stride]
    assert found.label.tolist() == labels.ravel().tolist()
    assert len(found.array()) == len(found.xyz)


def test_depth_of_another_size_has_the_labels_and_colours_of_its_field_of_view():
    small, large = points(np.full((12, 16), 4)), points(np.full((48, 64), 4))
    labels = a_frame().label_map.small
    assert small.label.reshape(12, 16).tolist() == labels[1::2, 1::2].tolist()
    assert large.label.reshape(48, 64).tolist() == labels.repeat(2, 0).repeat(2, 1).tolist()
    colours = an_image().repeat(2, 0).repeat(2, 1).astype(np.uint32)
    packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    assert large.array()["rgb"].tolist() == packed.ravel().tolist()


@pytest.mark.parametrize("size", [(72, 96), (37, 61), (90, 125)])
def test_labels_are_those_of_the_pixels_at_any_size(size):
    frame, depth = a_frame(size), np.full(size, 4, np.float32)
    found = points_of_depth(frame, an_image(*size), depth, camera(*size).rays(), 1, REACH)
    assert found.label.tolist() == frame.labels.ravel().tolist()


def test_pixels_without_depth_are_points_without_a_place():
    depth = np.full((HEIGHT, WIDTH), 4.0)
    depth[3, 5] = np.nan
    xyz = points(depth).xyz.reshape(HEIGHT, WIDTH, 3)
    assert np.argwhere(np.isnan(xyz).all(axis=2)).tolist() == [[3, 5]]


def test_the_inputs_are_left_as_they_are():
    depth = np.full((HEIGHT, WIDTH), 4, np.float32)
    frame, image, rays = a_frame(), an_image(), camera().rays()
    before = [array.copy() for array in (depth, image, frame.label_map.small)]
    found = points_of_depth(frame, image, depth, rays, 1, REACH)
    found.xyz[:], found.label[:] = 0, 0
    found.array()
    for array, copy in zip((depth, image, frame.label_map.small), before, strict=True):
        assert np.array_equal(array, copy)


# --- of clouds -----------------------------------------------------------------------------------


def test_points_of_a_cloud_have_what_is_at_their_pixel():
    cloud = np.array([[0, 0, 4], [0, 1.3, 4], [0, -1.3, 4], [9, 0, 4], [0, 0, -4]], np.float32)
    found = points_of_cloud(a_frame(), an_image(), cloud, camera())
    assert found.xyz.tolist() == cloud[:3].tolist()
    assert found.array()["class_id"].tolist() == [PERSON, ROAD, NO_CLASS]
    assert found.size is None


@pytest.mark.parametrize("size", [(72, 96), (12, 16), (37, 61), (90, 125)])
def test_the_map_may_have_another_size_than_the_image(size):
    frame, image, view = a_frame(size), an_image(*size), camera(*size)
    cloud = np.random.default_rng(0).uniform([-4, -3, 4], [4, 3, 9], (2000, 3)).astype(np.float32)
    found = points_of_cloud(frame, image, cloud, view)
    u, v = np.rint(view.project(found.xyz)[0]).astype(int).T
    assert found.label.tolist() == frame.labels[v, u].tolist()
    red, green, blue = image[v, u].astype(np.uint32).T
    assert found.array()["rgb"].tolist() == (red << 16 | green << 8 | blue).tolist()


def test_an_empty_cloud_has_no_points():
    found = points_of_cloud(a_frame(), an_image(), np.zeros((0, 3), np.float32), camera())
    assert len(found.array()) == len(found.obstacles([], 0.1).xyz) == 0


# --- classes -------------------------------------------------------------------------------------


def test_points_have_class_track_and_confidence():
    array = points().array().reshape(HEIGHT, WIDTH)
    assert array.dtype == POINT_DTYPE
    of_person, of_road, of_none = array[8, 15], array[20, 5], array[2, 2]
    assert of_person[["class_id", "track_id", "confidence"]].tolist() == (PERSON, 7, 0.75)
    assert of_road[["class_id", "track_id", "confidence"]].tolist() == (ROAD, 0, 0.5)
    assert of_none[["class_id", "track_id", "confidence"]].tolist() == (NO_CLASS, 0, 0)


def test_obstacles_are_all_but_the_ground_and_with_it_all():
    whole = points()
    free, obstacles = whole.of_classes([ROAD], 0.001), whole.obstacles([ROAD], 0.001)
    assert set(free.label.tolist()) == {2}
    assert set(obstacles.label.tolist()) == {0, 1}  # what has no segment may be anything
    assert len(free.xyz) + len(obstacles.xyz) == whole.inner.sum()


def test_without_classes_of_the_ground_all_is_an_obstacle():
    whole = points()
    assert len(whole.of_classes([], 0.001).xyz) == 0
    assert len(whole.obstacles([], 0.001).xyz) == whole.inner.sum()


def test_the_class_of_no_segment_cannot_be_chosen():
    assert set(points().of_classes([NO_CLASS, ROAD], 0.001).label.tolist()) == {2}


def test_points_at_the_border_of_a_segment_are_left_out():
    """Depth there is a mixture of what is before and behind."""
    whole = points()
    inner = whole.inner.reshape(HEIGHT, WIDTH)
    assert inner[8:16, 12:18].all()
    assert not inner[6, 11:19].any() and not inner[7:17, 10].any()


@pytest.mark.parametrize("width", [1, 2])
def test_thin_things_are_kept_as_a_whole(width):
    """A pole of one or two columns has no cell that is not at its border."""
    small = np.zeros((HEIGHT, WIDTH), np.uint16)
    small[:, 15 : 15 + width] = 1
    frame = frame_of(LabelMap.of(small), [thing(1, 3, PERSON)])
    depth = np.full((HEIGHT, WIDTH), 4, np.float32)
    whole = points_of_depth(frame, an_image(), depth, camera().rays(), 1, REACH)
    poles = whole.of_classes([PERSON], 0.001)
    assert len(poles.xyz) == HEIGHT * width


def test_obstacles_have_a_place():
    """Neither without depth nor where the lens model has no ray."""
    depth = np.full((HEIGHT, WIDTH), 4, np.float32)
    depth[:4] = np.nan
    rays = camera().rays().copy()
    rays[:, :8] = np.nan
    whole = points_of_depth(a_frame(), an_image(), depth, rays, 1, REACH)
    for some in (whole.obstacles([ROAD], 0.1), whole.of_classes([ROAD], 0.1)):
        assert len(some.xyz) and np.isfinite(some.xyz).all()


@pytest.mark.parametrize("track", [2**31, 2**32 - 1])
def test_track_ids_have_32_bits(track):
    frame = frame_of(LabelMap.of(np.ones((HEIGHT, WIDTH), np.uint16)), [thing(1, track, PERSON)])
    depth = np.full((HEIGHT, WIDTH), 4, np.float32)
    whole = points_of_depth(frame, an_image(), depth, camera().rays(), 1, REACH)
    assert set(whole.array()["track_id"].tolist()) == {track}


def test_equal_points_have_equal_bytes():
    """The bytes between the fields, too."""
    assert points().array().tobytes() == points().array().tobytes()
    assert not np.frombuffer(points().array().tobytes(), np.uint8).reshape(-1, 28)[:, 18:20].any()


def test_the_stride_without_a_setting_is_one_that_leaves_few_enough_points():
    for size in ((48, 64), (480, 640), (1080, 1920)):
        height, width = point_size(size, 0)
        assert height * width <= 1.1 * MAX_POINTS
    assert stride_of((48, 64), 0) == 1
    assert stride_of((48, 64), 5) == 5


def test_depth_out_of_reach_has_no_place():
    depth = np.full((HEIGHT, WIDTH), 4, np.float32)
    depth[0], depth[1] = 0.1, 90
    found = points_of_depth(a_frame(), an_image(), depth, camera().rays(), 1, (0.2, 80.0))
    assert np.isnan(found.xyz[: 2 * WIDTH]).all() and np.isfinite(found.xyz[2 * WIDTH :]).all()
    assert depth[0, 0] == np.float32(0.1)
