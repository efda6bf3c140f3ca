"""Results in metres to messages, see `SpatialFrame`.

They return None where nothing can be said of a frame: an empty message would say that all is free.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spatial.objects import ObjectTable, RangeSource
from ..spatial.points import POINT_DTYPE, LabelledPoints
from ..spatial.transforms import quaternion_of
from ..visualize import track_color
from .result_messages import Conversions, FrameToPublish

_GEOMETRY = "geometry_msgs/msg"
_FIELD_TYPES = {"<f4": 7, "<u4": 6, "<u2": 4}
"""Of PointField.msg."""
MIN_SIDE = 0.1
"""Metres of a marker's box: a flat one cannot be seen from the side."""
LIFETIME_S = 2
"""Seconds after which viewers remove a marker that has not come again, as when the node ended."""
MIN_SPEED = 0.3
"""Metres per second from which a velocity has a direction."""
_ADD, _DELETE, _DELETE_ALL, _ARROW, _CUBE, _TEXT = 0, 2, 3, 0, 1, 9
_MARKERS = {"boxes": _CUBE, "names": _TEXT, "velocities": _ARROW}


def _header(convert: Conversions, result: FrameToPublish, frame_id: str) -> Any:
    if frame_id == result.header.frame_id:
        return result.header
    return convert.make("std_msgs/msg/Header", stamp=result.header.stamp, frame_id=frame_id)


def _table(result: FrameToPublish) -> ObjectTable | None:
    assert result.spatial is not None
    return result.spatial.objects


def _xyz(convert: Conversions, kind: str, values: NDArray) -> Any:
    x, y, z = map(float, values)
    return convert.make(f"{_GEOMETRY}/{kind}", x=x, y=y, z=z)


def _pose(convert: Conversions, position: NDArray, quaternion: Any = (0.0, 0.0, 0.0, 1.0)) -> Any:
    x, y, z, w = map(float, quaternion)
    turned = convert.make(f"{_GEOMETRY}/Quaternion", x=x, y=y, z=z, w=w)
    point = _xyz(convert, "Point", position)
    return convert.make(f"{_GEOMETRY}/Pose", position=point, orientation=turned)


def object_array(convert: Conversions, result: FrameToPublish) -> Any:
    """TrackedObjectArray of a frame."""
    if (table := _table(result)) is None:
        return None
    objects = [
        convert.make(
            "video_knet_ros/msg/TrackedObject",
            track_id=int(row["track_id"]),
            class_id=int(row["class_id"]),
            class_name=result.classes[row["class_id"]].name,
            state=int(row["state"]),
            score=float(row["score"]),
            position=_xyz(convert, "Point", row["position"]),
            position_covariance=row["position_covariance"].ravel(),
            velocity=_xyz(convert, "Vector3", row["velocity"]),
            velocity_covariance=row["velocity_covariance"].ravel(),
            box_center=_xyz(convert, "Point", row["box_center"]),
            size=_xyz(convert, "Vector3", row["size"]),
            source=int(row["source"]),
            points=int(row["points"]),
            range=float(row["range"]),
            predicted=bool(row["source"] == RangeSource.NONE),
        )
        for row in table.rows
    ]
    return convert.make(
        "video_knet_ros/msg/TrackedObjectArray",
        header=_header(convert, result, table.frame_id),
        tracker_epoch=result.frame.epoch,
        objects=objects,
    )


def detections(convert: Conversions, result: FrameToPublish) -> Any:
    """Detection3DArray of a frame; `id` and `class_id` are those of `Conversions.detections`."""
    if (table := _table(result)) is None:
        return None
    header = _header(convert, result, table.frame_id)
    rows = []
    for row in table.rows:
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = row["position_covariance"]
        hypothesis = convert.make(
            "vision_msgs/msg/ObjectHypothesis",
            class_id=str(row["class_id"]),
            score=float(row["score"]),
        )
        pose = convert.make(
            f"{_GEOMETRY}/PoseWithCovariance",
            pose=_pose(convert, row["position"]),
            covariance=covariance.ravel(),
        )
        found = convert.make(
            "vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=pose
        )
        box = convert.make(
            "vision_msgs/msg/BoundingBox3D",
            center=_pose(convert, row["box_center"]),
            size=_xyz(convert, "Vector3", row["size"]),
        )
        rows.append(
            convert.make(
                "vision_msgs/msg/Detection3D",
                header=header,
                results=[found],
                bbox=box,
                id=f"{result.frame.epoch}/{row['track_id']}",
            )
        )
    return convert.make("vision_msgs/msg/Detection3DArray", header=header, detections=rows)


def markers(convert: Conversions, result: FrameToPublish) -> Any:
    """MarkerArray of boxes, names and velocities; those of a track go when it ends."""
    if (table := _table(result)) is None:
        return None
    header = _header(convert, result, table.frame_id)
    shown = [_marker(convert, header, "", 0, _DELETE_ALL)] if table.is_first else []
    for track in table.ended:
        shown += [_marker(convert, header, name, track, _DELETE) for name in _MARKERS]
    for row in table.rows:
        track = int(row["track_id"])
        color = _color(convert, track, 0.25 if row["source"] == RangeSource.NONE else 0.6)
        box = _marker(convert, header, "boxes", track)
        box.pose = _pose(convert, row["box_center"])
        box.scale = _xyz(convert, "Vector3", np.maximum(row["size"], MIN_SIDE))
        name = _marker(convert, header, "names", track)
        name.pose = _pose(convert, row["box_center"])
        name.scale = _xyz(convert, "Vector3", np.array([0.0, 0.0, 0.4]))
        speed = float(np.linalg.norm(row["velocity"]))
        known = "" if math.isnan(speed) else f" {speed:.1f} m/s"
        class_name = result.classes[row["class_id"]].name
        name.text = f"{class_name} {track}  {row['range']:.1f} m{known}"
        arrow = _marker(convert, header, "velocities", track)
        if speed >= MIN_SPEED:
            ends = row["box_center"], row["box_center"] + row["velocity"]
            arrow.points = [_xyz(convert, "Point", end) for end in ends]
            arrow.scale = _xyz(convert, "Vector3", np.array([0.1, 0.25, 0.3]))
        else:
            arrow.action = _DELETE
        box.color, name.color, arrow.color = color, _color(convert, track, 1.0), color
        shown += [box, name, arrow]
    return convert.make("visualization_msgs/msg/MarkerArray", markers=shown)


def _marker(
    convert: Conversions, header: Any, namespace: str, track: int, action: int = _ADD
) -> Any:
    zero = np.zeros(3)
    return convert.make(
        "visualization_msgs/msg/Marker",
        header=header,
        ns=namespace,
        id=track % (1 << 31),
        type=_MARKERS.get(namespace, _CUBE),
        action=action,
        pose=_pose(convert, zero),
        scale=_xyz(convert, "Vector3", zero),
        color=_color(convert, 0, 0.0),
        lifetime=convert.make("builtin_interfaces/msg/Duration", sec=LIFETIME_S, nanosec=0),
        frame_locked=False,
        points=[],
        colors=[],
        texture_resource="",
        texture=convert.make(
            "sensor_msgs/msg/CompressedImage",
            header=header,
            format="",
            data=convert.sequence("B", memoryview(b"")),
        ),
        uv_coordinates=[],
        text="",
        mesh_resource="",
        mesh_file=convert.make(
            "visualization_msgs/msg/MeshFile",
            filename="",
            data=convert.sequence("B", memoryview(b"")),
        ),
        mesh_use_embedded_materials=False,
    )


def _color(convert: Conversions, track: int, opacity: float) -> Any:
    r, g, b = (channel / 255 for channel in track_color(track))
    return convert.make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=opacity)


def followed_pose(convert: Conversions, result: FrameToPublish) -> Any:
    """PoseStamped of the track to follow; it looks along its motion, else away from the camera.

    None while its place is only predicted: a robot must not drive after what it does not see.
    """
    spatial, table = result.spatial, _table(result)
    assert spatial is not None
    if table is None:
        return None
    (rows,) = np.nonzero(table.rows["track_id"] == spatial.followed)
    if not len(rows):
        return None
    row = table.rows[rows[0]]
    if row["source"] == RangeSource.NONE:
        return None
    ahead = row["velocity"]
    if not np.linalg.norm(ahead) >= MIN_SPEED:
        ahead = row["position"] - spatial.to_target[:3, 3]
    pose = _pose(convert, row["position"], _heading(ahead, spatial.to_target))
    header = _header(convert, result, table.frame_id)
    return convert.make(f"{_GEOMETRY}/PoseStamped", header=header, pose=pose)


def _heading(ahead: NDArray, to_target: NDArray) -> NDArray:
    """Quaternion of the axes x along `ahead`, in the horizontal plane, and z up.

    Up is the z axis of the target frame, or against the y axis of the camera where it is that.
    """
    is_camera = np.array_equal(to_target, np.eye(4))
    up = np.array([0.0, -1.0, 0.0]) if is_camera else np.array([0.0, 0.0, 1.0])
    flat = ahead - up * (ahead @ up)
    length = np.linalg.norm(flat)
    if not length > 1e-6:
        return np.array([0.0, 0.0, 0.0, 1.0])
    x = flat / length
    return quaternion_of(np.stack([x, np.cross(up, x), up], axis=1))


def points(convert: Conversions, result: FrameToPublish) -> Any:
    """PointCloud2 of all points, in the frame of the camera."""
    assert result.spatial is not None
    return _cloud(convert, result, result.spatial.points)


def obstacles(convert: Conversions, result: FrameToPublish) -> Any:
    """PointCloud2 of things and of what cannot be driven on."""
    assert result.spatial is not None
    return _cloud(convert, result, result.spatial.obstacles)


def free_space(convert: Conversions, result: FrameToPublish) -> Any:
    """PointCloud2 of the ground."""
    assert result.spatial is not None
    return _cloud(convert, result, result.spatial.free_space)


def _cloud(convert: Conversions, result: FrameToPublish, found: LabelledPoints | None) -> Any:
    if found is None:
        return None
    array = found.array()
    height, width = found.size or (1, len(array))
    assert POINT_DTYPE.fields is not None
    fields = [
        convert.make(
            "sensor_msgs/msg/PointField",
            name=name,
            offset=offset,
            datatype=7 if name == "rgb" else _FIELD_TYPES[dtype.str],
            count=1,
        )
        for name, (dtype, offset, *_) in POINT_DTYPE.fields.items()
    ]
    return convert.make(
        "sensor_msgs/msg/PointCloud2",
        header=result.header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=False,
        point_step=POINT_DTYPE.itemsize,
        row_step=POINT_DTYPE.itemsize * width,
        data=convert.sequence("B", array.view(np.uint8).data),
        is_dense=found.size is None,
    )


def camera_info(convert: Conversions, result: FrameToPublish) -> Any:
    """The CameraInfo of the image, for its masks."""
    assert result.spatial is not None
    info = result.spatial.camera_info
    if info is None:
        return None
    names = ("height", "width", "distortion_model", "binning_x", "binning_y", "roi")
    values = {name: getattr(info, name) for name in names}
    for name in "dkrp":  # in ROS 1 their names are capital letters
        values[name] = getattr(info, name if hasattr(info, name) else name.upper())
    return convert.make("sensor_msgs/msg/CameraInfo", header=result.header, **values)
