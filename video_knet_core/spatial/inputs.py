"""The recent messages of the sensors: depth images, clouds, camera infos and transforms.

Messages are stored as they come, by the executor's thread, and read by the inference thread when a
frame needs them: one that no frame needs costs nothing but its memory.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..messages.spatial_messages import Cloud, cloud_points, depth_image
from .camera_model import CameraModel, SpatialError
from .settings import SpatialSettings
from .transforms import TransformBuffer

KEPT_DEPTH, KEPT_CLOUDS = 32, 16
"""Messages that are kept: as many as come, at 30 and 10 Hz, in the second that an image may wait
for a slow model, or in a replay for those that it is put in order with."""
ALIVE_NS = 1_000_000_000
"""Nanoseconds since its last message after which a sensor counts as stopped."""

_MIN_PIXEL, _MIN_POINT = 2, 12
"""Bytes of a pixel of depth, and of a point of a cloud."""


class SpatialInputs:
    """The recent messages of one camera; those of `add_*` are of rclpy or rosbags."""

    def __init__(self) -> None:
        self.transforms = TransformBuffer()
        self.counts: Counter[str] = Counter()
        """Messages that were used, missing or faulty, by words."""
        self._reasons: dict[str, str] = {}
        self._earlier_reasons: dict[str, str] = {}
        self._depth: deque[Any] = deque(maxlen=KEPT_DEPTH)
        self._decoded_size: tuple[int, int] | None = None
        self._clouds: deque[Any] = deque(maxlen=KEPT_CLOUDS)
        self._infos: dict[str, Any] = {}
        self._cameras: dict[str, tuple[Any, bool, CameraModel]] = {}
        self._resized: dict[tuple[str, int, int], tuple[CameraModel, CameraModel]] = {}

    def add_depth(self, message: Any) -> None:
        """Add an Image or CompressedImage."""
        self._depth.append(message)

    def add_cloud(self, message: Any) -> None:
        """Add a PointCloud2."""
        self._clouds.append(message)

    def add_camera_info(self, message: Any) -> None:
        """Add the CameraInfo of the images."""
        self._infos["camera info"] = message

    def add_depth_info(self, message: Any) -> None:
        """Add the CameraInfo of the depth images, for those that are not aligned to the images."""
        self._infos["depth camera info"] = message

    def add_odometry(self, message: Any) -> None:
        """Add an Odometry: a transform between its two frames."""
        self._add_transforms(self.transforms.add_odometry(message))

    def add_transforms(self, message: Any, static: bool = False) -> None:
        """Add a TFMessage."""
        self._add_transforms(self.transforms.add_message(message, static))

    def _add_transforms(self, faulty: int) -> None:
        if faulty:
            self.counts["transforms failed"] += faulty
            self._reasons["transforms"] = self.transforms.last_fault

    def forget_sensors(self) -> None:
        """Free the depth images and clouds."""
        self._depth.clear()
        self._clouds.clear()

    def begin_frame(self) -> None:
        """Forget the reasons of all frames but the last one."""
        self._earlier_reasons, self._reasons = self._reasons, {}

    @property
    def reasons(self) -> dict[str, str]:
        """Why inputs and outputs of this frame and the last one could not be used, by name."""
        return {**self._earlier_reasons, **self._reasons}

    @property
    def camera_info(self) -> Any:
        """The newest CameraInfo of the images; None if none has come."""
        return self._infos.get("camera info")

    @property
    def depth_size(self) -> tuple[int, int] | None:
        """Height and width of the last depth image; None before the first."""
        newest = self._depth[-1] if self._depth else None
        if newest is not None and hasattr(newest, "height") and _is_whole(newest, _MIN_PIXEL):
            return int(newest.height), int(newest.width)
        return self._decoded_size  # that of a compressed one is known when it was read

    @property
    def depth_frame(self) -> str:
        """Frame of the last depth image; empty before the first."""
        return str(self._depth[-1].header.frame_id) if self._depth else ""

    @property
    def cloud_size(self) -> tuple[int, int] | None:
        """Height and width of the last cloud; None before the first, and of unorganised ones."""
        newest = self._clouds[-1] if self._clouds else None
        if newest is None or newest.height < 2 or not _is_whole(newest, _MIN_POINT):
            return None
        return int(newest.height), int(newest.width)

    # --- of one image

    def camera(
        self, settings: SpatialSettings, size: tuple[int, int], name: str = "camera info"
    ) -> CameraModel:
        """The camera by the newest info, for an image of this size (H, W).

        SpatialError if there is none, if it cannot be used, or if the aspect is another one.
        """
        message = self._infos.get(name)
        if message is None:
            raise SpatialError(f"no {name} has come")
        kept = self._cameras.get(name)
        try:
            if kept is None or kept[1] != settings.rectified or not _same(kept[0], message):
                camera = CameraModel.from_message(message, settings.rectified)
                self._cameras[name] = kept = message, settings.rectified, camera
            return self._of_size(name, kept[2], *size)
        except SpatialError as error:
            raise SpatialError(f"{name}: {error}") from None

    def _of_size(self, name: str, camera: CameraModel, height: int, width: int) -> CameraModel:
        if (camera.height, camera.width) == (height, width):
            return camera
        if not same_aspect((camera.height, camera.width), (height, width)):
            raise SpatialError(
                f"expected the aspect of the image, {width} x {height}, "
                f"got {camera.width} x {camera.height}"
            )
        kept = self._resized.get((name, height, width))
        if kept is None or kept[0] is not camera:
            kept = camera, camera.resized(height, width)
            self._resized = {(name, height, width): kept, **dict(list(self._resized.items())[:3])}
        return kept[1]

    def depth(self, stamp: int, settings: SpatialSettings) -> tuple[Any, str] | None:
        """Depth [H, W] in metres of an image of this stamp [ns], and its frame; None without."""
        message = self._nearest("depth", self._depth, stamp, settings.depth_tolerance_ms)
        found = self._read("depth", message, _read_depth)
        if found is not None:
            self._decoded_size = found[0].shape
        return found

    def cloud(self, stamp: int, settings: SpatialSettings) -> tuple[Cloud, int] | None:
        """The cloud of an image of this stamp [ns], and its own stamp; None without."""
        message = self._nearest("cloud", self._clouds, stamp, settings.cloud_tolerance_ms)
        return self._read("cloud", message, _read_cloud)

    def is_coming(self, stamp: int, settings: SpatialSettings) -> bool:
        """Whether the depth of an image of this stamp [ns] is not here but likely to come: the
        sensor's last message is older than the image, but not by much."""
        sensors = (
            (self._depth, settings.depth_tolerance_ms),
            (self._clouds, settings.cloud_tolerance_ms),
        )
        for messages, tolerance_ms in sensors:
            stamps = [_stamp(message) for message in tuple(messages)]
            if not stamps or max(stamps) <= stamp - ALIVE_NS:
                continue
            if min(abs(other - stamp) for other in stamps) <= tolerance_ms * 1e6:
                return False
            if max(stamps) < stamp:
                return True
        return False

    def note(self, name: str, reason: str) -> None:
        """Record whether an input could be used: an empty `reason` if it could."""
        self.counts[f"{name} {'failed' if reason else 'used'}"] += 1
        if reason:
            self._reasons[name] = reason
        else:
            self._earlier_reasons.pop(name, None)

    def _nearest(self, name: str, messages: deque[Any], stamp: int, tolerance_ms: float) -> Any:
        """The message that is nearest to a stamp, within the tolerance."""
        stamped = [(abs(_stamp(m) - stamp), m) for m in tuple(messages)]
        if not stamped:
            return None  # there is no such sensor
        distance, message = min(stamped, key=lambda pair: pair[0])
        if distance > tolerance_ms * 1e6:
            self.counts[f"{name} missing"] += 1
            self._reasons[name] = (
                f"expected {name} within {tolerance_ms:g} ms of the image, "
                f"got one {distance / 1e6:.1f} ms away"
            )
            return None
        return message

    def _read(self, name: str, message: Any, read: Any) -> Any:
        if message is None:
            return None
        try:
            found = read(message)
        except SpatialError as error:
            self.note(name, str(error))
            return None
        self.note(name, "")
        return found


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) show the same field of view, to 1 %."""
    return abs(a[1] * b[0] - b[1] * a[0]) <= 0.01 * a[1] * b[0]


def _read_depth(message: Any) -> tuple[NDArray[np.float32], str]:
    depth = depth_image(message)
    _check_measured(depth)
    return depth, str(message.header.frame_id)


def _read_cloud(message: Any) -> tuple[Cloud, int]:
    cloud = cloud_points(message)
    _check_measured(cloud.points)
    return cloud, _stamp(message)


def _check_measured(values: NDArray[np.float32]) -> None:
    """SpatialError if all are unknown, as of a covered sensor: it would look like free space."""
    if not np.isfinite(values).any():
        raise SpatialError("expected at least one valid distance, got none")


def _stamp(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _is_whole(message: Any, size: int) -> bool:
    """Whether a message has pixels or points, of at least `size` bytes, and all of them."""
    return 0 < int(message.height) * int(message.width) * size <= len(message.data)


def _same(a: Any, b: Any) -> bool:
    """Whether two camera infos are of one calibration: most drivers send it with each image."""
    if a is b:
        return True
    names = ("height", "width", "distortion_model", "binning_x", "binning_y")
    if any(getattr(a, name, None) != getattr(b, name, None) for name in names):
        return False
    lists = ("k", "d", "p", "K", "D", "P")
    if any(list(getattr(a, name, ())) != list(getattr(b, name, ())) for name in lists):
        return False
    regions = ("x_offset", "y_offset", "height", "width")
    same_roi = all(getattr(a.roi, name) == getattr(b.roi, name) for name in regions)
    return same_roi and a.header.frame_id == b.header.frame_id
