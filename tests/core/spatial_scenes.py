"""Tracked things before a camera, and the messages of its sensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_knet_core.geometry import LabelMap, NearestUpsampling
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.spatial.objects import ObjectTable
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.spatial.spatial_frame import SpatialFrame
from video_knet_core.spatial.transforms import quaternion_of
from video_knet_core.types import (
    ClassInfo,
    ClassTable,
    PanopticFrame,
    StageTimes,
    Track,
    TrackState,
    TrackTable,
)

SECOND = 1_000_000_000
ROAD, PERSON, VEHICLE = 0, 1, 2
CLASSES = ClassTable(
    ClassInfo(number, name, name != "road", (number, number, number))
    for number, name in enumerate(("road", "person", "vehicle"))
)


def thing(
    label: int,
    track_id: int,
    class_id: int = PERSON,
    *,
    box: tuple[int, int, int, int] = (0, 0, 0, 0),
    is_thing: bool = True,
    state: TrackState = TrackState.CONFIRMED,
    score: float = 0.9,
) -> Track:
    """A row of a frame's table; coasted ones have label 0."""
    return Track(
        label, track_id, class_id, is_thing, state, score, score, 1, 0, 0, box,
        (0.0, 0.0), (0.0, 0.0), box[2] * box[3], False,
    )  # fmt: skip


def frame_of(
    labels: LabelMap, tracks: Sequence[Track], stamp: int = 0, epoch: int = 1
) -> PanopticFrame:
    times = StageTimes(0, 0, 0, 0)
    return PanopticFrame(stamp, labels, TrackTable.of(tracks), (), (), epoch, times)


# --- messages ------------------------------------------------------------------------------------


def header(stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    seconds, nanoseconds = divmod(stamp, SECOND)
    return SimpleNamespace(
        frame_id=frame_id, stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)
    )


def camera_info(
    size: tuple[int, int], focal: float, frame_id: str = "camera", **changes: Any
) -> SimpleNamespace:
    """Of a camera without distortion, whose axis is in the middle of the image (H, W)."""
    height, width = size
    k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    fields = {
        "header": header(0, frame_id),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": k,
        "r": list(np.eye(3).ravel()),
        "p": [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    return SimpleNamespace(**{**fields, **changes})


def depth_message(depth: NDArray, stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    """Of metres [H, W]."""
    pixels = np.ascontiguousarray(depth, "<f4")
    return SimpleNamespace(
        header=header(stamp, frame_id),
        height=depth.shape[0],
        width=depth.shape[1],
        encoding="32FC1",
        is_bigendian=0,
        step=4 * depth.shape[1],
        data=pixels.tobytes(),
    )


def cloud_message(points: NDArray, stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    """Of points [N, 3]."""
    data = np.ascontiguousarray(points, "<f4")
    axes = enumerate("xyz")
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7, count=1) for i, n in axes]
    return SimpleNamespace(
        header=header(stamp, frame_id),
        height=1,
        width=len(data),
        fields=fields,
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(data),
        data=data.tobytes(),
    )


def odometry_message(
    pose: NDArray, stamp: int, child: str = "camera", parent: str = "odom"
) -> SimpleNamespace:
    """Of a pose [4, 4] of the child in the parent."""
    x, y, z = pose[:3, 3]
    qx, qy, qz, qw = quaternion_of(pose[:3, :3])
    inner = SimpleNamespace(
        position=SimpleNamespace(x=x, y=y, z=z),
        orientation=SimpleNamespace(x=qx, y=qy, z=qz, w=qw),
    )
    return SimpleNamespace(
        header=header(stamp, parent), child_frame_id=child, pose=SimpleNamespace(pose=inner)
    )


# --- balls before a camera -----------------------------------------------------------------------

SIZE = (120, 160)
"""Of images and depth; label maps are half as large."""
FOCAL = 160.0
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From the optical axes of a level camera to forward, left, up."""


class Ball(NamedTuple):
    """A thing in the fixed frame."""

    track_id: int
    center: Sequence[float]
    radius: float = 0.5


def pose_of(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, height: float = 1.5) -> NDArray:
    """[4, 4] of a level camera in a fixed frame, by where it is and looks [rad]."""
    pose = np.eye(4)
    turn = np.array([[cos(yaw), -sin(yaw), 0], [sin(yaw), cos(yaw), 0], [0, 0, 1]])
    pose[:3, :3], pose[:3, 3] = turn @ OPTICAL, (x, y, height)
    return pose


def depth_of(pose: NDArray, balls: Sequence[Ball]) -> tuple[NDArray, NDArray]:
    """Exact depth [H, W], NaN beside the balls, and which ball is seen [H, W]; 0 = none."""
    v, u = np.indices(SIZE)
    rays = np.stack([(u - 79.5) / FOCAL, (v - 59.5) / FOCAL, np.ones(SIZE)], axis=-1)
    depth, number = np.full(SIZE, np.inf), np.zeros(SIZE, np.uint16)
    for label, ball in enumerate(balls, start=1):
        center = pose[:3, :3].T @ (np.asarray(ball.center, float) - pose[:3, 3])
        a, b = (rays**2).sum(-1), rays @ center
        root = b**2 - a * (center @ center - ball.radius**2)
        z = (b - np.sqrt(np.maximum(root, 0))) / a
        nearer = (root > 0) & (z > 0) & (z < depth)
        depth[nearer], number[nearer] = z[nearer], label
    return np.where(number > 0, depth, np.nan), number


class Scene:
    """Balls that an `ObjectLocator` with these settings is shown."""

    def __init__(self, **settings: Any) -> None:
        self.locator = ObjectLocator(CLASSES, SpatialSettings(**settings))
        self.inputs = self.locator.inputs
        self.inputs.add_camera_info(camera_info(SIZE, FOCAL))

    def frame(
        self, balls: Sequence[Ball], pose: NDArray, stamp: int = 0, epoch: int = 1
    ) -> PanopticFrame:
        """What a perfect model makes of the image; balls that cannot be seen are coasted."""
        _, number = depth_of(pose, balls)
        small = number[::2, ::2]
        labels = LabelMap(small, NearestUpsampling(small.shape, SIZE))
        regions = labels.upsampling.measure(small, len(balls))
        tracks = [
            thing(
                label if area else 0,
                ball.track_id,
                box=tuple(box),
                state=TrackState.CONFIRMED if area else TrackState.COASTED,
            )
            for label, (ball, area, box) in enumerate(
                zip(balls, regions.areas, regions.boxes.tolist(), strict=True), start=1
            )
        ]
        return frame_of(labels, tracks, stamp, epoch)

    def show(
        self,
        balls: Sequence[Ball],
        stamp: int = 0,
        pose: NDArray | None = None,
        depth: bool = True,
        epoch: int = 1,
    ) -> SpatialFrame:
        """A frame, after the messages of its time."""
        pose = pose_of() if pose is None else pose
        self.inputs.add_odometry(odometry_message(pose, stamp))
        if depth:
            self.inputs.add_depth(depth_message(depth_of(pose, balls)[0], stamp))
        frame = self.frame(balls, pose, stamp, epoch)
        return self.locator.locate(frame, np.zeros((*SIZE, 3), np.uint8), "camera", stamp)

    def table(self, *args: Any, **kwargs: Any) -> ObjectTable:
        """The objects of a frame, see `show`."""
        table = self.show(*args, **kwargs).objects
        assert table is not None, self.inputs.reasons
        return table
