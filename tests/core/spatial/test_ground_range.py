"""Ranges on flat ground: the row of a foot in a known camera is a known distance."""

from __future__ import annotations

from math import atan, cos, degrees, radians, sin

import numpy as np
import pytest

from video_knet_core.geometry import LabelMap, NearestUpsampling
from video_knet_core.spatial.camera_model import CameraModel
from video_knet_core.spatial.ground_range import GroundPlane, Standing, find_standing
from video_knet_core.spatial.surfaces import RegionMap
from video_knet_core.spatial.transforms import matrix

CAMERA_HEIGHT = 1.5
FOCAL = 400.0
HORIZON = 239.5
"""Row of the principal point of an image of 480 x 640 pixels, between two rows."""
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From the axes of a level camera to forward, left, up."""

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def camera() -> CameraModel:
    k = np.array([[FOCAL, 0, 319.5], [0, FOCAL, HORIZON], [0, 0, 1]])
    return CameraModel(640, 480, "camera", k)


def regions_of(*boxes: Box, cell: int = 1) -> RegionMap:
    """Labels of boxes of the image, in a map whose cells have a side of `cell` pixels."""
    small = np.zeros((480 // cell, 640 // cell), np.uint16)
    for label, (x, y, width, height) in enumerate(boxes, start=1):
        small[y // cell : (y + height) // cell, x // cell : (x + width) // cell] = label
    labels = LabelMap(small, NearestUpsampling(small.shape, (480, 640)))
    return RegionMap.of(labels, np.arange(1, 1 + len(boxes)))


def standing(*boxes: Box, plane: GroundPlane | None = None, cell: int = 1) -> Standing:
    plane = plane or GroundPlane.of_mount(CAMERA_HEIGHT, 0)
    regions = regions_of(*boxes, cell=cell)
    return find_standing(regions, plane, camera(), np.array(boxes).reshape(-1, 4), 80.0)


def foot_at(row: int, height: int = 40, x: int = 310, width: int = 20) -> Box:
    """A box whose lower edge is that of the row above `row`."""
    return x, row - height, width, height


def row_of(distance: float) -> int:
    return round(HORIZON + 0.5 + FOCAL * CAMERA_HEIGHT / distance)


# --- the plane -----------------------------------------------------------------------------------


def test_the_ground_below_a_level_camera_is_down_its_y_axis():
    plane = GroundPlane.of_mount(1.5, 0)
    assert plane.normal @ [0.7, 1.5, 30] == pytest.approx(plane.height)


def test_a_camera_that_looks_down_meets_the_ground_on_its_axis():
    plane = GroundPlane.of_mount(1.5, 30)
    assert plane.normal @ [0, 0, 1.5 / sin(radians(30))] == pytest.approx(plane.height)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (12, 0), (-5, 0), (0, 8), (12, -20)])
def test_a_transform_gives_the_plane_of_the_mount(pitch, roll):
    """With roll, too, which a mount does not have."""
    down, turned = radians(pitch), radians(roll)
    pitched = matrix((0, 0, 0), (0, sin(down / 2), 0, cos(down / 2)))[:3, :3]
    rolled = matrix((0, 0, 0), (sin(turned / 2), 0, 0, cos(turned / 2)))[:3, :3]
    to_ground = np.eye(4)
    to_ground[:3, :3], to_ground[:3, 3] = pitched @ rolled @ OPTICAL, (3, -2, 1.5)
    plane = GroundPlane.of_transform(to_ground)
    assert plane is not None and plane.height == 1.5
    if not roll:
        assert plane.normal == pytest.approx(GroundPlane.of_mount(1.5, pitch).normal)
    for point in ([5.0, 1.0, 0.0, 1], [20.0, -9.0, 0.0, 1]):  # on the ground
        seen = np.linalg.solve(to_ground, point)[:3]
        assert plane.normal @ seen == pytest.approx(plane.height)


@pytest.mark.parametrize("height", [0.0, -0.3])
def test_there_is_no_ground_above_a_camera(height):
    to_ground = np.eye(4)
    to_ground[2, 3] = height
    assert GroundPlane.of_transform(to_ground) is None


# --- the range -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [250, 260, 300, 400])
def test_the_row_of_the_foot_gives_the_distance(row):
    found = standing(foot_at(row, height=10))
    foot = row - 0.5  # where the mask ends: whole numbers are pixel centres
    assert found.position[0, 2] == pytest.approx(FOCAL * CAMERA_HEIGHT / (foot - HORIZON))
    assert found.position[0, 0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("cell", [2, 4, 5, 8])
def test_the_distance_is_that_of_the_edge_of_the_cells(cell):
    assert standing(foot_at(320), cell=cell).position[0, 2] == pytest.approx(
        standing(foot_at(320)).position[0, 2]
    )


def test_the_position_is_at_half_of_the_height_and_the_size_is_that_of_the_box():
    distance = FOCAL * CAMERA_HEIGHT / 60
    found = standing((310, 200, 20, 100))
    assert found.size[0] == pytest.approx([20 * distance / FOCAL, 100 * distance / FOCAL])
    assert found.position[0, 1] == pytest.approx(CAMERA_HEIGHT - 50 * distance / FOCAL)


def test_what_is_right_in_the_image_is_right_of_the_camera():
    found = standing(foot_at(300, x=420), foot_at(300, x=200))
    assert found.position[:, 0] == pytest.approx([1.1 / 4 * 10, -1.1 / 4 * 10])


def test_a_camera_that_looks_down_sees_the_same_foot_nearer():
    """The foot on the optical axis of a camera that looks down by 20 degrees."""
    plane = GroundPlane.of_mount(CAMERA_HEIGHT, 20)
    found = standing(foot_at(240), plane=plane)
    assert np.isfinite(found.sigma[0]) and np.isnan(standing(foot_at(240)).sigma[0])
    foot = found.position[0] + plane.normal * found.size[0, 1] / 2
    assert foot == pytest.approx([0, 0, CAMERA_HEIGHT / sin(radians(20))], abs=1e-6)


def test_the_horizon_of_a_camera_that_looks_up_is_further_down():
    row = row_of(10)
    up = degrees(atan(CAMERA_HEIGHT / 10)) + 1
    assert np.isnan(standing(foot_at(row), plane=GroundPlane.of_mount(1.5, -up)).sigma[0])


def test_with_roll_the_right_side_is_at_another_distance_than_the_left():
    lean = radians(5)
    plane = GroundPlane(np.array([sin(lean), cos(lean), 0]), CAMERA_HEIGHT)
    found = standing(foot_at(320, x=100), foot_at(320, x=520), plane=plane)
    assert found.position[0, 2] > 1.1 * found.position[1, 2]


# --- no range ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [200, 239, 240])
def test_a_foot_at_the_horizon_or_above_has_no_range(row):
    found = standing(foot_at(row))
    assert np.isnan(found.sigma[0]) and np.isnan(found.position[0]).all()


def test_a_foot_farther_away_than_the_reach_has_no_range():
    assert np.isnan(standing(foot_at(row_of(100))).sigma[0])
    assert np.isfinite(standing(foot_at(row_of(70))).sigma[0])


def test_a_foot_that_is_cut_off_by_the_image_has_no_range():
    assert np.isnan(standing(foot_at(480)).sigma[0])
    assert np.isfinite(standing(foot_at(478)).sigma[0])


def test_a_foot_behind_another_thing_has_no_range_and_the_other_has_one():
    found = standing((300, 200, 40, 80), (290, 280, 60, 60))
    assert np.isfinite(found.sigma).tolist() == [False, True]


def test_a_thing_beside_hides_nothing():
    assert np.isfinite(standing((300, 200, 40, 80), (340, 200, 40, 120)).sigma).all()


def test_a_region_without_a_pixel_has_no_range():
    regions = RegionMap.of(LabelMap.of(np.ones((480, 640), np.uint16)), np.array([5]))
    plane = GroundPlane.of_mount(CAMERA_HEIGHT, 0)
    found = find_standing(regions, plane, camera(), np.zeros((1, 4), np.int64), 80.0)
    assert np.isnan(found.sigma[0]) and np.isnan(found.size).all()


def test_a_box_that_reaches_out_of_the_field_of_a_wide_lens_has_no_range():
    k = np.array([[200.0, 0, 319.5], [0, 200.0, HORIZON], [0, 0, 1]])
    lens = CameraModel(640, 480, "camera", k, "plumb_bob", (-0.35, 0, 0, 0, 0))
    boxes = np.array([[310, 200, 20, 100], [0, 200, 60, 100], [310, 2, 20, 298]])
    assert np.isnan(lens.rays_at([[-0.5, 300]])).all()
    plane = GroundPlane.of_mount(CAMERA_HEIGHT, 0)
    found = [find_standing(regions_of(tuple(b)), plane, lens, b[None], 80.0) for b in boxes]
    for one in found:
        values = np.concatenate([one.position[0], one.sigma, one.size[0]])
        assert np.isfinite(values).all() or np.isnan(values).all()
    assert [bool(np.isfinite(one.sigma[0])) for one in found][:2] == [True, False]


def test_a_few_pixels_below_the_foot_do_not_count():
    """A shadow, say, that a tenth of the columns has below it."""
    regions = regions_of((300, 200, 40, 100))
    index = regions.index.copy()
    index[300:330, 300:304] = 0
    spoiled = RegionMap(index, regions.inner, regions.image)
    plane = GroundPlane.of_mount(CAMERA_HEIGHT, 0)
    found = find_standing(spoiled, plane, camera(), np.array([[300, 200, 40, 130]]), 80.0)
    assert found.position[0, 2] == pytest.approx(FOCAL * CAMERA_HEIGHT / 60)


# --- the standard deviation ----------------------------------------------------------------------


def test_the_standard_deviation_grows_with_the_square_of_the_range():
    near, far = row_of(15), row_of(30)
    found = standing(foot_at(near, height=10), foot_at(far, height=10, x=400))
    ranges = FOCAL * CAMERA_HEIGHT / (np.array([near, far]) - 0.5 - HORIZON)
    growth = np.log(found.sigma[1] / found.sigma[0]) / np.log(ranges[1] / ranges[0])
    assert growth == pytest.approx(2, abs=0.15)


def test_the_standard_deviation_covers_the_error_of_a_camera_that_is_tilted_a_little():
    tilted = GroundPlane.of_mount(CAMERA_HEIGHT, 0.25)
    for row in (row_of(8), row_of(15), row_of(30)):
        true, assumed = standing(foot_at(row), plane=tilted), standing(foot_at(row))
        error = assumed.position[0, 2] - true.position[0, 2]
        assert 0.5 * assumed.sigma[0] < error < 1.1 * assumed.sigma[0]


def test_coarse_masks_have_a_larger_standard_deviation():
    fine, coarse = (standing(foot_at(320), cell=cell).sigma[0] for cell in (1, 8))
    assert coarse > 1.5 * fine
