"""Depth images and point clouds to metres: the forms in which cameras and lidars send them.

Raw depth is as REP 118 has it. compressedDepth is that of image_transport_plugins: a header of an
int32 (the format) and two float32 (the quantisation), then a file.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core.messages.image_messages import (
    ENCODINGS,
    PNG_START,
    ImageError,
    check_file,
    check_size,
    decode_file,
    pixel_rows,
)
from video_knet_core.spatial.camera_model import SpatialError

_MONO = ENCODINGS["mono16"]
_DEPTHS = {
    "16UC1": _MONO,
    "mono16": _MONO,
    "32FC1": _MONO._replace(dtype=np.float32),
    "64FC1": _MONO._replace(dtype=np.float64),
}
"""Encoding of a depth image -> how a row is laid out; whole numbers are millimetres."""
_HEADER = struct.Struct("<iff")
_FLOATS = {7: "f4", 8: "f8"}
"""Datatype of a sensor_msgs/PointField -> that of NumPy."""


class Cloud(NamedTuple):
    """Points of a sensor in metres."""

    points: NDArray[np.float32]
    """[N, 3], row by row; NaN where the sensor has no point."""
    size: tuple[int, int] | None
    """Height and width of an organised cloud."""
    frame_id: str
    """Of the axes."""


def depth_image(message: Any) -> NDArray[np.float32]:
    """Depth of an Image or CompressedImage in metres [H, W], NaN where it is unknown.

    Raises:
        SpatialError: the message does not hold depth, is damaged or too large.
    """
    try:  # a CompressedImage has a format instead of an encoding
        return _raw_depth(message) if hasattr(message, "encoding") else _decompress(message)
    except ImageError as error:
        raise SpatialError(f"depth image: {error}") from None
    except cv2.error as error:
        raise SpatialError(f"OpenCV cannot decode the depth: {' '.join(str(error).split())}") from (
            error
        )


def _raw_depth(message: Any) -> NDArray[np.float32]:
    if message.encoding not in _DEPTHS:
        raise SpatialError(
            f"encoding: expected one of {', '.join(_DEPTHS)}, got {message.encoding!r}"
        )
    encoding = _DEPTHS[message.encoding]
    check_size(message, encoding)
    return _to_metres(pixel_rows(message, encoding)[..., 0])


def _to_metres(values: NDArray) -> NDArray[np.float32]:
    """Depth of millimetres (whole numbers) or metres; NaN of what is no distance."""
    with np.errstate(over="ignore"):
        depth = values.astype(np.float32)
    if values.dtype.kind == "u":
        depth *= np.float32(0.001)
    depth[~((depth > 0) & (depth < np.inf))] = np.nan
    return depth


def _decompress(message: Any) -> NDArray[np.float32]:
    """A compressed depth image.

    Its `format` is "ENCODING; compressedDepth CODEC", without a codec from older senders, or that
    of a PNG file of millimetres: "ENCODING; png compressed TARGET" or only "png".
    """
    name, _, rest = (part.strip() for part in message.format.partition(";"))
    data = bytes(message.data)
    if "compressedDepth" not in message.format:
        if (rest or name).split(" ")[0] != "png" or name not in ("16UC1", "mono16", "png"):
            raise SpatialError(
                f"format: expected compressedDepth or a png of 16UC1, got {message.format!r}"
            )
        return _to_metres(_decode_png(data))
    codec = rest.partition("compressedDepth")[2].strip() or "png"
    if codec != "png" or name not in ("16UC1", "32FC1"):
        raise SpatialError(
            f"format: expected compressedDepth png of 16UC1 or 32FC1, got {message.format!r}; "
            "of the codecs png and rvl only png is supported"
        )
    if len(data) < _HEADER.size:
        raise SpatialError(f"data: expected a header of {_HEADER.size} bytes, got {len(data)}")
    _, quantum, offset = _HEADER.unpack_from(data)
    values = _decode_png(data[_HEADER.size :])
    if name == "16UC1":
        return _to_metres(values)
    with np.errstate(all="ignore"):
        inverse = np.float32(quantum) / (values.astype(np.float32) - np.float32(offset))
    return _to_metres(np.where(values > 0, inverse, np.nan))


def _decode_png(data: bytes) -> NDArray[np.uint16]:
    if not data.startswith(PNG_START):
        raise SpatialError(f"data: expected a PNG file, got {data[: len(PNG_START)]!r}")
    check_file(data)
    values = decode_file(data)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise SpatialError(
            f"data: expected a PNG of one 16-bit value per pixel, got {values.dtype} of shape "
            f"{values.shape}"
        )
    return values


def cloud_points(message: Any) -> Cloud:
    """Points of a sensor_msgs/PointCloud2; those that are not finite or all zero become NaN.

    float32 points that are all valid are not copied: the result is a view of the message's memory.

    Raises:
        SpatialError: fields are missing, or the sizes contradict each other.
    """
    height, width = int(message.height), int(message.width)
    frame_id, size = str(message.header.frame_id), (height, width) if height > 1 else None
    if not height * width:
        return Cloud(np.zeros((0, 3), np.float32), size, frame_id)
    _check_layout(message)
    order = ">" if message.is_bigendian else "<"
    axes = [_axis(message, name, order) for name in "xyz"]
    points = _without_invalid(_stack(message, axes).reshape(-1, 3))
    return Cloud(points, size, frame_id)


def _check_layout(message: Any) -> None:
    step, row = message.point_step, message.width * message.point_step
    if message.row_step < row:
        raise SpatialError(
            f"row_step: expected at least {row} bytes for {message.width} points of {step} bytes, "
            f"got {message.row_step}"
        )
    if len(message.data) != message.height * message.row_step:
        raise SpatialError(
            f"data: expected {message.height * message.row_step} bytes for {message.height} rows "
            f"of {message.row_step} bytes, got {len(message.data)}"
        )


def _axis(message: Any, name: str, order: str) -> tuple[int, np.dtype]:
    """Offset and type of a coordinate."""
    field = next((field for field in message.fields if field.name == name), None)
    if field is None:
        names = [field.name for field in message.fields]
        raise SpatialError(f"fields: expected x, y and z, got {names}")
    if field.datatype not in _FLOATS:
        raise SpatialError(
            f"fields: expected {name} of datatype 7 (FLOAT32) or 8 (FLOAT64), got {field.datatype}"
        )
    dtype = np.dtype(order + _FLOATS[field.datatype])
    if field.offset + dtype.itemsize > message.point_step:
        raise SpatialError(
            f"point_step: expected at least {field.offset + dtype.itemsize} bytes for the field "
            f"{name}, got {message.point_step}"
        )
    return field.offset, dtype


def _stack(message: Any, axes: list[tuple[int, np.dtype]]) -> NDArray[np.float32]:
    """The coordinates [H, W, 3]: one view where they are float32 side by side."""
    shape, strides = (message.height, message.width), (message.row_step, message.point_step)
    (start, dtype), *_ = axes
    if dtype == np.float32 and axes == [(start + 4 * n, dtype) for n in range(3)]:
        view: NDArray = np.ndarray((*shape, 3), dtype, message.data, start, (*strides, 4))
        return np.require(view, requirements="A")
    with np.errstate(over="ignore"):
        columns: list[NDArray] = [
            np.ndarray(shape, dtype, message.data, offset, strides).astype(np.float32)
            for offset, dtype in axes
        ]
    return np.stack(columns, axis=-1)


def _without_invalid(points: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y, z = (np.abs(axis) for axis in points.T)
    with np.errstate(over="ignore"):
        total = x + y + z
    is_valid = (total > 0) & (total < np.inf)
    if is_valid.all():
        return points
    return np.where(is_valid[:, None], points, np.float32(np.nan))
