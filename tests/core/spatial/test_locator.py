"""From tracks and sensors to objects in metres: balls whose place and motion are known."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from spatial_scenes import (
    CLASSES,
    FOCAL,
    ROAD,
    SECOND,
    SIZE,
    Ball,
    Scene,
    camera_info,
    cloud_message,
    depth_message,
    depth_of,
    frame_of,
    odometry_message,
    pose_of,
    thing,
)

from video_knet_core.geometry import LabelMap, NearestUpsampling, OverlappingMasks
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.spatial.objects import ObjectTable, RangeSource
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.types import TrackState

PERIOD = SECOND // 10
AHEAD = Ball(7, (8, 0, 1.5))
LEFT = Ball(8, (8, 2, 1.5))
NO_IMAGE = np.zeros((*SIZE, 3), np.uint8)


def ids(table: ObjectTable) -> list[int]:
    return table.rows["track_id"].tolist()


def sources(table: ObjectTable) -> dict[int, RangeSource]:
    return {int(row["track_id"]): RangeSource(row["source"]) for row in table.rows}


def drive(scene: Scene, frames: int, ball, pose) -> ObjectTable:
    """The last table of frames at 10 Hz; `ball` and `pose` are functions of the seconds."""
    for frame in range(frames):
        table = scene.table([ball(frame / 10)], frame * PERIOD, pose(frame / 10))
    return table


def surface(ball: Ball, pose: np.ndarray, points: int = 4000) -> np.ndarray:
    """Points [N, 3] of the side of a ball that faces the camera, in the fixed frame."""
    directions = np.random.default_rng(0).normal(size=(points, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    towards = pose[:3, 3] - np.asarray(ball.center)
    return ball.center + ball.radius * directions[directions @ towards > ball.radius]


def cloud_of(balls, frame_id: str = "odom", pose: np.ndarray | None = None) -> SimpleNamespace:
    pose = pose_of() if pose is None else pose
    return cloud_message(np.concatenate([surface(b, pose) for b in balls]), 0, frame_id)


# --- the range -----------------------------------------------------------------------------------


def test_depth_gives_the_place_of_the_visible_surface():
    (row,) = Scene().table([AHEAD]).rows
    assert row["position"] == pytest.approx([0, 0, 7.6], abs=0.1)
    assert row["range"] == pytest.approx(np.linalg.norm(row["position"]))
    assert (row["source"], row["points"] > 50) == (RangeSource.DEPTH, True)
    assert (row["track_id"], row["class_id"], row["score"]) == (7, 1, 0.9)


def test_places_are_in_the_target_frame():
    pose = pose_of(3, -1, yaw=0.3)
    table = Scene(target_frame="odom").table([Ball(7, (11, 2, 1.5))], pose=pose)
    assert table.frame_id == "odom"
    assert table.rows["position"][0] == pytest.approx([10.6, 1.85, 1.5], abs=0.15)


def test_without_a_target_frame_places_are_in_that_of_the_camera():
    table = Scene().table([LEFT], pose=pose_of(3, -1, yaw=0.3))
    assert table.frame_id == "camera"
    assert table.rows["position"][0, 0] < 0


def test_sizes_are_along_the_axes_of_the_target_frame():
    """A board of 3 m x 0.75 m across the line of sight."""
    small = np.zeros((60, 80), np.uint16)
    small[25:35, 20:60] = 1
    labels = LabelMap(small, NearestUpsampling(small.shape, SIZE))
    frame = frame_of(labels, [thing(1, 7, box=(40, 50, 80, 20))])
    for target, expected in (("", [3, 0.75, 0]), ("odom", [0, 3, 0.75])):
        scene = Scene(target_frame=target)
        scene.inputs.add_odometry(odometry_message(pose_of(), 0))
        scene.inputs.add_depth(depth_message(np.full(SIZE, 6.0), 0))
        table = scene.locator.locate(frame, NO_IMAGE, "camera", 0).objects
        assert table is not None
        assert table.rows["size"][0] == pytest.approx(expected, abs=0.35)
        center = [0, 0, 6] if not target else [6, 0, 1.5]
        assert table.rows["box_center"][0] == pytest.approx(center, abs=0.05)


def test_a_cloud_of_another_sensor_is_moved_into_the_frame_of_the_camera():
    """The lidar is 1 m left of the camera, upside down and looks back."""
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = np.diag([-1.0, 1, -1]), (0, 1, 1.5)
    scene = Scene()
    scene.inputs.add_odometry(odometry_message(mount, 0, child="lidar"))
    points = surface(AHEAD, pose_of()) - mount[:3, 3]
    scene.inputs.add_cloud(cloud_message(points @ mount[:3, :3], 0, "lidar"))
    (row,) = scene.table([AHEAD], depth=False).rows
    assert row["source"] == RangeSource.CLOUD
    assert row["position"] == pytest.approx([0, 0, 7.6], abs=0.15)


def test_a_cloud_whose_frame_is_unknown_is_not_used_and_the_reason_is_noted():
    scene = Scene()
    scene.inputs.add_cloud(cloud_of([AHEAD], "lidar"))
    assert scene.show([AHEAD], depth=False).objects is None
    assert "'lidar'" in scene.inputs.reasons["cloud"]


def test_depth_goes_before_the_cloud_and_the_cloud_before_the_ground():
    balls = [AHEAD, LEFT, Ball(9, (8, -2, 0.5))]
    scene = Scene(camera_height_m=1.5, target_frame="odom")
    scene.inputs.add_cloud(cloud_of([AHEAD, LEFT]))
    depth, number = depth_of(pose_of(), balls)
    scene.inputs.add_depth(depth_message(np.where(number == 1, depth, np.nan), 0))
    table = scene.table(balls, depth=False)
    assert sources(table) == {7: RangeSource.DEPTH, 8: RangeSource.CLOUD, 9: RangeSource.GROUND}
    assert table.rows["points"][2] == 0
    assert table.rows["position"] == pytest.approx(
        np.array([[7.6, 0, 1.5], [7.6, 1.9, 1.5], [8, -2, 0.5]]), abs=0.25
    )


def test_a_ground_frame_goes_before_height_and_pitch():
    scene = Scene(camera_height_m=9.0, ground_frame="odom")
    (row,) = scene.table([Ball(9, (8, -2, 0.5))], depth=False).rows
    assert row["position"] == pytest.approx([2, 1, 8], abs=0.3)
    assert scene.inputs.reasons == {}


@pytest.mark.parametrize(("height", "words"), [(-1.0, "height above 0"), (None, "'base'")])
def test_a_ground_frame_that_cannot_be_used_gives_a_reason(height, words):
    scene = Scene(ground_frame="base")
    if height is not None:
        scene.inputs.add_odometry(odometry_message(pose_of(height=height), 0, parent="base"))
    frame = scene.frame([AHEAD], pose_of())
    assert scene.locator.locate(frame, NO_IMAGE, "camera", 0).objects is None
    assert words in scene.inputs.reasons["ground"]


def test_depth_of_another_camera_is_used_with_its_camera_info():
    """It looks from 0.5 m further left, and has another field of view."""
    scene = Scene()
    depth, _ = depth_of(pose_of(0, 0.5), [AHEAD])
    scene.inputs.add_depth(depth_message(depth, 0, "depth"))
    scene.inputs.transforms.add("camera", "depth", 0, (-0.5, 0, 0), (0, 0, 0, 1), static=True)
    assert scene.show([AHEAD], depth=False).objects is None
    assert "camera info of the depth camera" in scene.inputs.reasons["depth"]
    scene.inputs.add_depth_info(camera_info(SIZE, FOCAL, "depth"))
    (row,) = scene.table([AHEAD], PERIOD // 10, depth=False).rows
    assert row["source"] == RangeSource.DEPTH
    assert row["position"] == pytest.approx([0, 0, 7.6], abs=0.15)


def test_the_image_may_have_another_size_than_the_camera_info_and_the_depth():
    scene = Scene()
    scene.inputs.add_camera_info(camera_info((480, 640), 4 * FOCAL))
    depth, _ = depth_of(pose_of(), [AHEAD])
    scene.inputs.add_depth(depth_message(depth[1::2, 1::2], 0))
    (row,) = scene.table([AHEAD], depth=False).rows
    assert row["position"] == pytest.approx([0, 0, 7.6], abs=0.1)


def test_ranges_out_of_the_limits_are_none():
    for limits in ({"max_range_m": 5.0}, {"min_range_m": 9.0}):
        scene = Scene(**limits)
        scene.inputs.add_cloud(cloud_of([AHEAD]))
        assert len(scene.table([AHEAD])) == 0


# --- motion --------------------------------------------------------------------------------------


def test_a_thing_at_rest_rests_in_odom_while_the_camera_drives_and_turns():
    scene = Scene(target_frame="odom")
    table = drive(scene, 25, lambda t: AHEAD, lambda t: pose_of(1.5 * t, -0.3 * t, 0.1 * t))
    assert table.rows["velocity"][0] == pytest.approx([0, 0, 0], abs=0.15)


def test_the_true_velocity_is_found_in_odom_while_the_camera_drives_and_turns():
    scene = Scene(target_frame="odom")
    table = drive(
        scene,
        25,
        lambda t: Ball(7, (8 + t, 1 - t, 1.5)),
        lambda t: pose_of(1.5 * t, 0, -0.1 * t),
    )
    assert table.rows["velocity"][0] == pytest.approx([1, -1, 0], abs=0.2)


def test_in_the_frame_of_the_camera_velocities_are_relative_to_it():
    table = drive(Scene(), 25, lambda t: AHEAD, lambda t: pose_of(1.5 * t))
    assert table.rows["velocity"][0] == pytest.approx([0, 0, -1.5], abs=0.15)


def test_a_first_velocity_is_unknown():
    (row,) = Scene().table([AHEAD]).rows
    assert np.isnan(row["velocity"]).all() and np.isnan(row["velocity_covariance"]).all()
    assert np.isfinite(row["position_covariance"]).all()


def test_a_place_is_less_certain_far_away_in_all_directions():
    """Across the line of sight a cell of the label map is wider there."""
    variances = [
        np.diag(
            Scene(target_frame="odom").table([Ball(7, (x, 0, 1.5))]).rows[0]["position_covariance"]
        )
        for x in (6, 12)
    ]
    assert (variances[1] > variances[0]).all() and (variances[0] > 0).all()
    assert variances[1][1] == pytest.approx(4 * variances[0][1], rel=0.2)


def test_without_depth_places_are_predicted():
    scene = Scene(target_frame="odom")
    drive(scene, 20, lambda t: Ball(7, (8, t - 1, 1.5)), lambda t: pose_of())
    before = None
    for frame in range(20, 24):
        ball = Ball(7, (8, frame / 10 - 1, 1.5))
        (row,) = scene.table([ball], frame * PERIOD, depth=False).rows
        assert (row["source"], row["points"]) == (RangeSource.NONE, 0)
        assert row["position"] == pytest.approx([7.6, frame / 10 - 1, 1.5], abs=0.2)
        trace = np.trace(row["position_covariance"])
        assert before is None or trace > before
        before = trace


def test_a_coasted_track_is_predicted():
    scene = Scene()
    scene.table([AHEAD, LEFT])
    behind = Ball(8, (-20, 0, 1.5))
    table = scene.table([AHEAD, behind], PERIOD)
    assert sources(table) == {7: RangeSource.DEPTH, 8: RangeSource.NONE}
    assert table.rows["state"].tolist() == [TrackState.CONFIRMED, TrackState.COASTED]
    assert table.rows["size"][1].max() > 0


def test_a_single_wrong_measurement_changes_neither_place_nor_box():
    """Most of what is seen in the mask is another thing, far before it."""
    scene = Scene(target_frame="odom")
    table = drive(scene, 10, lambda t: AHEAD, lambda t: pose_of())
    depth, number = depth_of(pose_of(), [AHEAD])
    scene.inputs.add_depth(depth_message(np.where(number > 0, 1.0, np.nan), 10 * PERIOD))
    (row,), (before,) = scene.table([AHEAD], 10 * PERIOD, depth=False).rows, table.rows
    for name in ("position", "box_center", "size"):
        assert row[name] == pytest.approx(before[name], abs=0.03), name


# --- which tracks --------------------------------------------------------------------------------


def test_tracks_without_a_range_are_left_out_until_they_have_one():
    scene = Scene(max_range_m=10.0)
    assert ids(scene.table([Ball(7, (12, 0, 1.5))])) == []
    assert ids(scene.table([AHEAD], PERIOD)) == [7]


def test_without_a_source_of_ranges_there_is_no_table():
    """An empty one would mean that nothing is there; that of a frame without things does."""
    scene = Scene()
    assert scene.show([AHEAD], depth=False).objects is None
    assert "height of the camera" in scene.inputs.reasons["range"]
    assert len(scene.table([], PERIOD, depth=False)) == 0
    table = scene.table([AHEAD], 2 * PERIOD)
    assert (ids(table), table.ended) == ([7], ())


def test_rows_are_by_track_id():
    assert ids(Scene().table([LEFT, AHEAD, Ball(3, (8, -2, 1.5))])) == [3, 7, 8]


def test_stuff_and_things_without_a_track_are_left_out():
    labels = LabelMap(np.ones((60, 80), np.uint16), NearestUpsampling((60, 80), SIZE))
    scene = Scene()
    scene.inputs.add_depth(depth_message(np.full(SIZE, 5.0), 0))
    for row in (thing(1, 4, ROAD, is_thing=False), thing(1, 0)):
        table = scene.locator.locate(frame_of(labels, [row]), NO_IMAGE, "camera", 0).objects
        assert table is not None and len(table) == 0


def test_a_frame_without_tracks_has_an_empty_table():
    table = Scene(camera_height_m=1.5).table([])
    assert len(table) == 0 and table.ended == ()


def test_ids_of_tracks_that_ended_are_listed_once():
    scene = Scene()
    balls = [AHEAD, LEFT, Ball(2, (8, -2, 1.5))]
    tables = [scene.table(some, n * PERIOD) for n, some in enumerate([balls, balls[:1], [], balls])]
    assert [table.ended for table in tables] == [(), (2, 8), (7,), ()]


def test_a_track_without_a_range_does_not_end():
    scene = Scene(max_range_m=10.0)
    scene.table([Ball(8, (12, 0, 1.5))])
    assert scene.table([AHEAD], PERIOD).ended == ()


def test_a_new_epoch_begins_anew():
    scene = Scene()
    tables = [scene.table([AHEAD], n * PERIOD, epoch=epoch) for n, epoch in enumerate((1, 1, 2, 2))]
    assert [table.is_first for table in tables] == [True, False, True, False]
    assert [bool(np.isnan(table.rows["velocity"]).all()) for table in tables] == [True, False] * 2
    assert all(table.ended == () for table in tables)


def test_another_target_frame_begins_anew():
    scene = Scene()
    scene.table([AHEAD])
    scene.locator.settings = replace(scene.locator.settings, target_frame="odom")
    table = scene.table([AHEAD], PERIOD)
    assert (table.frame_id, table.is_first) == ("odom", True)
    assert table.rows["position"][0] == pytest.approx([7.6, 0, 1.5], abs=0.1)


def test_settings_that_change_meanwhile_hold_from_the_next_frame_on():
    scene = Scene()
    spatial = scene.show([AHEAD])
    scene.locator.settings = replace(scene.locator.settings, target_frame="odom", min_range_m=20.0)
    table = spatial.objects
    assert table is not None
    assert table.frame_id == "camera"
    assert table.rows["position"][0] == pytest.approx([0, 0, 7.6], abs=0.1)


def test_track_ids_have_more_than_32_bits():
    balls = [Ball(2**31, (8, 0, 1.5)), Ball(2**40, (8, 2, 1.5))]
    scene = Scene()
    assert ids(scene.table(balls)) == [2**31, 2**40]
    assert scene.table(balls[:1], PERIOD).ended == (2**40,)


def test_masks_may_overlap():
    """Task instance: the one behind has no pixel of the map, but a mask."""
    small = np.zeros((60, 80), np.uint16)
    small[20:40, 20:40] = 1
    size = NearestUpsampling(small.shape, SIZE)
    masks = np.stack([small > 0, small > 0]).astype(np.uint8)
    tracks = [thing(n, 6 + n, box=(40, 40, 40, 40)) for n in (1, 2)]
    frame = replace(frame_of(LabelMap(small, size), tracks), masks=OverlappingMasks(masks, size))
    scene = Scene(camera_height_m=1.5)
    scene.inputs.add_depth(depth_message(np.full(SIZE, 5.0), 0))
    table = scene.locator.locate(frame, NO_IMAGE, "camera", 0).objects
    assert table is not None and sources(table) == {7: RangeSource.DEPTH}


def test_a_wall_around_the_camera_has_a_certain_place():
    """Its box along the axes has the camera inside: the nearest corner is the camera itself."""
    locator = ObjectLocator(CLASSES, SpatialSettings(target_frame="odom"))
    focal = 30.0  # 139 degrees wide
    locator.inputs.add_camera_info(camera_info(SIZE, focal))
    frame = frame_of(
        LabelMap(np.ones((60, 80), np.uint16), NearestUpsampling((60, 80), SIZE)),
        [thing(1, 7, box=(0, 0, 160, 120))],
    )
    for stamp in (0, 0, PERIOD):
        locator.inputs.add_odometry(odometry_message(pose_of(yaw=np.pi / 4), stamp))
        locator.inputs.add_depth(depth_message(np.full(SIZE, 3.0), stamp))
        table = locator.locate(frame, NO_IMAGE, "camera", stamp).objects
        assert table is not None
        assert np.linalg.eigvalsh(table.rows["position_covariance"][0]).min() > 0
        assert np.linalg.eigvalsh(locator._filter.estimates()[1][0]).min() > 1e-7


# --- what is unknown -----------------------------------------------------------------------------


def test_without_camera_info_there_are_no_objects_and_no_points():
    locator = ObjectLocator(CLASSES, SpatialSettings())
    scene = Scene()
    scene.locator, scene.inputs = locator, locator.inputs
    spatial = scene.show([AHEAD])
    assert spatial.objects is None and spatial.points is None and spatial.obstacles is None
    assert "no camera info" in locator.inputs.reasons["objects"]
    assert "no camera info" in locator.inputs.reasons["points"]


def test_while_the_target_frame_is_unknown_there_are_no_objects():
    scene = Scene(target_frame="map")
    assert scene.show([AHEAD]).objects is None
    assert "'map'" in scene.inputs.reasons["objects"]
    scene.inputs.add_odometry(odometry_message(np.eye(4), PERIOD, child="odom", parent="map"))
    assert ids(scene.table([AHEAD], PERIOD)) == [7]
    assert "objects" not in scene.inputs.reasons


def test_tracks_that_ended_while_the_target_frame_was_unknown_are_listed():
    scene = Scene(target_frame="odom")
    scene.table([AHEAD, LEFT])
    late = scene.locator.locate(scene.frame([LEFT], pose_of()), NO_IMAGE, "camera", PERIOD)
    assert late.objects is None
    assert scene.table([LEFT], 2 * PERIOD).ended == (7,)


def test_without_depth_and_clouds_there_are_no_points():
    spatial = Scene().show([AHEAD], depth=False)
    assert spatial.points is spatial.obstacles is spatial.free_space is None


@pytest.mark.parametrize(
    ("distance", "reason"), [(np.nan, "depth"), (0.1, "points"), (90.0, "points")]
)
def test_without_a_distance_there_are_no_points(distance, reason):
    """Empty obstacles would mean that all is free; but the sensor is covered, or sees too far."""
    scene = Scene()
    scene.inputs.add_depth(depth_message(np.full(SIZE, distance), 0))
    spatial = scene.show([AHEAD], depth=False)
    assert spatial.points is spatial.obstacles is spatial.free_space is None
    assert "got none" in scene.inputs.reasons[reason]


def test_without_a_distance_there_are_no_objects():
    scene = Scene()
    scene.inputs.add_depth(depth_message(np.full(SIZE, np.nan), 0))
    assert scene.show([AHEAD], depth=False).objects is None


def test_a_cloud_beside_the_image_gives_no_points():
    scene = Scene()
    scene.inputs.add_cloud(cloud_of([Ball(7, (-8, 0, 1.5))]))
    spatial = scene.show([AHEAD], depth=False)
    assert spatial.points is None and "got none" in scene.inputs.reasons["points"]


def test_the_cloud_is_used_where_depth_has_no_distance():
    scene = Scene()
    scene.inputs.add_depth(depth_message(np.full(SIZE, np.nan), 0))
    scene.inputs.add_cloud(cloud_of([AHEAD]))
    points = scene.show([AHEAD], depth=False).points
    assert points is not None and np.isfinite(points.xyz).all()


# --- points --------------------------------------------------------------------------------------


def test_points_are_those_of_the_depth_image_before_those_of_the_cloud():
    scene = Scene(point_stride=2)
    scene.inputs.add_cloud(cloud_of([AHEAD]))
    of_depth, of_cloud = scene.show([AHEAD]), scene.show([AHEAD], 30_000_000, depth=False)
    assert of_depth.points is not None and of_cloud.points is not None
    assert of_depth.points.size == (60, 80)
    assert of_cloud.points.size is None and len(of_cloud.points.xyz) > 100


def test_what_is_no_ground_is_an_obstacle():
    small = np.ones((60, 80), np.uint16)
    small[:30] = 2
    labels = LabelMap(small, NearestUpsampling(small.shape, SIZE))
    frame = frame_of(labels, [thing(1, 0, ROAD, is_thing=False), thing(2, 7)])
    scene = Scene()
    scene.inputs.add_depth(depth_message(np.full(SIZE, 5.0), 0))
    spatial = scene.locator.locate(frame, NO_IMAGE, "camera", 0)
    assert spatial.obstacles is not None and spatial.free_space is not None
    assert set(spatial.obstacles.label.tolist()) == {2}
    assert set(spatial.free_space.label.tolist()) == {1}
    assert spatial.obstacles.xyz[:, 1].max() < 0.1 < spatial.free_space.xyz[:, 1].max()


@pytest.mark.parametrize(
    ("setting", "depth", "expected"),
    [("image", True, None), ("cloud", True, (40, 53)), ("cloud", False, None)],
)
def test_the_class_image_can_have_the_size_of_the_points(setting, depth, expected):
    scene = Scene(semantic_size=setting, point_stride=3)
    spatial = scene.show([AHEAD], depth=depth)
    assert spatial.semantic_size == expected
    if expected:
        assert spatial.points is not None and spatial.points.size == expected


def test_the_memory_of_messages_is_left_as_it_is():
    scene = Scene(target_frame="odom")
    depth, cloud = depth_message(depth_of(pose_of(), [AHEAD])[0], 0), cloud_of([LEFT])
    depth.data, cloud.data = bytearray(depth.data), bytearray(cloud.data)
    before = bytes(depth.data), bytes(cloud.data)
    scene.inputs.add_depth(depth)
    scene.inputs.add_cloud(cloud)
    spatial = scene.show([AHEAD, LEFT], depth=False)
    assert spatial.objects is not None and len(spatial.objects) == 2
    assert spatial.obstacles is not None
    assert (bytes(depth.data), bytes(cloud.data)) == before


def test_nothing_is_kept_of_tracks_that_are_gone():
    scene = Scene()
    for frame in range(20):
        scene.table([Ball(frame, (8, 0, 1.5)), Ball(1000 + frame, (8, 2, 1.5))], frame * PERIOD)
    assert len(scene.locator._boxes) == len(scene.locator._filter.ids) == 2


def test_messages_may_come_while_frames_are_located():
    scene, end = Scene(target_frame="odom"), threading.Event()
    depth = depth_of(pose_of(), [AHEAD])[0]

    def fill() -> None:
        number = 0
        while not end.is_set():
            number = (number + 1) % 10
            scene.inputs.add_depth(depth_message(depth, number * PERIOD))
            scene.inputs.add_camera_info(camera_info(SIZE, FOCAL))
            scene.inputs.add_odometry(odometry_message(pose_of(), number * PERIOD))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for number in range(30):
            table = scene.table([AHEAD], number % 10 * PERIOD)
            assert table.rows["position"] == pytest.approx(np.array([[7.6, 0, 1.5]]), abs=0.3)
    finally:
        end.set()
        thread.join()


def test_a_thing_that_leaves_at_the_side_keeps_its_place_and_stands_still():
    """Its nearest corner is out of the image already; what is seen of it is farther away."""
    scene = Scene(target_frame="odom")
    ball = Ball(7, (10, 2, 1.5), radius=1.0)
    for frame in range(40):
        pose = pose_of(x=frame / 5)
        shown = scene.show([ball], frame * PERIOD, pose)
        track = shown.frame.tracks[0]
        if frame > 10 and track.label and track.area > 200:
            (row,) = shown.objects.rows
            assert row["source"] == RangeSource.DEPTH
            assert np.linalg.norm(row["position"] - ball.center) < 1.3
            assert np.linalg.norm(row["velocity"]) < 0.6
            cut = track.box[0] == 0
        else:
            assert shown.objects is not None
    assert cut
