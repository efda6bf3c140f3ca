"""Visible surfaces: the distance of a known object before a known background."""

from __future__ import annotations

import numpy as np
import pytest

from video_knet_core.geometry import LabelMap, NearestUpsampling
from video_knet_core.spatial.surfaces import (
    MIN_POINTS,
    RegionMap,
    Samples,
    Surfaces,
    find_surfaces,
    inner_cells,
    samples_of_cloud,
    samples_of_depth,
)

HEIGHT, WIDTH = 60, 80
FOCAL = 80.0
REACH = (0.2, 80.0)


def label_map(*boxes: tuple[int, int, int, int], size: tuple[int, int] | None = None) -> LabelMap:
    """Labels 1, 2, ... of boxes (top, bottom, left, right) in a map of 60 x 80 cells."""
    small = np.zeros((HEIGHT, WIDTH), np.uint16)
    for label, (top, bottom, left, right) in enumerate(boxes, start=1):
        small[top:bottom, left:right] = label
    return LabelMap(small, NearestUpsampling(small.shape, size or small.shape))


def regions_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] | None = None) -> RegionMap:
    return RegionMap.of(label_map(*boxes, size=size), np.arange(1, 1 + len(boxes)))


def rays(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Of a camera whose centre is in the middle, at any size of its image."""
    v, u = np.mgrid[:height, :width]
    x = ((u + 0.5) * WIDTH / width - WIDTH / 2) / FOCAL
    y = ((v + 0.5) * HEIGHT / height - HEIGHT / 2) / FOCAL
    return np.stack([x, y], axis=-1).astype(np.float32)


def surfaces_of(regions: RegionMap, depth: np.ndarray, axes: np.ndarray | None = None) -> Surfaces:
    samples = samples_of_depth(regions, depth.astype(np.float32), rays(*depth.shape), REACH)
    return find_surfaces(samples, int(regions.index.max()) + 1, axes)


def along_the_axis(distances, region=None) -> Samples:
    """Points on the optical axis, which count as inner ones."""
    points = np.zeros((len(distances), 3))
    points[:, 2] = distances
    number = np.zeros(len(points), np.int16) if region is None else np.asarray(region, np.int16)
    return Samples(number, np.ones(len(points), bool), points)


# --- regions -------------------------------------------------------------------------------------


def test_inner_cells_have_four_neighbours_of_their_value():
    values = np.zeros((6, 7), np.uint16)
    values[1:4, 2:6] = 3
    inner = np.zeros((6, 7), bool)
    inner[2, 3:5] = True
    assert (inner_cells(values) & (values == 3)).tolist() == inner.tolist()


def test_the_border_of_the_image_is_no_border_of_a_region():
    assert inner_cells(np.full((3, 4), 9, np.uint16)).all()


def test_regions_are_numbered_as_their_labels_come():
    labels = label_map((0, 10, 0, 10), (20, 30, 0, 10), (40, 50, 0, 10))
    regions = RegionMap.of(labels, np.array([3, 1]))
    assert [regions.index[row, 0] for row in (5, 25, 45, 55)] == [1, -1, 0, -1]


def test_labels_without_a_pixel_are_regions_without_one():
    regions = RegionMap.of(label_map((0, 10, 0, 10)), np.array([7, 1]))
    assert set(np.unique(regions.index)) == {-1, 1}


def test_a_pixel_of_the_image_has_the_region_of_its_cell():
    regions = regions_of((0, 30, 0, 40), size=(HEIGHT * 2, WIDTH * 3))
    found, inner = regions.at(np.array([0, 59, 60, 30]), np.array([0, 119, 0, 60]))
    assert found.tolist() == [0, 0, -1, 0]
    assert inner.tolist() == [True, False, False, True]


@pytest.mark.parametrize("size", [(37, 61), (90, 125), (40, 50)])
def test_the_cell_of_a_pixel_is_that_of_the_label_image(size):
    labels = label_map((13, 44, 21, 58), size=size)
    v, u = np.mgrid[: size[0], : size[1]].reshape(2, -1)
    found, _ = RegionMap.of(labels, np.array([1])).at(v, u)
    assert (found + 1).tolist() == labels.enlarge().ravel().tolist()


# --- depth images --------------------------------------------------------------------------------


def test_a_board_is_found_at_its_distance():
    depth = np.full((HEIGHT, WIDTH), 20.0)
    depth[20:40, 30:50] = 5.0
    found = surfaces_of(regions_of((20, 40, 30, 50)), depth)
    assert found.position[0] == pytest.approx([0, 0, 5], abs=0.04)
    assert found.points[0] >= MIN_POINTS
    assert found.noise[0] == pytest.approx(0, abs=0.01)


def test_the_limits_of_a_board_are_its_extent():
    depth = np.full((HEIGHT, WIDTH), 5.0)
    found = surfaces_of(regions_of((20, 40, 30, 50)), depth)
    assert found.high[0] - found.low[0] == pytest.approx([1.25, 1.25, 0], abs=0.13)


def test_background_at_the_border_of_a_mask_does_not_count():
    """The mask is two cells too large on each side: 44 % of it shows what is behind."""
    depth = np.full((HEIGHT, WIDTH), 20.0)
    depth[22:38, 32:48] = 5.0
    found = surfaces_of(regions_of((20, 40, 30, 50)), depth)
    assert found.position[0, 2] == pytest.approx(5)
    assert found.high[0, 2] == pytest.approx(5)


def test_what_is_seen_through_a_fence_does_not_count():
    depth = np.full((HEIGHT, WIDTH), 12.0)
    depth[:, ::3] = 4.0  # bars that are a third of the pixels
    found = surfaces_of(regions_of((10, 50, 10, 70)), depth)
    assert found.position[0, 2] == pytest.approx(4)


def test_a_few_near_points_are_not_the_object():
    depth = np.full((HEIGHT, WIDTH), 12.0)
    depth[25:30, 35:40] = 1.0  # less than a quarter of it
    found = surfaces_of(regions_of((20, 40, 30, 50)), depth)
    assert found.position[0, 2] == pytest.approx(12)


@pytest.mark.parametrize("side", [1, 2])
def test_a_tiny_region_is_measured_by_every_pixel_it_has(side):
    regions = regions_of((20, 20 + side, 30, 30 + side), size=(HEIGHT * 4, WIDTH * 4))
    depth = np.full((HEIGHT * 4, WIDTH * 4), 20.0)
    depth[80 : 80 + 4 * side, 120 : 120 + 4 * side] = 7.0
    found = surfaces_of(regions, depth)
    assert found.points[0] == 16 * side**2
    assert found.position[0, 2] == pytest.approx(7)


def test_fewer_points_than_three_are_no_range():
    depth = np.full((HEIGHT, WIDTH), np.nan)
    depth[20, 30:32] = 7.0
    found = surfaces_of(regions_of((20, 21, 30, 34)), depth)
    assert found.points.tolist() == [0]
    assert np.isnan(found.position).all() and np.isnan(found.low).all()


def test_a_region_without_depth_has_no_range_and_the_others_have_theirs():
    depth = np.full((HEIGHT, WIDTH), 6.0)
    depth[:30] = np.nan
    found = surfaces_of(regions_of((5, 25, 10, 30), (35, 55, 10, 30), (35, 55, 40, 60)), depth)
    assert (found.points > 0).tolist() == [False, True, True]
    assert np.isnan(found.position[0]).all() and np.isnan(found.noise[0])
    assert found.position[1:, 2] == pytest.approx([6, 6])


def test_depth_out_of_reach_does_not_count():
    depth = np.full((HEIGHT, WIDTH), 0.1)
    depth[:, 40:] = 90.0
    assert surfaces_of(regions_of((20, 40, 10, 30), (20, 40, 50, 70)), depth).points.tolist() == [
        0,
        0,
    ]


def test_pixels_without_a_ray_do_not_count():
    """Beyond the field of a wide lens."""
    regions, depth = regions_of((20, 40, 30, 50)), np.full((HEIGHT, WIDTH), 5, np.float32)
    some = rays().copy()
    some[:, :45] = np.nan
    samples = samples_of_depth(regions, depth, some, REACH)
    assert len(samples.points) == 20 * 5
    assert np.isfinite(samples.points).all()


def test_pixels_far_beside_the_axis_of_a_wide_lens_do_not_count():
    """At 89.5 degrees a depth of 80 m is 9 km away."""
    regions, depth = regions_of((20, 40, 30, 50)), np.full((HEIGHT, WIDTH), 80, np.float32)
    wide = rays().copy()
    wide[:, 45:, 0] = 115
    found = find_surfaces(samples_of_depth(regions, depth, wide, REACH), 1)
    assert found.position[0, 2] == pytest.approx(80) and found.high[0, 0] < 80


@pytest.mark.parametrize("scale", [0.4, 0.7, 1.0, 1.3, 1.6, 2.3, 3.9, 6.0])
def test_samples_of_depth_of_any_size_are_of_the_regions(scale):
    size = round(HEIGHT * scale), round(WIDTH * scale)
    regions = regions_of((20, 41, 30, 51), (45, 46, 3, 4), size=size)
    samples = samples_of_depth(regions, np.full(size, 5, np.float32), rays(*size), REACH)
    assert set(samples.region.tolist()) >= {0}
    assert (samples.region >= 0).all()
    found = find_surfaces(samples, 2)
    assert found.position[0] == pytest.approx([5 / 160, 5 / 160, 5], abs=0.15)


def test_a_frame_without_regions_has_no_samples():
    regions = RegionMap.of(label_map(), np.zeros(0, np.int64))
    samples = samples_of_depth(regions, np.full((HEIGHT, WIDTH), 5, np.float32), rays(), REACH)
    found = find_surfaces(samples, 0)
    assert len(samples.points) == len(found.points) == len(found.position) == 0


def test_regions_without_samples_have_no_range():
    found = find_surfaces(along_the_axis([]), 3)
    assert found.points.tolist() == [0, 0, 0]
    assert all(np.isnan(values).all() for values in (found.position, found.spread, found.anchor))


# --- clouds --------------------------------------------------------------------------------------


def test_points_of_a_cloud_belong_to_the_region_of_their_pixel():
    regions = regions_of((20, 40, 30, 50))
    pixels = np.array([[40, 30], [29.4, 30], [29.6, 30], [10, 30], [-3, 30], [np.nan, np.nan]])
    points = np.arange(18.0).reshape(6, 3)
    samples = samples_of_cloud(regions, points, pixels, np.array([True] * 5 + [False]))
    assert samples.points.tolist() == points[[0, 2]].tolist()
    assert samples.inner.tolist() == [True, False]


def test_points_behind_the_camera_do_not_count():
    regions = regions_of((20, 40, 30, 50))
    pixels = np.full((4, 2), 35.0)
    samples = samples_of_cloud(regions, np.ones((4, 3)), pixels, np.zeros(4, bool))
    assert len(samples.points) == 0


# --- clusters and noise --------------------------------------------------------------------------


def test_the_nearest_dense_cluster_is_the_object():
    near, middle, far = [3.0] * 10, [8.0] * 30, [15.0] * 60
    found = find_surfaces(along_the_axis(near + middle + far), 1)
    assert (found.points[0], found.position[0, 2]) == (30, 8)


def test_without_a_dense_cluster_the_largest_is_the_object():
    clusters = [d for n, d in enumerate((3.0, 6.0, 9.0, 12.0, 15.0)) for _ in range(10 + (n == 2))]
    found = find_surfaces(along_the_axis(clusters), 1)
    assert (found.points[0], found.position[0, 2]) == (11, 9)


def test_clusters_of_one_region_are_not_those_of_another():
    """The first ends where the second begins."""
    samples = along_the_axis([5.0] * 10 + [5.1] * 10, [0] * 10 + [1] * 10)
    found = find_surfaces(samples, 2)
    assert found.points.tolist() == [10, 10]
    assert found.position[:, 2] == pytest.approx([5, 5.1])


def test_the_order_of_the_samples_does_not_matter_for_the_position():
    rng = np.random.default_rng(0)
    points = rng.normal([0, 0, 8], [1, 1, 0.2], (300, 3))
    region = rng.integers(0, 3, 300).astype(np.int16)
    order = rng.permutation(300)
    one = find_surfaces(Samples(region, np.ones(300, bool), points), 3)
    other = find_surfaces(Samples(region[order], np.ones(300, bool), points[order]), 3)
    assert one.position.tolist() == other.position.tolist()
    assert one.points.tolist() == other.points.tolist()


def test_the_noise_of_the_range_is_that_of_the_sensor():
    rng = np.random.default_rng(0)
    found = find_surfaces(along_the_axis(rng.normal(10, 0.1, 400)), 1)
    assert found.noise[0] == pytest.approx(0.1, rel=0.2)


def test_the_slope_of_a_surface_is_no_noise():
    found = find_surfaces(along_the_axis(np.linspace(10, 14, 400)), 1)
    assert found.noise[0] < 1e-6
    assert found.spread[0] == pytest.approx(0.34 * 4, rel=0.02)


def test_noise_does_not_make_an_object_longer():
    rng = np.random.default_rng(0)
    found = find_surfaces(along_the_axis(rng.normal(10, 0.1, 400)), 1)
    quantiles = np.diff(np.quantile(rng.normal(10, 0.1, 4000), [0.02, 0.98]))
    assert found.high[0, 2] - found.low[0, 2] < 0.3 * quantiles


def test_limits_are_along_the_axes_that_are_given():
    board = np.full((HEIGHT, WIDTH), 5.0)
    forward_left_up = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    found = surfaces_of(regions_of((20, 40, 20, 60)), board, forward_left_up)
    assert found.high[0] - found.low[0] == pytest.approx([0, 2.5, 1.25], abs=0.2)
    assert found.position[0] == pytest.approx([0, 0, 5], abs=0.04)  # in the frame of the camera


def test_the_anchor_is_the_corner_nearest_to_the_camera():
    """Of the front and the left side of a box, which are seen row by row."""
    steps = np.linspace(0, 1, 200)
    front = np.stack([1 + 2 * steps, 2 * steps - 1, np.full(200, 8.0)], axis=1)
    side = np.stack([np.full(200, 1.0), 2 * steps - 1, 8 + steps], axis=1)
    points = np.concatenate([front, side])
    found = find_surfaces(Samples(np.zeros(400, np.int16), np.ones(400, bool), points), 1)
    assert found.anchor[0] == pytest.approx([1, 0, 8], abs=0.1)


def test_an_anchor_stays_where_it_is_while_the_object_is_cut_off_by_the_image():
    """Other than the middle of what is visible, which moves by half of what is lost."""
    steps = np.linspace(0, 4, 400)
    wall = np.stack([1 + steps, np.zeros(400), np.full(400, 6.0)], axis=1)
    whole, part = (
        find_surfaces(Samples(np.zeros(n, np.int16), np.ones(n, bool), wall[:n]), 1)
        for n in (400, 200)
    )
    assert whole.anchor[0, 0] == pytest.approx(part.anchor[0, 0], abs=0.2)
    assert whole.position[0, 0] - part.position[0, 0] == pytest.approx(1, abs=0.02)
