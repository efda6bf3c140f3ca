"""Image messages to RGB and back, against OpenCV and arithmetic."""

from __future__ import annotations

import math
from array import array

import cv2
import numpy as np
import pytest
from harness import CLASSES, image_message, street
from sensor_msgs.msg import CompressedImage, Image

from video_knet_core.types import PanopticFrame, StageTimes
from video_knet_ros import conversions
from video_knet_ros.conversions import ImageError, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def raw(pixels: np.ndarray, encoding: str, padding: int = 0, bigendian: int = 0) -> Image:
    """Message whose rows are followed by `padding` bytes of noise."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 0xA5, np.uint8)])
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=bigendian,
        data=array("B", rows.tobytes()),
    )


COLOURED = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "rgba8": np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)]),
    "bgra8": np.dstack([RGB[..., ::-1], np.full(RGB.shape[:2], 7, np.uint8)]),
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", COLOURED)
def test_colour_encodings_give_the_same_rgb(encoding, padding):
    assert np.array_equal(to_rgb(raw(COLOURED[encoding], encoding, padding)), RGB)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_images_have_three_equal_channels(encoding, padding):
    grey = RGB[..., 0]
    assert np.array_equal(to_rgb(raw(grey, encoding, padding)), np.dstack([grey] * 3))


@pytest.mark.parametrize(("order", "bigendian"), [("<u2", 0), (">u2", 1)])
def test_sixteen_bit_grey_keeps_its_high_byte(order, bigendian):
    grey = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
    rgb = to_rgb(raw(grey.astype(order), "mono16", padding=2, bigendian=bigendian))
    assert np.array_equal(rgb, np.dstack([(grey // 256).astype(np.uint8)] * 3))


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("uyvy", cv2.COLOR_YUV2RGB_UYVY),
        ("yuv422", cv2.COLOR_YUV2RGB_UYVY),
        ("yuyv", cv2.COLOR_YUV2RGB_YUYV),
        ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUYV),
    ],
)
def test_yuv_agrees_with_opencv(encoding, code):
    packed = RGB[..., :2]
    assert np.array_equal(
        to_rgb(raw(packed, encoding, padding=4)), cv2.cvtColor(packed.copy(), code)
    )


def test_yuv_puts_luma_where_the_encoding_says():
    grey = np.full((4, 8, 2), 128, np.uint8)
    grey[..., 1] = 16 + 100  # UYVY: chroma first, luma second; BT.601 luma begins at 16
    rgb = to_rgb(raw(grey, "uyvy"))
    assert np.ptp(rgb) <= 1 and abs(int(rgb[0, 0, 0]) - round(100 * 255 / 219)) <= 1


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_gives_a_flat_colour_back(pattern):
    colour = {"r": 200, "g": 90, "b": 30}
    tile = np.array([colour[c] for c in pattern], np.uint8).reshape(2, 2)
    rgb = to_rgb(raw(np.tile(tile, (5, 6)), f"bayer_{pattern}8", padding=3))
    assert (rgb[2:-2, 2:-2] == (200, 90, 30)).all()


def test_plain_rgb_is_not_copied():
    message = raw(RGB, "rgb8")
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 0, "width": 0, "step": 0, "data": array("B")}, "empty image: 0 x 0"),
        ({"step": 23}, "wrong step: 23 bytes, wanted at least 24"),
        ({"step": 0}, "wrong step: 0 bytes, wanted at least 24"),
        ({"step": 32}, "wrong amount of data: 144 bytes, wanted 192"),
        ({"data": array("B", bytes(100))}, "wrong amount of data: 100 bytes, wanted 144"),
        ({"data": array("B")}, "wrong amount of data: 0 bytes, wanted 144"),
        ({"encoding": "32FC1"}, "unknown encoding '32FC1'; wanted one of rgb8"),
        ({"encoding": ""}, "unknown encoding ''"),
        ({"encoding": "bgra8"}, "wrong step: 24 bytes, wanted at least 32"),
    ],
)
def test_unusable_images_say_what_was_found_and_wanted(change, words):
    message = raw(RGB, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageError) as error:
        to_rgb(message)
    assert words in str(error.value)


def test_half_a_yuv_pixel_pair_is_refused():
    with pytest.raises(ImageError, match="7 x 6 pixels cannot be yuyv"):
        to_rgb(raw(RGB[:, :7, :2], "yuyv"))


def compressed(data: bytes, name: str = "jpeg") -> CompressedImage:
    return CompressedImage(format=name, data=array("B", data))


def encode(suffix: str, rgb: np.ndarray) -> bytes:
    ok, data = cv2.imencode(suffix, rgb[..., ::-1])
    assert ok
    return data.tobytes()


def test_png_is_lossless():
    assert np.array_equal(to_rgb(compressed(encode(".png", RGB), "png")), RGB)


def test_jpeg_agrees_with_opencv_even_with_padding_behind():
    data = encode(".jpg", street(scale=4))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(to_rgb(compressed(data + bytes(100))), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_files_are_refused(suffix):
    data = encode(suffix, street(scale=4))
    with pytest.raises(ImageError, match=f"truncated image: {len(data) // 2} bytes"):
        to_rgb(compressed(data[: len(data) // 2], suffix[1:]))


def test_data_that_is_no_image_is_refused():
    with pytest.raises(ImageError, match="0 bytes of format 'jpeg', wanted JPEG or PNG"):
        to_rgb(compressed(b""))
    with pytest.raises(ImageError, match="wanted JPEG or PNG"):
        to_rgb(compressed(b"GIF89a" + bytes(50), "gif"))
    with pytest.raises(ImageError, match="corrupt image"):
        to_rgb(compressed(b"\xff\xd8 nothing \xff\xd9"))


def test_labels_travel_as_little_endian_16uc1():
    labels = np.array([[0, 1, 2], [255, 256, 65535]], np.uint16)
    message = conversions.panoptic_image(Image().header, panoptic_frame(labels))
    assert (message.encoding, message.step, message.is_bigendian) == ("16UC1", 6, 0)
    assert bytes(message.data) == bytes([0, 0, 1, 0, 2, 0, 255, 0, 0, 1, 255, 255])


def panoptic_frame(labels: np.ndarray) -> PanopticFrame:
    return PanopticFrame(1, labels, (), (), (), 0, StageTimes(1.0, 2.0, 3.0, 4.0))


def test_an_image_survives_the_round_trip():
    assert np.array_equal(to_rgb(image_message(RGB)), RGB)


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789])
def test_stamps_survive_the_round_trip(stamp):
    assert conversions.nanoseconds(conversions.time_message(stamp)) == stamp


def test_latency_is_unknown_without_a_stamp_or_a_clock():
    assert conversions.latency_ms(1_000_000_000, 1_025_000_000) == 25.0
    assert math.isnan(conversions.latency_ms(0, 5))
    assert math.isnan(conversions.latency_ms(5, 0))


def test_the_class_map_has_all_rows_in_order():
    rows = conversions.class_map(CLASSES).classes
    assert [(r.id, r.name, r.is_thing, (r.r, r.g, r.b)) for r in rows] == [
        (c.id, c.name, c.is_thing, c.color) for c in CLASSES
    ]
