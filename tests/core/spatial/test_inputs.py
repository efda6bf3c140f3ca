"""What the sensors sent: the message of an image, and why there is none."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from spatial_scenes import camera_info, cloud_message, depth_message

from video_knet_core.spatial.camera_model import SpatialError
from video_knet_core.spatial.inputs import SpatialInputs, same_aspect
from video_knet_core.spatial.settings import SpatialSettings

MS = 1_000_000
SETTINGS = SpatialSettings(depth_tolerance_ms=20, cloud_tolerance_ms=60)
SIZE = (6, 8)


@pytest.fixture
def inputs() -> SpatialInputs:
    return SpatialInputs()


def depth_at(ms: float, metres: float = 1.0) -> SimpleNamespace:
    return depth_message(np.full(SIZE, metres), round(ms * MS))


def metres(inputs: SpatialInputs, ms: float, settings: SpatialSettings = SETTINGS) -> float | None:
    """Of the depth image that belongs to an image of this stamp."""
    found = inputs.depth(round(ms * MS), settings)
    return None if found is None else float(found[0][0, 0])


# --- stamps --------------------------------------------------------------------------------------


def test_the_depth_of_an_image_is_the_nearest(inputs):
    for ms in (0, 33, 66, 99):
        inputs.add_depth(depth_at(ms, 1 + ms))
    assert [metres(inputs, ms) for ms in (0, 16, 17, 70, 110)] == [1, 1, 34, 67, 100]


def test_messages_may_come_in_any_order(inputs):
    for ms in (66, 0, 99, 33):
        inputs.add_depth(depth_at(ms, 1 + ms))
    assert [metres(inputs, ms) for ms in (0, 33, 66)] == [1, 34, 67]


@pytest.mark.parametrize(("away", "used"), [(-20, True), (20, True), (-20.1, False), (20.1, False)])
def test_the_tolerance_is_the_largest_difference_that_is_used(inputs, away, used):
    inputs.add_depth(depth_at(100 + away))
    assert (metres(inputs, 100) is not None) == used


def test_clouds_have_a_tolerance_of_their_own(inputs):
    inputs.add_cloud(cloud_message(np.ones((2, 3)), 100 * MS, "lidar"))
    found = inputs.cloud(150 * MS, SETTINGS)
    assert found is not None
    cloud, stamp = found
    assert (cloud.frame_id, stamp) == ("lidar", 100 * MS)
    assert cloud.points.tolist() == [[1, 1, 1]] * 2
    assert inputs.cloud(161 * MS, SETTINGS) is None
    assert inputs.cloud(150 * MS, replace(SETTINGS, cloud_tolerance_ms=10)) is None


def test_with_a_tolerance_of_zero_stamps_must_be_equal(inputs):
    inputs.add_depth(depth_at(100))
    exact = replace(SETTINGS, depth_tolerance_ms=0)
    assert metres(inputs, 100, exact) == 1 and metres(inputs, 100.001, exact) is None


def test_the_frame_of_a_depth_image_comes_with_it(inputs):
    inputs.add_depth(depth_message(np.ones(SIZE), 0, "depth_optical"))
    found = inputs.depth(0, SETTINGS)
    assert found is not None and found[1] == "depth_optical"


def test_an_image_that_waited_half_a_second_finds_its_depth_among_those_of_30_hertz(inputs):
    """A slow model, or a replay, which puts images in the order of their stamps."""
    for number in range(16):
        inputs.add_depth(depth_at(number * 33, 1 + number))
    assert metres(inputs, 33) == 2


def test_old_messages_are_forgotten(inputs):
    for number in range(1000):
        inputs.add_depth(depth_at(number * 33))
        inputs.add_cloud(cloud_message(np.ones((1, 3)), number * 100 * MS))
    assert len(inputs._depth) < 50 and len(inputs._clouds) < 50
    assert metres(inputs, 999 * 33) == 1


# --- counts and reasons --------------------------------------------------------------------------


def test_without_a_sensor_nothing_is_missing(inputs):
    assert metres(inputs, 0) is None and inputs.cloud(0, SETTINGS) is None
    assert not inputs.counts and not inputs.reasons


def test_what_is_used_is_counted(inputs):
    inputs.add_depth(depth_at(0))
    inputs.add_cloud(cloud_message(np.ones((1, 3)), 0))
    for ms in (0, 10):
        metres(inputs, ms)
    inputs.cloud(0, SETTINGS)
    assert inputs.counts == {"depth used": 2, "cloud used": 1} and not inputs.reasons


def test_what_is_missing_is_counted_with_the_distance_of_the_nearest(inputs):
    inputs.add_depth(depth_at(0))
    assert metres(inputs, 75.5) is None
    assert inputs.counts == {"depth missing": 1}
    assert "20 ms" in inputs.reasons["depth"] and "75.5 ms" in inputs.reasons["depth"]


def test_what_cannot_be_read_is_counted_with_the_reason(inputs):
    message = depth_at(0)
    message.encoding = "rgb8"
    inputs.add_depth(message)
    assert metres(inputs, 0) is None
    assert inputs.counts == {"depth failed": 1} and "rgb8" in inputs.reasons["depth"]


def test_a_reason_is_gone_when_the_input_is_used_again(inputs):
    inputs.add_depth(depth_at(0))
    metres(inputs, 100)
    assert "depth" in inputs.reasons
    inputs.begin_frame()
    assert "depth" in inputs.reasons
    inputs.add_depth(depth_at(100))
    assert metres(inputs, 100) == 1
    assert not inputs.reasons and inputs.counts == {"depth missing": 1, "depth used": 1}


def test_a_reason_is_that_of_the_last_two_frames(inputs):
    inputs.note("ground", "expected another")
    for _ in range(2):
        assert inputs.reasons == {"ground": "expected another"}
        inputs.begin_frame()
    assert inputs.reasons == {}


@pytest.mark.parametrize(
    ("newest", "coming"), [(-2000, False), (-500, True), (-33, True), (-10, False), (40, False)]
)
def test_depth_is_coming_while_the_newest_is_a_little_older_than_the_image(inputs, newest, coming):
    assert not inputs.is_coming(3000 * MS, SETTINGS)
    inputs.add_depth(depth_at(3000 + newest))
    assert inputs.is_coming(3000 * MS, SETTINGS) == coming


def test_the_size_of_the_last_depth_image_is_known_before_it_is_read(inputs):
    assert inputs.depth_size is None
    inputs.add_depth(depth_at(0))
    assert inputs.depth_size == SIZE


def test_faulty_transforms_are_counted_with_the_reason(inputs):
    pose = SimpleNamespace(
        position=SimpleNamespace(x=0.0, y=0.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0),
    )
    stamp = SimpleNamespace(sec=0, nanosec=0)
    header = SimpleNamespace(frame_id="odom", stamp=stamp)
    message = SimpleNamespace(header=header, child_frame_id="base", pose=SimpleNamespace(pose=pose))
    inputs.add_odometry(message)
    assert inputs.counts == {"transforms failed": 1}
    assert "quaternion" in inputs.reasons["transforms"]


# --- the camera ----------------------------------------------------------------------------------


def test_without_camera_info_there_is_no_camera(inputs):
    with pytest.raises(SpatialError, match="no camera info has come"):
        inputs.camera(SETTINGS, (480, 640))
    with pytest.raises(SpatialError, match="no depth camera info has come"):
        inputs.camera(SETTINGS, (480, 640), "depth camera info")


def test_the_camera_is_made_once_for_equal_infos(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    first = inputs.camera(SETTINGS, (480, 640))
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    assert inputs.camera(SETTINGS, (480, 640)) is first


@pytest.mark.parametrize(
    "changes",
    [
        {"k": [300.0, 0, 320, 0, 300, 240, 0, 0, 1]},
        {"d": [0.1, 0, 0, 0, 0]},
        {"binning_x": 1, "binning_y": 1},
        {"frame_id": "other"},
    ],
)
def test_another_calibration_is_another_camera(inputs, changes):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    first = inputs.camera(SETTINGS, (480, 640))
    inputs.add_camera_info(camera_info((480, 640), 400.0, **changes))
    assert inputs.camera(SETTINGS, (480, 640)) is not first


def test_a_rectified_camera_is_another(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0, d=[0.1, 0, 0, 0, 0]))
    raw = inputs.camera(SETTINGS, (480, 640))
    rectified = inputs.camera(replace(SETTINGS, rectified=True), (480, 640))
    assert (raw.distortion_model, rectified.distortion_model) == ("plumb_bob", "")


def test_an_image_of_another_size_has_the_same_field_of_view(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    half = inputs.camera(SETTINGS, (240, 320))
    assert (half.height, half.width, half.k[0, 0]) == (240, 320, 200)
    assert inputs.camera(SETTINGS, (240, 320)) is half
    corner = half.rays()[0, 0] - inputs.camera(SETTINGS, (480, 640)).rays()[:2, :2].mean((0, 1))
    assert corner == pytest.approx([0, 0], abs=1e-6)


def test_resized_cameras_follow_the_calibration(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    inputs.camera(SETTINGS, (240, 320))
    inputs.add_camera_info(camera_info((480, 640), 500.0))
    assert inputs.camera(SETTINGS, (240, 320)).k[0, 0] == 250


def test_resized_cameras_of_many_sizes_are_forgotten(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    for n in range(1, 50):
        inputs.camera(SETTINGS, (12 * n, 16 * n))
    assert len(inputs._resized) < 10


def test_an_image_of_another_aspect_has_no_camera(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    with pytest.raises(SpatialError, match="^camera info: expected the aspect .* 640 x 360, got"):
        inputs.camera(SETTINGS, (360, 640))


def test_the_two_cameras_are_kept_apart(inputs):
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    inputs.add_depth_info(camera_info((480, 640), 300.0))
    assert inputs.camera(SETTINGS, (240, 320)).k[0, 0] == 200
    assert inputs.camera(SETTINGS, (240, 320), "depth camera info").k[0, 0] == 150
    assert inputs.camera_info.k[0] == 400


def test_an_unusable_info_names_itself_and_a_later_one_is_used(inputs):
    inputs.add_camera_info(camera_info((480, 640), 0.0))
    with pytest.raises(SpatialError, match="^camera info: k: expected focal lengths"):
        inputs.camera(SETTINGS, (480, 640))
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    assert inputs.camera(SETTINGS, (480, 640)).k[0, 0] == 400


@pytest.mark.parametrize(
    ("other", "same"),
    [((480, 640), True), ((240, 320), True), ((242, 320), True), ((360, 640), False)],
)
def test_sizes_show_the_same_if_their_aspect_is_equal_to_a_percent(other, same):
    assert same_aspect((480, 640), other) == same


# --- threads -------------------------------------------------------------------------------------


def test_messages_may_come_while_others_are_read(inputs):
    end, failures = threading.Event(), []

    def fill() -> None:
        n = 0
        while not end.is_set():
            n += 1
            inputs.add_depth(depth_at(n % 500))
            inputs.add_cloud(cloud_message(np.ones((1, 3)), (n % 500) * MS))
            inputs.add_camera_info(camera_info((480, 640), 400.0 + n % 3))

    thread = threading.Thread(target=fill)
    inputs.add_camera_info(camera_info((480, 640), 400.0))
    thread.start()
    try:
        for n in range(400):
            inputs.depth(n * MS, SETTINGS)
            inputs.cloud(n * MS, SETTINGS)
            assert inputs.camera(SETTINGS, (240, 320)).width == 320
            dict(inputs.counts), dict(inputs.reasons)  # as diagnostics copy them
    except Exception as error:  # would be hidden by the join
        failures.append(error)
    finally:
        end.set()
        thread.join()
    assert not failures
