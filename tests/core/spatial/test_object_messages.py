"""Messages in metres: their fields, units and axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from spatial_scenes import (
    CLASSES,
    FOCAL,
    SECOND,
    SIZE,
    Ball,
    Scene,
    camera_info,
    depth_message,
)

from video_knet_core.bags.definitions import conversions, ros2_types
from video_knet_core.messages import object_messages
from video_knet_core.messages.object_messages import MIN_SIDE
from video_knet_core.messages.result_messages import FrameToPublish, nanoseconds
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.spatial.locator import SpatialFrame
from video_knet_core.spatial.points import POINT_DTYPE
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.spatial.transforms import matrix

PERIOD = SECOND // 10
ADD, DELETE, DELETE_ALL = 0, 2, 3
AHEAD, LEFT = Ball(7, (8, 0, 1.5)), Ball(8, (8, 2, 1.5))
SPATIAL = [name for name, output in OUTPUTS.items() if output.spatial]
CONVERT = conversions()


def result_of(spatial: SpatialFrame) -> FrameToPublish:
    make = CONVERT.find("std_msgs/msg/Header")
    stamp = CONVERT.time_message(spatial.stamp)
    image = np.zeros((*SIZE, 3), np.uint8)
    return FrameToPublish(
        make(stamp=stamp, frame_id=spatial.frame_id),
        image,
        spatial.frame,
        CLASSES,
        0,
        0,
        spatial=spatial,
    )


def message(output: str, spatial: SpatialFrame) -> Any:
    return OUTPUTS[output].make(CONVERT, result_of(spatial))


def xyz(vector: Any) -> list[float]:
    return [vector.x, vector.y, vector.z]


def driven(frames: int, velocity=(0.0, 0.0), **settings: Any) -> SpatialFrame:
    """The last frame of a ball that moves in odom at [m/s], before a camera at rest."""
    scene = Scene(target_frame="odom", **settings)
    for frame in range(frames):
        t = frame / 10
        ball = Ball(7, (8 + velocity[0] * t, velocity[1] * t, 1.5))
        spatial = scene.show([ball], frame * PERIOD)
        assert spatial.objects is not None
    return spatial


def wall(scene: Scene, stamp: int = 0) -> SpatialFrame:
    """A frame without tracks."""
    scene.inputs.add_depth(depth_message(np.full(SIZE, 5.0), stamp))
    return scene.show([], stamp, depth=False)


def markers_of(spatial: SpatialFrame) -> dict[tuple[str, int], Any]:
    return {(m.ns, m.id): m for m in message("markers", spatial).markers}


# --- objects -------------------------------------------------------------------------------------


def test_objects_have_the_fields_of_the_table():
    spatial = driven(5, (0.0, 1.0))
    (row,) = spatial.objects.rows
    array = message("objects", spatial)
    (found,) = array.objects
    assert (array.header.frame_id, array.tracker_epoch) == ("odom", 1)
    assert nanoseconds(array.header.stamp) == spatial.stamp
    assert (found.track_id, found.class_id, found.class_name) == (7, 1, "person")
    assert (found.state, found.source, found.predicted) == (1, 1, False)
    assert found.points == row["points"] > 0
    assert found.score == pytest.approx(0.9) and found.range == pytest.approx(row["range"])
    for name in ("position", "velocity", "box_center", "size"):
        assert xyz(getattr(found, name)) == pytest.approx(row[name])
    for name in ("position_covariance", "velocity_covariance"):
        assert np.reshape(getattr(found, name), (3, 3)) == pytest.approx(row[name])


def test_predicted_objects_are_marked():
    scene = Scene()
    scene.table([AHEAD])
    (found,) = message("objects", scene.show([AHEAD], PERIOD, depth=False)).objects
    assert (found.predicted, found.source, found.points) == (True, 0, 0)
    assert np.isnan(xyz(found.velocity)).all()


def test_detections_are_those_of_the_table():
    spatial = driven(3)
    (row,), array = spatial.objects.rows, message("detections_3d", spatial)
    (found,) = array.detections
    assert (found.id, found.header.frame_id, array.header.frame_id) == ("1/7", "odom", "odom")
    assert xyz(found.bbox.center.position) == pytest.approx(row["box_center"])
    assert xyz(found.bbox.size) == pytest.approx(row["size"])
    (hypothesis,) = found.results
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ("1", 0.9)
    assert xyz(hypothesis.pose.pose.position) == pytest.approx(row["position"])
    covariance = np.reshape(hypothesis.pose.covariance, (6, 6))
    assert covariance[:3, :3] == pytest.approx(row["position_covariance"])
    assert not covariance[3:].any() and not covariance[:, 3:].any()


# --- any frame -----------------------------------------------------------------------------------


def serialised(output: str, spatial: SpatialFrame) -> bytes | None:
    made = message(output, spatial)
    return None if made is None else bytes(ros2_types().serialize_cdr(made, OUTPUTS[output].type))


@pytest.mark.parametrize("output", SPATIAL)
def test_equal_frames_give_equal_bytes(output):
    one, other = (serialised(output, driven(3, (0.0, 1.0), follow_track=7)) for _ in range(2))
    assert one is not None and one == other


@pytest.mark.parametrize("output", SPATIAL)
def test_a_frame_without_tracks_can_be_serialised(output):
    spatial = wall(Scene(follow_track=7))
    assert (serialised(output, spatial) is None) == (output == "followed")


@pytest.mark.parametrize("output", SPATIAL)
def test_without_a_camera_there_is_no_message(output):
    """An empty one would mean that all is free."""
    scene = Scene(follow_track=7)
    scene.inputs._infos.clear()
    assert message(output, scene.show([AHEAD])) is None


@pytest.mark.parametrize("output", ["objects", "detections_3d", "markers", "followed"])
def test_without_the_target_frame_there_are_no_objects(output):
    assert message(output, Scene(target_frame="map", follow_track=7).show([AHEAD])) is None


@pytest.mark.parametrize("output", SPATIAL)
def test_large_track_ids_can_be_serialised(output):
    scene = Scene(follow_track=7)
    balls = [AHEAD, Ball(2**31, (8, 2, 1.5)), Ball(2**33 + 5, (8, -2, 1.5))]
    assert serialised(output, scene.show(balls))
    if output != "followed":
        assert serialised(output, wall(scene, PERIOD))


# --- points --------------------------------------------------------------------------------------


def test_points_are_a_cloud_in_the_frame_of_the_camera():
    spatial = Scene(target_frame="odom", point_stride=2).show([AHEAD])
    cloud = message("points", spatial)
    assert (cloud.header.frame_id, cloud.height, cloud.width) == ("camera", 60, 80)
    assert (cloud.point_step, cloud.row_step) == (28, 28 * 80)
    assert not cloud.is_dense and not cloud.is_bigendian
    names = [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
    assert names == [
        *(("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1)),
        *(("class_id", 16, 4, 1), ("track_id", 20, 6, 1), ("confidence", 24, 7, 1)),
    ]
    read = np.frombuffer(bytes(cloud.data), POINT_DTYPE).reshape(60, 80)
    assert read.tobytes() == spatial.points.array().tobytes()
    assert read["track_id"][30, 40] == 7 and np.isnan(read["z"][0, 0])


@pytest.mark.parametrize("output", ["obstacles", "free_space"])
def test_thinned_points_are_dense(output):
    spatial = Scene().show([AHEAD])
    cloud = message(output, spatial)
    assert (cloud.is_dense, cloud.height) == (True, 1)
    assert cloud.row_step == 28 * cloud.width == len(cloud.data)
    assert (cloud.width > 0) == (output == "obstacles")
    assert np.isfinite(np.frombuffer(bytes(cloud.data), POINT_DTYPE)["x"]).all()


# --- markers -------------------------------------------------------------------------------------


def test_a_track_has_a_box_a_name_and_an_arrow():
    spatial = driven(20, (0.0, 1.0))
    (row,), shown = spatial.objects.rows, markers_of(spatial)
    assert set(shown) == {("boxes", 7), ("names", 7), ("velocities", 7)}
    box, name, arrow = (shown[kind, 7] for kind in ("boxes", "names", "velocities"))
    assert (box.type, name.type, arrow.type) == (1, 9, 0)
    assert box.action == name.action == arrow.action == ADD
    assert xyz(box.pose.position) == pytest.approx(row["box_center"])
    assert xyz(box.scale) == pytest.approx(np.maximum(row["size"], MIN_SIDE))
    start, end = (xyz(point) for point in arrow.points)
    assert np.subtract(end, start) == pytest.approx(row["velocity"])
    assert name.text.startswith("person 7") and name.text.endswith("1.0 m/s")


def test_a_track_at_rest_has_no_arrow():
    assert markers_of(driven(20))["velocities", 7].action == DELETE


def test_a_speed_that_is_unknown_is_not_named():
    name = markers_of(driven(1))["names", 7].text
    assert "m/s" not in name and "nan" not in name


def test_the_first_frame_deletes_all_markers_and_later_ones_those_of_ended_tracks():
    scene = Scene()
    first, second = scene.show([AHEAD, LEFT]), scene.show([AHEAD], PERIOD)
    actions = [[m.action for m in message("markers", s).markers] for s in (first, second)]
    assert actions[0][0] == DELETE_ALL and DELETE_ALL not in actions[1]
    assert {name for (name, track), m in markers_of(second).items() if track == 8} == {
        "boxes", "names", "velocities",
    }  # fmt: skip
    assert all(m.action == DELETE for (_, track), m in markers_of(second).items() if track == 8)


def test_flat_objects_have_a_box_that_can_be_seen():
    scene = Scene(camera_height_m=1.5)
    spatial = scene.show([Ball(7, (8, 0, 0.5))], depth=False)
    assert min(xyz(markers_of(spatial)["boxes", 7].scale)) == MIN_SIDE


# --- the track that is followed ------------------------------------------------------------------


def yaw_of(pose: Any) -> float:
    q = pose.orientation
    assert (q.x, q.y) == pytest.approx((0, 0), abs=1e-9)
    return float(np.degrees(2 * np.arctan2(q.z, q.w)))


@pytest.mark.parametrize(
    ("velocity", "yaw"), [((1.0, 0.0), 0), ((0.0, 1.0), 90), ((-0.7, -0.7), -135)]
)
def test_the_pose_that_is_followed_looks_along_the_motion(velocity, yaw):
    spatial = driven(20, velocity, follow_track=7)
    found = message("followed", spatial)
    assert found.header.frame_id == "odom"
    assert xyz(found.pose.position) == pytest.approx(spatial.objects.rows["position"][0])
    assert yaw_of(found.pose) == pytest.approx(yaw, abs=15)


def test_at_rest_it_looks_away_from_the_camera():
    scene = Scene(target_frame="odom", follow_track=8)
    assert yaw_of(message("followed", scene.show([LEFT])).pose) == pytest.approx(14, abs=2)


def test_in_the_frame_of_the_camera_up_is_against_its_y_axis():
    found = message("followed", Scene(follow_track=7).show([AHEAD])).pose
    q = found.orientation
    axes = object_messages._heading(np.array([0.0, 0, 1]), np.eye(4))
    assert [q.x, q.y, q.z, q.w] == pytest.approx(axes, abs=0.05)
    turned = matrix((0, 0, 0), axes)[:3, :3]
    assert turned[:, 0] == pytest.approx([0, 0, 1]) and turned[:, 2] == pytest.approx([0, -1, 0])


@pytest.mark.parametrize("track", [0, 9])
def test_without_the_track_there_is_no_pose(track):
    assert message("followed", driven(2, follow_track=track)) is None


def test_a_place_that_is_only_predicted_is_not_followed():
    scene = Scene(follow_track=7)
    scene.table([AHEAD])
    assert message("followed", scene.show([AHEAD], PERIOD, depth=False)) is None


def test_the_track_of_that_number_in_another_epoch_is_not_followed():
    """It is another object."""
    scene = Scene(follow_track=7)
    found = [
        message("followed", scene.show([AHEAD], n * PERIOD, epoch=epoch))
        for n, epoch in enumerate((1, 2, 1))
    ]
    assert [pose is not None for pose in found] == [True, False, True]
    for track in (0, 7):  # chosen again
        scene.locator.settings = SpatialSettings(follow_track=track)
        last = scene.show([AHEAD], (3 + track) * PERIOD, epoch=3)
    assert message("followed", last) is not None


# --- the camera of masks -------------------------------------------------------------------------


def test_the_camera_info_of_a_mask_has_the_stamp_of_the_image():
    scene = Scene()
    roi = CONVERT.make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False,
    )  # fmt: skip
    scene.inputs.add_camera_info(camera_info(SIZE, FOCAL, frame_id="old", roi=roi))
    found = object_messages.camera_info(CONVERT, result_of(scene.show([AHEAD], 3 * PERIOD)))
    assert nanoseconds(found.header.stamp) == 3 * PERIOD and found.header.frame_id == "camera"
    assert (found.height, found.width, found.k[0]) == (*SIZE, FOCAL)


def test_the_camera_info_of_ros_1_has_capital_letters():
    scene = Scene()
    info = camera_info(SIZE, FOCAL, d=[0.1, 0, 0, 0, 0])
    for name in "dkrp":
        setattr(info, name.upper(), vars(info).pop(name))
    scene.inputs.add_camera_info(info)
    found = object_messages.camera_info(CONVERT, result_of(scene.show([AHEAD])))
    assert (found.k[0], found.d[0], found.p[0], found.r[0]) == (FOCAL, 0.1, FOCAL, 1)
