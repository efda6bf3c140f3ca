"""What is known of frames in space to messages: depth, the camera, its odometry, transforms.

For the video source and for bags; `Conversions` has the message classes of one ROS library.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.frame_source import Intrinsics, View
from ..spatial.transforms import quaternion_of
from .result_messages import Conversions

CAMERA_INFO, ODOMETRY = "sensor_msgs/msg/CameraInfo", "nav_msgs/msg/Odometry"
TRANSFORM = "geometry_msgs/msg/TransformStamped"
ODOM_FRAME = "odom"


def depth_image(convert: Conversions, header: Any, depth: NDArray[np.float32]) -> Any:
    """Image of `depth` [H, W] in metres, 0 = unknown; in the message that is NaN (REP 118)."""
    pixels = np.where(depth > 0, depth, np.float32(np.nan)).astype("<f4", copy=False)
    return convert.image_message(header, "32FC1", pixels)


def camera_info(
    convert: Conversions, header: Any, camera: Intrinsics, size: tuple[int, ...]
) -> Any:
    """CameraInfo of rectified images of `size` (H, W)."""
    rows = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
    matrix = np.array(rows, np.float64)
    region = convert.find("sensor_msgs/msg/RegionOfInterest")
    return convert.find(CAMERA_INFO)(
        header=header,
        height=size[0],
        width=size[1],
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def odometry(
    convert: Conversions,
    header: Any,
    child_frame_id: str,
    pose: NDArray[np.float64],
    twist: NDArray[np.float64],
) -> Any:
    """Odometry of a body, with unknown covariances, which are 0.

    Args:
        convert: to the message.
        header: with the fixed frame as its frame_id.
        child_frame_id: the frame of the body.
        pose: [4, 4] from the frame of the body to the fixed one.
        twist: [6] velocity [m/s] and angular velocity [rad/s], in the frame of the body.
    """
    position, orientation = _parts(convert, "Point", pose)
    vector = convert.find("geometry_msgs/msg/Vector3")
    linear, angular = (vector(**_fields("xyz", part)) for part in (twist[:3], twist[3:]))
    pose_of = convert.find("geometry_msgs/msg/Pose")(position=position, orientation=orientation)
    twist_of = convert.find("geometry_msgs/msg/Twist")(linear=linear, angular=angular)
    unknown = np.zeros(36)
    return convert.find(ODOMETRY)(
        header=header,
        child_frame_id=child_frame_id,
        pose=convert.find("geometry_msgs/msg/PoseWithCovariance")(pose=pose_of, covariance=unknown),
        twist=convert.find("geometry_msgs/msg/TwistWithCovariance")(
            twist=twist_of, covariance=unknown
        ),
    )


def transform(
    convert: Conversions, header: Any, child_frame_id: str, matrix: NDArray[np.float64]
) -> Any:
    """Transform of TF: `matrix` [4, 4] maps from the child frame to that of the header."""
    translation, rotation = _parts(convert, "Vector3", matrix)
    parts = convert.find("geometry_msgs/msg/Transform")(translation=translation, rotation=rotation)
    return convert.find(TRANSFORM)(header=header, child_frame_id=child_frame_id, transform=parts)


def view_odometry(convert: Conversions, header: Any, view: View, earlier: View | None) -> Any:
    """Odometry of the camera of `view`, which has a pose; `header` is that of its image.

    The twist is the mean one since `earlier`; 0 without a pose there, or where the video began
    again.
    """
    assert view.pose is not None
    twist: NDArray[np.float64] = np.zeros(6)
    if earlier is not None and earlier.pose is not None and view.stamp > earlier.stamp:
        twist = _motion(earlier.pose, view.pose) / ((view.stamp - earlier.stamp) * 1e-9)
    fixed = convert.find("std_msgs/msg/Header")(stamp=header.stamp, frame_id=ODOM_FRAME)
    return odometry(convert, fixed, header.frame_id, view.pose, twist)


def _motion(earlier: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """[6] translation and rotation vector between two poses [4, 4] of a body, in its frame at the
    later one."""
    linear = pose[:3, :3].T @ (pose[:3, 3] - earlier[:3, 3])
    return np.concatenate([linear, _rotation_vector(earlier[:3, :3].T @ pose[:3, :3])])


def _parts(convert: Conversions, kind: str, matrix: NDArray[np.float64]) -> tuple[Any, Any]:
    """Translation, as a message of geometry_msgs, and rotation of a matrix [4, 4]."""
    translation = convert.find(f"geometry_msgs/msg/{kind}")(**_fields("xyz", matrix[:3, 3]))
    quaternion = quaternion_of(matrix[:3, :3])
    rotation = convert.find("geometry_msgs/msg/Quaternion")(**_fields("xyzw", quaternion))
    return translation, rotation


def _rotation_vector(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3] axis times angle [rad] of a matrix [3, 3]."""
    return np.asarray(cv2.Rodrigues(np.ascontiguousarray(rotation))[0], np.float64).ravel()


def _fields(names: str, values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
