"""Depth images and point clouds: a known distance in every form, and messages without one."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from video_knet_core.messages.image_messages import MAX_PIXELS, PNG_START
from video_knet_core.messages.spatial_messages import cloud_points, depth_image
from video_knet_core.spatial.camera_model import SpatialError

ROS1, ROS2 = (get_typestore(store).types for store in (Stores.ROS1_NOETIC, Stores.ROS2_HUMBLE))
MILLIMETRES = np.array([[0, 1000, 2500], [1, 65535, 4000]], np.uint16)
METRES = np.array([[np.nan, 1, 2.5], [0.001, 65.535, 4]], np.float32)
FLOAT32, FLOAT64 = 7, 8


def image(pixels: NDArray, encoding: str, padding: int = 0, bigendian: int = 0) -> SimpleNamespace:
    """Message whose rows are followed by `padding` bytes of noise."""
    height, width = pixels.shape
    sent = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<"))
    rows = np.frombuffer(sent.tobytes(), np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 0xA5, np.uint8)])
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=bigendian,
        data=rows.tobytes(),
    )


def png(pixels: NDArray) -> bytes:
    ok, data = cv2.imencode(".png", pixels)
    assert ok
    return data.tobytes()


def compressed(data: bytes, declaration: str) -> SimpleNamespace:
    return SimpleNamespace(format=declaration, data=data)


def compressed_depth(pixels: NDArray, a: float = 0, b: float = 0) -> bytes:
    """The header of image_transport_plugins and a file."""
    return struct.pack("<iff", 1, a, b) + png(pixels)


def cloud(
    points: NDArray,
    size: tuple[int, int] | None = None,
    fields: tuple[tuple[str, int, int], ...] = (("x", 0, 7), ("y", 4, 7), ("z", 8, 7)),
    point_step: int = 12,
    padding: int = 0,
    bigendian: bool = False,
) -> SimpleNamespace:
    """Message of points [N, 3] whose other bytes are noise; `fields` are name, offset, datatype."""
    height, width = size or (1, len(points))
    data = np.full((height, width * point_step + padding), 0xA5, np.uint8)
    for name, offset, datatype in fields:
        if name in "xyz":
            dtype = np.dtype(("<", ">")[bigendian] + {FLOAT32: "f4", FLOAT64: "f8"}[datatype])
            strides = (data.shape[1], point_step)
            axis: NDArray = np.ndarray((height, width), dtype, data.data, offset, strides)
            axis[:] = points[:, "xyz".index(name)].reshape(height, width)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="lidar"),
        height=height,
        width=width,
        fields=[SimpleNamespace(name=n, offset=o, datatype=d, count=1) for n, o, d in fields],
        is_bigendian=bigendian,
        point_step=point_step,
        row_step=data.shape[1],
        data=data.tobytes(),
    )


# --- depth images --------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("bigendian", [0, 1])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_whole_numbers_are_millimetres(encoding, bigendian, padding):
    depth = depth_image(image(MILLIMETRES, encoding, padding, bigendian))
    assert depth.dtype == np.float32
    assert depth == pytest.approx(METRES, nan_ok=True)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("bigendian", [0, 1])
@pytest.mark.parametrize(("encoding", "dtype"), [("32FC1", np.float32), ("64FC1", np.float64)])
def test_floats_are_metres(encoding, dtype, bigendian, padding):
    depth = depth_image(image(METRES.astype(dtype), encoding, padding, bigendian))
    assert depth.dtype == np.float32
    assert np.array_equal(depth, METRES, equal_nan=True)


@pytest.mark.parametrize(("encoding", "dtype"), [("32FC1", np.float32), ("64FC1", np.float64)])
def test_what_is_no_distance_is_unknown(encoding, dtype):
    values = np.array([[0, -0.0, -1, np.nan, np.inf, -np.inf, np.finfo(dtype).max]], dtype)
    is_unknown = np.isnan(depth_image(image(values, encoding)))
    assert is_unknown[0].tolist() == [True] * 6 + [dtype == np.float64]


def test_the_message_is_not_changed():
    values = bytearray(np.array([[-1.0, 2.0]], np.float32).tobytes())
    message = image(np.zeros((1, 2), np.float32), "32FC1")
    message.data = values
    depth_image(message)[:] = 7
    assert np.frombuffer(values, np.float32).tolist() == [-1, 2]


@pytest.mark.parametrize("declaration", ["16UC1; compressedDepth", "16UC1; compressedDepth png"])
def test_compressed_millimetres(declaration):
    depth = depth_image(compressed(compressed_depth(MILLIMETRES), declaration))
    assert depth == pytest.approx(METRES, nan_ok=True)


@pytest.mark.parametrize("declaration", ["32FC1; compressedDepth", "32FC1; compressedDepth png"])
def test_compressed_metres_are_quantised_inverse_depth(declaration):
    a = 100 * 101.0  # of a quantisation of 100 m
    b = 1 - a / 10  # and a maximum of 10 m, the defaults of image_transport_plugins
    true = np.array([[0.5, 2, 8]])
    values = np.pad(np.round(a / true + b).astype(np.uint16), ((0, 0), (0, 1)))
    depth = depth_image(compressed(compressed_depth(values, a, b), declaration))
    assert depth.shape == (1, 4)
    assert depth[0, :3] == pytest.approx(true[0], rel=1e-3)
    assert np.isnan(depth[0, 3])


@pytest.mark.parametrize("parameters", [(0.0, 0.0), (1.0, 1000.0), (np.nan, 1.0), (np.inf, 1.0)])
def test_inverse_depth_of_wrong_parameters_is_unknown_where_it_is_no_distance(parameters):
    file = compressed_depth(np.array([[1, 1000]], np.uint16), *parameters)
    assert np.isnan(depth_image(compressed(file, "32FC1; compressedDepth png"))).all()


@pytest.mark.parametrize(
    "declaration", ["16UC1; png compressed", "16UC1; png compressed ", "mono16; png", "png"]
)
def test_a_png_file_holds_millimetres(declaration):
    depth = depth_image(compressed(png(MILLIMETRES), declaration))
    assert depth == pytest.approx(METRES, nan_ok=True)


@pytest.mark.parametrize("types", [ROS1, ROS2])
def test_depth_messages_of_bags_can_be_read(types):
    header, file = None, np.frombuffer(compressed_depth(MILLIMETRES), np.uint8)
    sent = np.frombuffer(MILLIMETRES.tobytes(), np.uint8)
    raw = types["sensor_msgs/msg/Image"](header, 2, 3, "16UC1", 0, 6, sent)
    packed = types["sensor_msgs/msg/CompressedImage"](header, "16UC1; compressedDepth png", file)
    for message in (raw, packed):
        assert depth_image(message) == pytest.approx(METRES, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb8"}, "encoding: expected one of 16UC1, mono16, 32FC1, 64FC1, got 'rgb8'"),
        ({"height": 0}, "depth image: empty image: 3 x 0 pixels"),
        ({"step": 5}, "depth image: wrong step: expected at least 6 bytes for 3 16UC1 pixels"),
        ({"data": b""}, "depth image: wrong amount of data: expected 12 bytes for 2 rows of 6"),
        ({"encoding": "32FC1"}, "depth image: wrong step: expected at least 12 bytes"),
    ],
)
def test_unusable_depth_images_state_what_was_expected_and_got(change, words):
    message = image(MILLIMETRES, "16UC1")
    vars(message).update(change)
    with pytest.raises(SpatialError) as error:
        depth_image(message)
    assert str(error.value).startswith(words)


def huge_png() -> bytes:
    """A small file that declares more pixels than the memory holds."""
    header = b"IHDR" + struct.pack(">II", MAX_PIXELS, 2) + png(MILLIMETRES)[24:29]
    return (
        PNG_START
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + (png(MILLIMETRES)[33:])
    )


@pytest.mark.parametrize(
    ("data", "declaration", "words"),
    [
        (b"", "jpeg", "format: expected compressedDepth or a png of 16UC1, got 'jpeg'"),
        (b"", "rgb8; png compressed bgr8", "format: expected compressedDepth or a png"),
        (b"", "16UC1; compressedDepth rvl", "format: expected compressedDepth png of 16UC1 or"),
        (b"", "8UC1; compressedDepth png", "format: expected compressedDepth png of 16UC1 or"),
        (bytes(11), "16UC1; compressedDepth", "data: expected a header of 12 bytes, got 11"),
        (bytes(20), "16UC1; compressedDepth", "data: expected a PNG file, got b'"),
        (png(MILLIMETRES.astype(np.uint8)), "png", "data: expected a PNG of one 16-bit value"),
        (png(np.zeros((2, 2, 3), np.uint16)), "png", "data: expected a PNG of one 16-bit value"),
        (png(MILLIMETRES)[:-4], "png", "depth image: truncated image"),
        (huge_png(), "png", "depth image: image too large: expected at most"),
    ],
)
def test_unusable_files_state_what_was_expected_and_got(data, declaration, words):
    with pytest.raises(SpatialError) as error:
        depth_image(compressed(data, declaration))
    assert str(error.value).startswith(words)


def test_rvl_is_rejected_by_name():
    with pytest.raises(SpatialError, match="of the codecs png and rvl only png is supported"):
        depth_image(compressed(bytes(40), "32FC1; compressedDepth rvl"))


@given(
    st.integers(0, 2**32 - 1) | st.integers(0, 5),
    st.integers(0, 2**32 - 1) | st.integers(0, 5),
    st.integers(0, 2**32 - 1) | st.integers(0, 40),
    st.sampled_from(["16UC1", "mono16", "32FC1", "64FC1", "rgb8", ""]),
    st.integers(0, 255),
    st.binary(max_size=200),
)
@settings(max_examples=500)
def test_any_depth_image_is_used_or_rejected(height, width, step, encoding, bigendian, data):
    message = SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=bigendian, data=data
    )
    try:
        depth = depth_image(message)
    except SpatialError:
        return
    assert depth.shape == (height, width)
    assert (np.isnan(depth) | (depth > 0)).all()


NAMES = ["16UC1", "32FC1", "mono16", "png", "8UC1", "", ";", "; "]
CODECS = ["", "; compressedDepth", "; compressedDepth png", "; compressedDepth rvl", "; png"]


@given(
    st.sampled_from(NAMES),
    st.sampled_from(CODECS),
    st.binary(max_size=12),
    st.integers(0, 200),
    st.binary(max_size=4),
    st.booleans(),
)
@settings(max_examples=500)
def test_any_file_is_used_or_rejected(name, codec, header, at, noise, is_cut):
    file = header + png(MILLIMETRES)
    file = file[:at] + noise + (b"" if is_cut else file[at + len(noise) :])
    try:
        depth = depth_image(compressed(file, name + codec))
    except SpatialError:
        return
    assert (np.isnan(depth) | (depth > 0)).all()


# --- point clouds --------------------------------------------------------------------------------

POINTS = np.array([[1, -2, 3], [4, 5, -6], [0, 0, 7.5], [-1, 0, 0], [2, 2, 2], [9, 8, 7]], float)


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("size", [None, (2, 3)])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("fields", "point_step"),
    [
        ((("x", 0, 7), ("y", 4, 7), ("z", 8, 7)), 12),
        ((("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("intensity", 16, 7), ("ring", 20, 4)), 32),
        ((("ring", 0, 2), ("x", 1, 7), ("y", 5, 7), ("z", 9, 7)), 13),
        ((("z", 0, 7), ("x", 4, 7), ("rgb", 8, 7), ("y", 12, 7)), 16),
        ((("x", 0, 8), ("y", 8, 8), ("z", 16, 8)), 24),
        ((("z", 0, 8), ("y", 8, 7), ("x", 12, 7)), 16),
    ],
)
def test_fields_are_read_by_name_and_type(fields, point_step, size, padding, bigendian):
    read = cloud_points(cloud(POINTS, size, fields, point_step, padding, bigendian))
    assert read.points.dtype == np.float32
    assert read.points.tolist() == POINTS.tolist()
    assert (read.size, read.frame_id) == (size, "lidar")


@pytest.mark.parametrize("size", [None, (2, 3)])
def test_float32_points_are_not_copied(size):
    message = cloud(POINTS, size, point_step=32)
    assert np.shares_memory(cloud_points(message).points, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("invalid", [[np.nan, 1, 2], [1, np.inf, 2], [1, 2, -np.inf], [0, 0, 0]])
def test_points_without_a_return_are_nan_in_their_place(invalid):
    points = POINTS.copy()
    points[4] = invalid
    read = cloud_points(cloud(points, (2, 3))).points
    assert np.isnan(read[4]).all()
    assert np.delete(read, 4, axis=0).tolist() == np.delete(POINTS, 4, axis=0).tolist()


def test_float64_points_too_large_for_float32_are_nan():
    fields = (("x", 0, 8), ("y", 8, 8), ("z", 16, 8))
    assert np.isnan(cloud_points(cloud(np.full((1, 3), 1e300), None, fields, 24)).points).all()


@pytest.mark.parametrize("size", [(0, 0), (1, 0), (0, 7), (3, 0)])
def test_a_cloud_may_be_empty(size):
    read = cloud_points(cloud(np.zeros((0, 3)), size, fields=()))
    assert read.points.shape == (0, 3)
    assert read.frame_id == "lidar"


@pytest.mark.parametrize("types", [ROS1, ROS2])
def test_clouds_of_bags_can_be_read(types):
    sent = cloud(POINTS, (2, 3), point_step=16)
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    header: dict[str, Any] = {"seq": 0} if types is ROS1 else {}
    field = types["sensor_msgs/msg/PointField"]
    message = types["sensor_msgs/msg/PointCloud2"](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="lidar", **header),
        height=2,
        width=3,
        fields=[field(f.name, f.offset, f.datatype, f.count) for f in sent.fields],
        is_bigendian=False,
        point_step=16,
        row_step=48,
        data=np.frombuffer(sent.data, np.uint8),
        is_dense=True,
    )
    read = cloud_points(message)
    assert read.points.tolist() == POINTS.tolist()
    assert (read.size, read.frame_id) == ((2, 3), "lidar")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fields": []}, "fields: expected x, y and z, got []"),
        (
            {"fields": [SimpleNamespace(name="x", offset=0, datatype=4, count=1)]},
            "fields: expected x of datatype 7 (FLOAT32) or 8 (FLOAT64), got 4",
        ),
        (
            {"fields": [SimpleNamespace(name="x", offset=9, datatype=7, count=1)]},
            "point_step: expected at least 13 bytes for the field x, got 12",
        ),
        ({"row_step": 71}, "row_step: expected at least 72 bytes for 6 points of 12 bytes, got 71"),
        ({"data": bytes(71)}, "data: expected 72 bytes for 1 rows of 72 bytes, got 71"),
        ({"height": 2}, "data: expected 144 bytes for 2 rows of 72 bytes, got 72"),
    ],
)
def test_unusable_clouds_state_what_was_expected_and_got(change, words):
    message = cloud(POINTS)
    vars(message).update(change)
    with pytest.raises(SpatialError) as error:
        cloud_points(message)
    assert str(error.value) == words


whole_numbers = st.integers(0, 2**32 - 1) | st.integers(0, 30)
point_fields = st.builds(
    SimpleNamespace,
    name=st.sampled_from(["x", "y", "z", "intensity", ""]),
    offset=whole_numbers,
    datatype=st.integers(0, 255) | st.sampled_from([FLOAT32, FLOAT64]),
    count=whole_numbers,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "height": whole_numbers,
            "width": whole_numbers,
            "fields": st.lists(point_fields, max_size=5),
            "point_step": whole_numbers,
            "row_step": whole_numbers,
            "is_bigendian": st.booleans(),
            "data": st.binary(max_size=100) | st.binary(min_size=72, max_size=72),
        },
    )
)
@settings(max_examples=500)
def test_any_cloud_is_used_or_rejected(changes):
    message = cloud(POINTS)
    vars(message).update(changes)
    try:
        points = cloud_points(message).points
    except SpatialError:
        return
    assert points.shape == (message.height * message.width, 3)
    assert (np.isfinite(points).all(axis=1) | np.isnan(points).all(axis=1)).all()
