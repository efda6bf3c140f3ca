"""Drives of KITTI raw as bags: a generated drive with a known point, and known ways to drive."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fixtures import read_all, storage_file
from replay_results import failure
from rosbags.rosbag2 import Reader

from video_knet_core.bags.bag import BagError
from video_knet_core.bags.definitions import read_cdr
from video_knet_core.bags.kitti_raw import KittiCalibration, VehiclePath, make_kitti_bag
from video_knet_core.bags.making import BagFormat
from video_knet_core.cli import main
from video_knet_core.image_files import FrameError
from video_knet_core.messages.image_messages import to_rgb

TOPIC = "/camera/image_raw"
HEIGHT, WIDTH = 94, 310
PROJECTION = np.array([[180.4, 0, 152.4, 11.2], [0, 180.4, 43.2, 0.054], [0, 0, 1, 0.0027]])
RECTIFICATION = cv2.Rodrigues(np.array([0.004, 0.009, -0.007]))[0]
AXES = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
"""From x ahead, y left and z up to x right, y down and z ahead."""
VELO_TO_CAM = (
    AXES @ cv2.Rodrigues(np.array([0.015, 0.01, 0.007]))[0],
    np.array([-0.004, -0.08, -0.27]),
)
IMU_TO_VELO = cv2.Rodrigues(np.array([-0.015, 0.002, -0.001]))[0], np.array([-0.81, 0.32, -0.8])
POINT = np.array([12.0, 1.5, -0.5])
"""In the frame of the laser scanner: ahead, and a little to the left."""
DAY = "2011-09-26 13:02:"
FIRST = 1_317_042_120_000_000_000
"""13:02:00 on that day, in UTC."""
R = 6378137.0


def text(values) -> str:
    return " ".join(f"{value:.12e}" for value in np.ravel(values))


def write_calibration(folder: Path) -> None:
    (folder / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\n"
        f"S_rect_02: {text([WIDTH, HEIGHT])}\n"
        f"R_rect_00: {text(RECTIFICATION)}\n"
        f"P_rect_02: {text(PROJECTION)}\n"
    )
    extrinsics = {"velo_to_cam": VELO_TO_CAM, "imu_to_velo": IMU_TO_VELO}
    for name, (rotation, translation) in extrinsics.items():
        lines = f"calib_time: 15-Mar-2012 11:37:16\nR: {text(rotation)}\nT: {text(translation)}\n"
        (folder / f"calib_{name}.txt").write_text(lines)


def pixel_of_kitti(point: np.ndarray) -> np.ndarray:
    """By the formula of KITTI: P_rect_02 R_rect_00 (R | T) x."""
    rotation, translation = VELO_TO_CAM
    u, v, w = PROJECTION @ np.append(RECTIFICATION @ (rotation @ point + translation), 1)
    return np.array([u / w, v / w])


def packet(east=0.0, north=0.0, yaw=0.0, speed=0.0, turn=0.0, pitch=0.0, roll=0.0) -> np.ndarray:
    """Of the IMU near Karlsruhe, from metres on the ground."""
    values = np.zeros(30)
    latitude = 49.0 + np.degrees(north / R)
    longitude = 8.4 + np.degrees(east / (R * np.cos(np.radians(49.0))))
    values[:6] = latitude, longitude, 115.0, roll, pitch, yaw
    values[6:9] = speed * np.sin(yaw), speed * np.cos(yaw), speed
    values[22] = turn
    return values


def write_sensor(folder: Path, times: list[str]) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "timestamps.txt").write_text("".join(f"{DAY}{time}\n" for time in times))
    return folder / "data"


@pytest.fixture
def drive(tmp_path) -> Path:
    """2 images, 2 scans, 3 packets; the pixel of `POINT` is white in the images."""
    folder = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    data = write_sensor(folder / "image_02", ["00.010000001", "00.110000000"])
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    u, v = np.round(pixel_of_kitti(POINT)).astype(int)
    image[v, u] = 255
    for number in range(2):
        image[0, 0] = 0, 0, 10 * number + 5
        cv2.imwrite(str(data / f"{number:010d}.png"), image)
    data = write_sensor(folder / "velodyne_points", ["00.005000000", "00.105000000"])
    for number in range(2):
        np.array([[*POINT, 0.25], [5, 5, 5, number]], "<f4").tofile(data / f"{number:010d}.bin")
    data = write_sensor(folder / "oxts", ["00.000000000", "00.100000000", "00.200000000"])
    for number in range(3):
        row = packet(east=1.0 * number, speed=10.0)
        (data / f"{number:010d}.txt").write_text(text(row))
    write_calibration(folder.parent)
    return folder


def decoded(path: Path) -> dict[str, list]:
    messages: dict[str, list] = {}
    for message in read_all(path):
        messages.setdefault(message.topic.name, []).append(
            read_cdr(message.data, message.topic.type)
        )
    return messages


def matrix_of(transform) -> np.ndarray:
    """[4, 4] of a transform or a pose, written out from the quaternion."""
    place = getattr(transform, "translation", None) or transform.position
    q = getattr(transform, "rotation", None) or transform.orientation
    x, y, z, w = q.x, q.y, q.z, q.w
    assert x * x + y * y + z * z + w * w == pytest.approx(1)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), place.x],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), place.y],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), place.z],
            [0, 0, 0, 1],
        ]
    )


def test_a_point_of_the_scan_lies_on_its_pixel(drive, tmp_path):
    assert make_kitti_bag(drive, TOPIC, tmp_path / "bag") == 2
    messages = decoded(tmp_path / "bag")
    (static,) = messages["/tf_static"]
    frames = {(t.header.frame_id, t.child_frame_id): t.transform for t in static.transforms}
    assert set(frames) == {("base_link", "velodyne"), ("velodyne", "camera")}

    cloud = messages["/velodyne_points"][0]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity"]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 2, 16, 32)
    points = np.frombuffer(cloud.data, "<f4").reshape(-1, 4)
    np.testing.assert_allclose(points[0], [*POINT, 0.25])

    to_velodyne = matrix_of(frames["velodyne", "camera"])  # TF: from the child to the parent
    in_camera = (np.linalg.inv(to_velodyne) @ [*points[0, :3], 1])[:3]
    info = messages["/camera/camera_info"][0]
    u, v, w = info.k.reshape(3, 3) @ in_camera
    np.testing.assert_allclose([u / w, v / w], pixel_of_kitti(POINT), atol=1e-4)
    np.testing.assert_allclose(info.p.reshape(3, 4), np.c_[info.k.reshape(3, 3), np.zeros(3)])
    assert not info.d.any() and (info.height, info.width) == (HEIGHT, WIDTH)
    image = to_rgb(messages[TOPIC][0])
    assert (image[round(v / w), round(u / w)] == 255).all() and image[0, 0].tolist() == [5, 0, 0]
    assert {m.header.frame_id for m in messages[TOPIC]} == {info.header.frame_id} == {"camera"}

    # 12 m ahead of the scanner, which is 0.81 m ahead of the IMU and 0.8 m above it
    in_base = (matrix_of(frames["base_link", "velodyne"]) @ [*POINT, 1])[:3]
    rotation, translation = IMU_TO_VELO
    np.testing.assert_allclose(rotation @ in_base + translation, POINT, atol=1e-6)
    assert in_base[0] == pytest.approx(12.8, abs=0.1) and in_base[2] > POINT[2]


def test_messages_have_the_times_of_their_sensors_in_order(drive, tmp_path):
    make_kitti_bag(drive, TOPIC, tmp_path / "bag")
    got = [(m.topic.name, m.time - FIRST) for m in read_all(tmp_path / "bag")]
    assert got == [
        ("/tf_static", 0),
        ("/odometry", 0),
        ("/velodyne_points", 5_000_000),
        ("/camera/camera_info", 10_000_001),
        (TOPIC, 10_000_001),
        ("/odometry", 100_000_000),
        ("/velodyne_points", 105_000_000),
        ("/camera/camera_info", 110_000_000),
        (TOPIC, 110_000_000),
        ("/odometry", 200_000_000),
    ]
    stamp = decoded(tmp_path / "bag")[TOPIC][0].header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == FIRST + 10_000_001
    with Reader(tmp_path / "bag") as reader:
        (static,) = (c for c in reader.connections if c.topic == "/tf_static")
    assert static.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_missing_scans_keep_the_times_of_the_others(drive, tmp_path):
    """As in drive 0009, which lacks four of its scans."""
    (drive / "velodyne_points/data/0000000000.bin").unlink()
    make_kitti_bag(drive, TOPIC, tmp_path / "bag")
    times = [m.time - FIRST for m in read_all(tmp_path / "bag") if "velo" in m.topic.name]
    assert times == [105_000_000]


def test_the_sensors_end_with_the_last_image(drive, tmp_path):
    assert make_kitti_bag(drive, TOPIC, tmp_path / "bag", BagFormat(jpeg=90), max_frames=1) == 1
    counts = Counter(m.topic.name for m in read_all(tmp_path / "bag"))
    assert counts == {
        **{"/tf_static": 1, "/odometry": 1, "/velodyne_points": 1},
        **{"/camera/camera_info": 1, f"{TOPIC}/compressed": 1},
    }


def states(packets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    vehicle = VehiclePath(packets[0])
    poses, twists = zip(*map(vehicle.state, packets), strict=True)
    return np.array(poses), np.array(twists)


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, -2.0])
def test_a_straight_drive_goes_along_x_wherever_it_heads(yaw):
    way = [packet(d * np.cos(yaw), d * np.sin(yaw), yaw, speed=10.0) for d in (0, 1.0, 2.0)]
    poses, twists = states(way)
    np.testing.assert_allclose(poses[:, :3, 3], [[0, 0, 0], [1, 0, 0], [2, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(poses[:, :3, :3], [np.eye(3)] * 3, atol=1e-9)
    np.testing.assert_allclose(twists, [[10, 0, 0, 0, 0, 0]] * 3, atol=1e-9)


def test_a_left_turn_goes_to_y_and_turns_about_z():
    """A quarter of a circle of 20 m, at 10 m/s."""
    angles = np.linspace(0, np.pi / 2, 91)
    way = [packet(20 * np.sin(a), 20 * (1 - np.cos(a)), a, speed=10, turn=0.5) for a in angles]
    poses, twists = states(way)
    np.testing.assert_allclose(poses[-1, :3, 3], [20, 20, 0], atol=1e-3)
    np.testing.assert_allclose(poses[-1, :3, 0], [0, 1, 0], atol=1e-9)  # it looks to the left
    np.testing.assert_allclose(twists[:, 3:], [[0, 0, 0.5]] * 91, atol=1e-9)
    step = poses[46, :3, 3] - poses[45, :3, 3]
    seconds = np.radians(1) / 0.5
    np.testing.assert_allclose(poses[45, :3, :3].T @ step / seconds, twists[45, :3], atol=0.1)


def test_velocities_are_those_of_the_tilted_frame():
    """With its front 0.1 rad down a level motion goes up in its frame."""
    twist = states([packet(pitch=0.1, speed=10.0)])[1][0]
    np.testing.assert_allclose(twist[:3], [10 * np.cos(0.1), 0, 10 * np.sin(0.1)])
    twist = states([packet(roll=0.1, turn=0.5)])[1][0]  # left side up
    np.testing.assert_allclose(twist[3:], [0, 0.5 * np.sin(0.1), 0.5 * np.cos(0.1)])


def test_the_written_odometry_is_that_of_the_imu(drive, tmp_path):
    make_kitti_bag(drive, TOPIC, tmp_path / "bag")
    rows = decoded(tmp_path / "bag")["/odometry"]
    assert {(m.header.frame_id, m.child_frame_id) for m in rows} == {("odom", "base_link")}
    places = [matrix_of(m.pose.pose)[:3, 3] for m in rows]
    np.testing.assert_allclose(places, [[0, 0, 0], [1, 0, 0], [2, 0, 0]], atol=1e-5)
    assert rows[0].twist.twist.linear.x == pytest.approx(10)


def test_calibration_is_read_alone(drive):
    calibration = KittiCalibration.read(drive.parent)
    assert calibration.camera.fx == 180.4 and calibration.size == (HEIGHT, WIDTH)
    x, y, z, _ = calibration.velodyne_to_camera @ [*POINT, 1]
    assert z > 11 and x < 0 and y > 0  # ahead, to the left, below the camera


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("../calib_velo_to_cam.txt", b"R: 1 0 0\n", BagError, "R: expected 9 numbers, got"),
        (
            "../calib_imu_to_velo.txt",
            b"R: 1 0 0 0 1 0 0 0 0\nT: 0 0 0\n",
            BagError,
            "R: expected a rotation",
        ),
        ("../calib_cam_to_cam.txt", b"\xff", BagError, "expected a text file"),
        ("image_02/timestamps.txt", b"2011-09-26 13:02:25\nsoon\n", BagError, "line 2.*'soon'"),
        ("image_02/timestamps.txt", b"\n2011-09-26 13:02:25\n", BagError, "line 1"),
        ("image_02/timestamps.txt", b"2011-09-26 13:02:25\n", BagError, "got 1 lines"),
        ("image_02/data/0000000000.png", b"", FrameError, "not an image"),
        ("velodyne_points/data/0000000001.bin", b"12345", BagError, "4 floats .* got 5 bytes"),
        ("velodyne_points/data/last.bin", b"", BagError, "called by its number"),
        ("oxts/data/0000000000.txt", b"1 2 3", BagError, "expected 30 numbers, got"),
        ("oxts/data/0000000000.txt", b"one", BagError, "expected 30 numbers, got"),
    ],
)
def test_what_is_not_kittis_is_named(drive, tmp_path, name, content, error, message):
    (drive / name).write_bytes(content)
    with pytest.raises(error, match=message) as found:
        make_kitti_bag(drive, TOPIC, tmp_path / "bag")
    assert Path(name).name in str(found.value)


def test_images_of_another_size_are_rejected(drive, tmp_path):
    cv2.imwrite(str(drive / "image_02/data/0000000000.png"), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(FrameError, match="expected 310 x 94 .*S_rect_02.* got 20 x 10"):
        make_kitti_bag(drive, TOPIC, tmp_path / "bag")


def test_the_command(drive, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(drive)  # the calibration is beside the drive all the same
    command = [
        "make-bag",
        "--kitti-raw",
        ".",
        "--format",
        "sqlite3",
        "--out",
        str(tmp_path / "bag"),
    ]
    assert main(command) == 0
    assert "2 images on /camera/image_raw" in capsys.readouterr().out
    assert storage_file(tmp_path / "bag").suffix == ".db3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["synthetic", "--kitti-raw", "."], "expected either VIDEO or --kitti-raw DIR"),
        ([], "expected either VIDEO or --kitti-raw DIR"),
        (["--kitti-raw", ".", "--depth"], "--depth is for VIDEO"),
        (["--kitti-raw", ".", "--format", "ros1"], "mcap or sqlite3 with --kitti-raw, got ros1"),
        (["--kitti-raw", "none"], "calib_cam_to_cam.txt"),
    ],
)
def test_a_command_that_does_not_fit_is_rejected(words, message, tmp_path, capsys):
    assert message in failure(["make-bag", *words, "--out", str(tmp_path / "bag")], capsys)
    assert not (tmp_path / "bag").exists()
