"""The synthetic street in space: depth, camera and road users agree with the labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from synthetic_street import SyntheticStreet
from synthetic_street.layout import ROAD, SIDEWALK, SKY, VEHICLE
from synthetic_street.street import StreetObject
from video_knet_core.data.street_frame import StreetFrame

SIZE = (144, 240)
HIGHWAY, CITY, MIRRORED = (0, 30), (11, 64), (3, 60)
"""Seed and frame number; a mirrored street is a town with traffic on the left."""


class Scene(NamedTuple):
    """One frame of a street."""

    street: SyntheticStreet
    t: int
    frame: StreetFrame

    def rays(self) -> np.ndarray:
        """[H, W, 3] from the camera to each pixel at depth 1, along the axes of the fixed frame."""
        camera = self.street.intrinsics
        v, u = np.indices(self.frame.semantic.shape)
        x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
        return np.stack([x, y, np.ones_like(x)], -1) @ self.street.pose(self.t)[:3, :3].T

    def points(self) -> np.ndarray:
        """[H, W, 3] what each pixel shows, in the fixed frame."""
        return self.rays() * self.depth[..., None] + self.street.pose(self.t)[:3, 3]

    @property
    def depth(self) -> np.ndarray:
        assert self.frame.depth is not None
        return self.frame.depth

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 3] of the fixed frame to column, row and depth [n, 3]."""
        camera, to_camera = self.street.intrinsics, np.linalg.inv(self.street.pose(self.t))
        x, y, z = to_camera[:3, :3] @ points.T + to_camera[:3, 3:]
        return np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy, z], 1)

    def seen(self) -> list[tuple[StreetObject, np.ndarray]]:
        """Road users with their masks, without those that reach past the camera."""
        whole = [o for o in self.street.objects(self.t) if self.project(corners(o))[:, 2].min() > 1]
        pairs = [(o, self.frame.instance == o.track_id) for o in whole]
        return [(o, mask) for o, mask in pairs if mask.any()]


def axes(thing: StreetObject) -> np.ndarray:
    """[3, 3] from the axes of its box to the fixed frame."""
    cos, sin = np.cos(thing.yaw), np.sin(thing.yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0], [0, 0, 1]])


def corners(thing: StreetObject) -> np.ndarray:
    """[8, 3] of its box."""
    signs = np.array(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5))).reshape(3, 8).T
    return signs * thing.size @ axes(thing).T + thing.position


def scene(seed: int, t: int) -> Scene:
    street = SyntheticStreet(seed, *SIZE, depth=True)
    return Scene(street, t, street.frame(t))


@pytest.fixture(scope="module", params=[HIGHWAY, CITY, MIRRORED], ids=["highway", "city", "mirror"])
def drive(request) -> Scene:
    return scene(*request.param)


def test_both_traffic_sides_are_tested():
    styles = [SyntheticStreet(seed, *SIZE).style for seed, _ in (HIGHWAY, CITY, MIRRORED)]
    assert [style.mirror for style in styles] == [1.0, 1.0, -1.0]
    assert styles[0].crossings == 0.0


def test_depth_changes_neither_image_nor_labels(drive):
    plain = SyntheticStreet(drive.street.seed, *SIZE).frame(drive.t)
    assert plain.depth is None
    np.testing.assert_array_equal(plain.image, drive.frame.image)
    np.testing.assert_array_equal(plain.semantic, drive.frame.semantic)
    np.testing.assert_array_equal(plain.instance, drive.frame.instance)


def test_depth_is_that_of_the_surface_and_none_of_the_sky(drive):
    assert drive.depth.dtype == np.float32 and drive.depth.shape == SIZE
    assert np.isfinite(drive.depth).all()
    assert (drive.depth[drive.frame.semantic == SKY] == 0).all()
    assert (drive.depth[drive.frame.instance > 0] > 0.5).all()
    assert (drive.depth[np.isin(drive.frame.semantic, (ROAD, SIDEWALK))] > 0.5).all()


def test_depth_of_the_road_is_that_of_the_ground_plane():
    highway = scene(*HIGHWAY)  # which has no side roads, that lie as high as the pavement
    with np.errstate(divide="ignore"):
        plane = -highway.street.pose(highway.t)[2, 3] / highway.rays()[..., 2]
    road = (highway.frame.semantic == ROAD) & (plane > 0) & (plane < 60)
    assert road.sum() > 1000
    np.testing.assert_allclose(highway.depth[road], plane[road], rtol=1e-4)


def test_pavements_are_as_high_as_a_kerb():
    city = scene(*CITY)
    pavement = (city.frame.semantic == SIDEWALK) & (city.depth < 40)
    height = city.points()[pavement, 2]
    blur = 1.5 * city.depth[pavement] / city.street.intrinsics.fy  # pixels on its border
    assert len(height) > 300
    assert (height > -blur).all() and (height < 0.12 + blur).all()
    assert np.median(height) == pytest.approx(0.12, abs=1e-3)


def test_the_depth_of_a_vehicle_is_within_its_box(drive):
    vehicles = [(o, mask) for o, mask in drive.seen() if o.class_id == VEHICLE]
    assert len(vehicles) >= 3
    inside = []
    for thing, mask in vehicles:
        box, depth = drive.project(corners(thing))[:, 2], drive.depth[mask]
        assert box.min() - 0.05 < depth.min() and depth.max() < box.max() + 0.05
        place = (drive.points()[mask] - thing.position) @ axes(thing)
        blur = depth[:, None] / drive.street.intrinsics.fx
        inside.append((np.abs(place) < thing.size / 2 + 0.05 + blur).all(1))
    assert np.concatenate(inside).mean() > 0.999


def test_boxes_enclose_the_masks(drive):
    things = drive.seen()
    assert len(things) >= 3
    for thing, mask in things:
        pixels = drive.project(corners(thing))[:, :2]
        rows, columns = np.nonzero(mask)
        assert (pixels.min(0) - 1 < (columns.min(), rows.min())).all()
        assert (pixels.max(0) + 1 > (columns.max(), rows.max())).all()
        assert set(drive.frame.semantic[mask]) == {thing.class_id}


def test_the_centre_of_an_object_is_in_its_mask_unless_something_nearer_hides_it(drive):
    found = 0
    for thing, _ in drive.seen():
        ((column, row, depth),) = drive.project(thing.position[None])
        i, j = round(row), round(column)
        if not (0 <= i < SIZE[0] and 0 <= j < SIZE[1]):
            continue
        if drive.frame.instance[i, j] == thing.track_id:
            found += 1
        else:
            assert 0 < drive.depth[i, j] < depth
    assert found >= 3


def test_poses_are_rigid_and_follow_the_road(drive):
    before, after = drive.street.pose(drive.t), drive.street.pose(drive.t + 1)
    for pose in (before, after):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    step = after[:3, 3] - before[:3, 3]
    assert step[0] > 0 and step[2] == 0
    assert before[:3, 2] @ step > 0.95 * np.linalg.norm(step)


@pytest.mark.parametrize("seed", [0, 3, 6, 11])
def test_velocities_are_the_derivatives_of_positions(seed):
    street = SyntheticStreet(seed, *SIZE, fps=1000.0)
    moving = still = 0
    for t in range(1000, 20_000, 1700):
        before, after = ({o.track_id: o for o in street.objects(t + d)} for d in (-1, 1))
        for thing in street.objects(t):
            if thing.track_id not in before.keys() & after.keys():
                continue
            step = after[thing.track_id].position - before[thing.track_id].position
            np.testing.assert_allclose(thing.velocity, step / 0.002, atol=1e-4)
            moving += bool(thing.velocity.any())
            still += not step.any()
            assert step.any() or not thing.velocity.any()
    assert moving > 20 and (still or seed == 0)


def test_objects_keep_their_size(drive):
    sizes = {o.track_id: o.size for o in drive.street.objects(drive.t)}
    for thing in drive.street.objects(drive.t + 10):
        np.testing.assert_array_equal(sizes.get(thing.track_id, thing.size), thing.size)
        assert thing.position[2] == thing.size[2] / 2


def test_times_before_the_start_are_rejected():
    street = SyntheticStreet(0, *SIZE)
    for ask in (street.pose, street.objects):
        with pytest.raises(ValueError, match="frame number >= 0, got -1"):
            ask(-1)
