"""Drives of KITTI raw as bags: images, point clouds, odometry and the transforms between them.

    make_kitti_bag(Path("2011_09_26/2011_09_26_drive_0005_sync"), "/camera/image_raw", Path("bag"))

The layout and all conventions are those of the development kit of KITTI raw (Geiger et al., "Vision
meets Robotics: The KITTI Dataset", IJRR 2013): its readme.txt, and of its MATLAB code
loadCalibrationRigid.m and convertOxtsToPose.m.

A matrix X_to_y [4, 4] maps points from X to y, as KITTI's calib_X_to_y.txt does. A transform of TF
maps from its child to its parent, the other way round: the transform velodyne -> camera of TF is
the inverse of velodyne_to_camera.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.depth_files import expect_size
from ..data.frame_source import Intrinsics
from ..image_files import is_image, read_image
from ..messages.result_messages import Conversions
from ..messages.view_messages import (
    CAMERA_INFO,
    ODOM_FRAME,
    ODOMETRY,
    camera_info,
    odometry,
    transform,
)
from ..natural_order import is_hidden
from ..user_names import camera_topics
from .bag import BagError
from .making import ODOMETRY_TOPIC, BagFormat, TypedBag

BASE_FRAME, VELODYNE_FRAME, CAMERA_FRAME = "base_link", "velodyne", "camera"
"""Of the IMU (x forward, y left, z up), the laser scanner (likewise) and camera 2 (optical)."""
POINTS_TOPIC, STATIC_TOPIC = "/velodyne_points", "/tf_static"
POINT_CLOUD, TRANSFORMS = "sensor_msgs/msg/PointCloud2", "tf2_msgs/msg/TFMessage"
FLOAT32 = 7
"""Of PointField."""
EARTH_RADIUS = 6378137.0
"""Metres, as in latlonToMercator.m."""
OXTS_FIELDS = 30
Matrix = NDArray[np.float64]


def make_kitti_bag(
    drive: Path,
    topic: str,
    out: Path,
    form: BagFormat = BagFormat(),  # noqa: B008 - it is frozen
    max_frames: int | None = None,
) -> int:
    """Write a drive in the order of its timestamps, read as UTC; returns how many images.

    Each sensor has its own timestamps, and any number of measurements. BagError if a file is
    missing or is not as KITTI has it, FrameError if an image cannot be read.

    Args:
        drive: DATE/DATE_drive_NNNN_sync, with calib_*.txt in DATE.
        topic: of the images of camera 2, rectified; camera_info is beside it.
        out: a new folder.
        form: of ROS 2.
        max_frames: of the images, at most; the other sensors end with the last of them.
    """
    calibration = KittiCalibration.read(drive.absolute().parent)
    packets = _measurements(drive / "oxts", lambda name: name.endswith(".txt"))
    clouds = _measurements(drive / "velodyne_points", lambda name: name.endswith(".bin"))
    images = _measurements(drive / "image_02", is_image)[:max_frames]
    vehicle = VehiclePath(read_oxts(packets[0].path))
    sensors = packets, clouds, images  # of the same time, in this order
    rows = [(row.time, kind, row.path) for kind, found in enumerate(sensors) for row in found]
    rows = sorted(row for row in rows if max_frames is None or row[0] <= images[-1].time)
    kinds = {
        STATIC_TOPIC: TRANSFORMS,
        ODOMETRY_TOPIC: ODOMETRY,
        POINTS_TOPIC: POINT_CLOUD,
        camera_topics(topic)[1]: CAMERA_INFO,
        form.image_topic(topic): form.image_type,
    }
    with closing(TypedBag(out, kinds, form, latched=[STATIC_TOPIC])) as bag:
        writer = _DriveWriter(bag, topic, form, calibration, vehicle)
        write = writer.odometry, writer.cloud, writer.image
        writer.transforms(rows[0][0])
        for time, kind, path in rows:
            write[kind](time, path)
    return len(images)


@dataclass(frozen=True)
class _DriveWriter:
    """Writes the measurements of a drive; times are in nanoseconds."""

    bag: TypedBag
    topic: str
    """Of the images."""
    form: BagFormat
    calibration: KittiCalibration
    vehicle: VehiclePath

    def transforms(self, time: int) -> None:
        """The tree base_link -> velodyne -> camera."""
        links = [
            (BASE_FRAME, VELODYNE_FRAME, self.calibration.imu_to_velodyne),
            (VELODYNE_FRAME, CAMERA_FRAME, self.calibration.velodyne_to_camera),
        ]
        messages = [
            transform(self.bag.convert, self.bag.header(time, parent), child, inverse(matrix))
            for parent, child, matrix in links
        ]
        message = self.bag.convert.find(TRANSFORMS)(transforms=messages)
        self.bag.write(STATIC_TOPIC, time, message)

    def odometry(self, time: int, path: Path) -> None:
        """A packet of the IMU."""
        pose, twist = self.vehicle.state(read_oxts(path))
        header = self.bag.header(time, ODOM_FRAME)
        message = odometry(self.bag.convert, header, BASE_FRAME, pose, twist)
        self.bag.write(ODOMETRY_TOPIC, time, message)

    def cloud(self, time: int, path: Path) -> None:
        """A laser scan."""
        header = self.bag.header(time, VELODYNE_FRAME)
        self.bag.write(POINTS_TOPIC, time, point_cloud(self.bag.convert, header, read_points(path)))

    def image(self, time: int, path: Path) -> None:
        """An image and its camera."""
        image, size = read_image(path), self.calibration.size
        expect_size(path, image, size, "as S_rect_02 of calib_cam_to_cam.txt")
        convert, header = self.bag.convert, self.bag.header(time, CAMERA_FRAME)
        info = camera_info(convert, header, self.calibration.camera, size)
        self.bag.write(camera_topics(self.topic)[1], time, info)
        message = self.form.image_message(convert, header, image)
        self.bag.write(self.form.image_topic(self.topic), time, message)


# --- calibration ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class KittiCalibration:
    """The calibration of one day."""

    camera: Intrinsics
    """Of the rectified images of camera 2."""
    size: tuple[int, int]
    """Height and width of these images."""
    velodyne_to_camera: Matrix
    """[4, 4] from the laser scanner to the rectified optical frame of camera 2."""
    imu_to_velodyne: Matrix
    """[4, 4]"""

    @classmethod
    def read(cls, folder: Path) -> KittiCalibration:
        """Of calib_cam_to_cam.txt, calib_velo_to_cam.txt and calib_imu_to_velo.txt."""
        path = folder / "calib_cam_to_cam.txt"
        values = read_calibration_text(path)
        projection = _entry(values, path, "P_rect_02", (3, 4))
        matrix = projection[:, :3]
        if not np.linalg.det(matrix) > 0:
            raise BagError(f"{path}: P_rect_02: expected [f, 0, cx, ...], got {matrix.tolist()}")
        # P_rect_02 maps from the rectified camera 0, K (x + b); b is where camera 2 is
        to_second = rigid(_rotation(values, path, "R_rect_00"), inverse(matrix) @ projection[:, 3])
        width, height = _entry(values, path, "S_rect_02", (2,))
        return cls(
            Intrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]),
            (int(height), int(width)),
            to_second @ _extrinsics(folder / "calib_velo_to_cam.txt"),
            _extrinsics(folder / "calib_imu_to_velo.txt"),
        )


def read_calibration_text(path: Path) -> dict[str, Matrix]:
    """Name -> numbers of the lines "NAME: NUMBER NUMBER ..."; others are left out."""
    values = {}
    for line in _read_text(path).splitlines():
        name, _, text = line.partition(":")
        try:
            values[name.strip()] = np.array(text.split(), np.float64)
        except ValueError:  # calib_time
            continue
    return values


def _entry(values: dict[str, Matrix], path: Path, name: str, shape: tuple[int, ...]) -> Matrix:
    found = values.get(name, np.empty(0))
    if found.size != np.prod(shape) or not np.isfinite(found).all():
        raise BagError(f"{path}: {name}: expected {np.prod(shape)} numbers, got {found.tolist()}")
    return found.reshape(shape)


def _extrinsics(path: Path) -> Matrix:
    values = read_calibration_text(path)
    return rigid(_rotation(values, path, "R"), _entry(values, path, "T", (3,)))


def _rotation(values: dict[str, Matrix], path: Path, name: str) -> Matrix:
    matrix = _entry(values, path, name, (3, 3))
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):
        raise BagError(f"{path}: {name}: expected a rotation, got {matrix.tolist()}")
    return matrix


def rigid(rotation: Matrix, translation: Matrix) -> Matrix:
    """[4, 4] of a rotation [3, 3] and a translation [3], which comes after it."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def inverse(matrix: Matrix) -> Matrix:
    """Of a matrix [n, n]."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


# --- measurements --------------------------------------------------------------------------------


class _Measurement(NamedTuple):
    time: int
    """Nanoseconds."""
    path: Path


def _measurements(folder: Path, is_data: Callable[[str], bool]) -> list[_Measurement]:
    """The files of a sensor by time; file N has line N of its timestamps, for some are missing."""
    times = _read_times(folder / "timestamps.txt")
    data = folder / "data"
    files = data.iterdir() if data.is_dir() else ()
    paths = [path for path in files if is_data(path.name) and not is_hidden(path.name)]
    if not paths:
        raise BagError(f"{data}: expected the files of a drive of KITTI raw, got none of its kind")
    found = []
    for path in paths:
        number = int(path.stem) if path.stem.isdecimal() else -1
        if not 0 <= number < len(times):
            raise BagError(
                f"{path}: expected a file called by its number, which has a line in "
                f"{folder / 'timestamps.txt'}, got {len(times)} lines"
            )
        found.append(_Measurement(times[number], path))
    return sorted(found)


def _read_times(path: Path) -> list[int]:
    """Nanoseconds of lines as "2011-09-26 13:02:25.964389445"."""
    times = []
    for number, line in enumerate(_read_text(path).rstrip().splitlines(), start=1):
        try:
            time = np.datetime64(line.strip() or "none", "ns")
        except ValueError:
            raise BagError(
                f"{path}: line {number}: expected a date and a time, got {line!r}"
            ) from None
        times.append(int(time.astype(np.int64)))
    return times


def _read_text(path: Path) -> str:
    """BagError if it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BagError(f"{path}: expected a text file of KITTI raw, got {error}") from None


def read_points(path: Path) -> NDArray[np.float32]:
    """[n, 4] x, y, z in metres and reflectance 0..1 of a laser scan."""
    if path.stat().st_size % 16:
        raise BagError(f"{path}: expected 4 floats for each point, got {path.stat().st_size} bytes")
    return np.fromfile(path, "<f4").reshape(-1, 4)


def point_cloud(convert: Conversions, header: Any, points: NDArray[np.float32]) -> Any:
    """PointCloud2 with x, y, z and intensity of `points` [n, 4]."""
    field = convert.find("sensor_msgs/msg/PointField")
    names = ("x", "y", "z", "intensity")
    return convert.find(POINT_CLOUD)(
        header=header,
        height=1,
        width=len(points),
        fields=[
            field(name=name, offset=4 * i, datatype=FLOAT32, count=1)
            for i, name in enumerate(names)
        ],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(points),
        data=np.ascontiguousarray(points).view(np.uint8).ravel(),
        is_dense=bool(np.isfinite(points).all()),
    )


def read_oxts(path: Path) -> Matrix:
    """[30] lat, lon [deg], alt [m], roll, pitch, yaw [rad], vn, ve, vf, vl, vu [m/s], ...

    20 to 22 are the angular velocities wf, wl, wu around the axes of vf, vl, vu [rad/s].
    """
    return _entry({"oxts": _numbers(path)}, path, "oxts", (OXTS_FIELDS,))


def _numbers(path: Path) -> Matrix:
    try:
        return np.array(_read_text(path).split(), np.float64)
    except ValueError as error:
        raise BagError(f"{path}: expected {OXTS_FIELDS} numbers, got {error}") from None


class VehiclePath:
    """Poses of the IMU in its frame at the first packet, as convertOxtsToPose.m has them."""

    def __init__(self, first: Matrix) -> None:
        self._scale = np.cos(np.radians(first[0]))
        self._to_first = inverse(self._on_earth(first))

    def state(self, packet: Matrix) -> tuple[Matrix, Matrix]:
        """Pose [4, 4] in the first frame, and twist [6] in the frame of the IMU."""
        # its velocities are parallel to the ground, the frame has roll and pitch
        to_imu = (_about_y(packet[4]) @ _about_x(packet[3])).T
        twist = np.concatenate([to_imu @ packet[8:11], to_imu @ packet[20:23]])
        return self._to_first @ self._on_earth(packet), twist

    def _on_earth(self, packet: Matrix) -> Matrix:
        """Pose [4, 4] in the Mercator projection: x to the east, y to the north, z up."""
        latitude, longitude, altitude, roll, pitch, yaw = packet[:6]
        x = np.radians(longitude)
        y = np.log(np.tan(np.radians(90 + latitude) / 2))
        place = np.array([*(self._scale * EARTH_RADIUS * np.array([x, y])), altitude])
        return rigid(_about_z(yaw) @ _about_y(pitch) @ _about_x(roll), place)


def _about_x(angle: float) -> Matrix:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> Matrix:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> Matrix:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
