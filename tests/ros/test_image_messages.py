"""Image messages to RGB, against OpenCV's conversions, arithmetic, and cv_bridge where it is."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from video_knet_core.messages.image_messages import ENCODINGS, ImageError, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def raw(pixels: NDArray, encoding: str, padding: int = 0, bigendian: int = 0) -> Image:
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


# --- pictures in every encoding, and what they should become -------------------------------------

PATTERNS = ("rggb", "bggr", "gbrg", "grbg")
COLOUR = {
    f"{name}{bits}" for name in ("rgb", "bgr", "rgba", "bgra", "mono") for bits in ("8", "16")
}
GENERIC = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
BAYER = {f"bayer_{pattern}{bits}" for pattern in PATTERNS for bits in ("8", "16")}
PACKED_YUV = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv"}
PLANAR_YUV = {"nv12", "nv21", "nv24"}
CHANNELS = {"rgb": "rgb", "bgr": "bgr", "rgba": "rgba", "bgra": "bgra", "mono": "y"}


def picture(encoding: str, height: int, width: int, rng: np.random.Generator) -> NDArray:
    """Random rows of an encoding, in the machine's byte order; chroma planes are below the luma."""
    if encoding in PLANAR_YUV:
        rows = {"nv12": height * 3 // 2, "nv21": height * 3 // 2, "nv24": height * 3}[encoding]
        return rng.integers(0, 256, (rows, width), np.uint8)
    if encoding in PACKED_YUV:
        return rng.integers(0, 256, (height, width, 2), np.uint8)
    name = GENERIC.get(encoding, encoding)
    dtype, high = (np.uint16, 65536) if name.endswith("16") else (np.uint8, 256)
    channels = 1 if name in BAYER else len(CHANNELS[name.rstrip("0123456789")])
    return rng.integers(0, high, (height, width, channels), dtype)


def planar(rows: NDArray, encoding: str, height: int, padding: int) -> Image:
    """Message of a planar picture; the chroma rows of nv24 are twice as long as those of luma."""
    width = rows.shape[1]
    luma, chroma = rows[:height], rows[height:]
    if encoding == "nv24":
        chroma = chroma.reshape(height, 2 * width)
    luma = np.pad(luma, ((0, 0), (0, padding)), constant_values=0xA5)
    per_row = chroma.shape[1] // width
    chroma = np.pad(chroma, ((0, 0), (0, padding * per_row)), constant_values=0xA5)
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=width + padding,
        data=array("B", luma.tobytes() + chroma.tobytes()),
    )


def yuv_planes(rows: NDArray, encoding: str, height: int) -> NDArray:
    """Y, U, V of each pixel, int64 [H, W, 3]."""
    if encoding in PACKED_YUV:
        is_uyvy = PACKED_YUV[encoding] == "uyvy"
        luma, chroma = rows[..., int(is_uyvy)], rows[..., int(not is_uyvy)]
        u, v = (chroma[:, first::2].repeat(2, axis=1) for first in (0, 1))
        return np.dstack([luma, u, v]).astype(np.int64)
    luma, chroma = rows[:height], rows[height:].reshape(-1, 2)
    scale = 1 if encoding == "nv24" else 2
    chroma = chroma.reshape(height // scale, -1, 2).repeat(scale, axis=0).repeat(scale, axis=1)
    u, v = (chroma[..., 1], chroma[..., 0]) if encoding == "nv21" else np.moveaxis(chroma, -1, 0)
    return np.dstack([luma, u, v]).astype(np.int64)


def bt601(yuv: NDArray) -> NDArray:
    """RGB of video-range YUV by the standard's formula, not rounded."""
    y = 1.164 * np.maximum(yuv[..., 0] - 16, 0)
    u, v = yuv[..., 1] - 128, yuv[..., 2] - 128
    rgb = np.dstack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u])
    return np.clip(rgb, 0, 255)


def to_8_bit(values: NDArray) -> NDArray:
    """round(value * 255 / 65535) in whole numbers; 8-bit values stay."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def by_arithmetic(pixels: NDArray, encoding: str) -> NDArray:
    """RGB of the encodings that only name their channels."""
    name = CHANNELS[GENERIC.get(encoding, encoding).rstrip("0123456789")]
    order = [0, 0, 0] if name == "y" else [name.index(c) for c in "rgb"]
    return to_8_bit(pixels[..., order])


BRIDGE_CODES = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
}
"""OpenCV's conversions, under the names by which cv_bridge calls them."""


def by_opencv(pixels: NDArray, encoding: str) -> NDArray:
    """RGB as cv_bridge makes it: one conversion at full depth, then to 8 bits."""
    name = PACKED_YUV.get(
        encoding, encoding.rstrip("0123456789") if "bayer" in encoding else encoding
    )
    return to_8_bit(cv2.cvtColor(np.ascontiguousarray(pixels), BRIDGE_CODES[name]))


@st.composite
def pictures(draw, encodings):
    """An encoding, its height, random rows, and a message with them."""
    encoding = draw(st.sampled_from(sorted(encodings)))
    minimum = 3 if encoding in BAYER else 1
    height, width = draw(st.integers(minimum, 24)), draw(st.integers(minimum, 24))
    if encoding in PACKED_YUV or encoding in ("nv12", "nv21"):
        width *= 2
    if encoding in ("nv12", "nv21"):
        height *= 2
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, padding = picture(encoding, height, width, rng), draw(st.integers(0, 9))
    if encoding in PLANAR_YUV:
        return encoding, height, rows, planar(rows, encoding, height, padding)
    bigendian = draw(st.booleans())
    sent = rows.astype(rows.dtype.newbyteorder(">" if bigendian else "<"))
    return encoding, height, rows, raw(sent, encoding, padding, int(bigendian))


def test_these_are_all_encodings():
    assert COLOUR | set(GENERIC) | BAYER | set(PACKED_YUV) | PLANAR_YUV == set(ENCODINGS)


@given(pictures(COLOUR | set(GENERIC)))
def test_colours_and_grey_come_out_in_rgb_order_and_8_bits(drawn):
    encoding, _, pixels, message = drawn
    assert np.array_equal(to_rgb(message), by_arithmetic(pixels, encoding))


@given(pictures(BAYER | set(PACKED_YUV) | {"nv12", "nv21"}))
@settings(max_examples=200)
def test_bayer_and_yuv_agree_with_opencv(drawn):
    encoding, _, pixels, message = drawn
    assert np.array_equal(to_rgb(message), by_opencv(pixels, encoding))


@given(pictures(BAYER))
def test_bayer_keeps_every_value_that_the_sensor_saw(drawn):
    encoding, height, pixels, message = drawn
    rgb, seen = to_rgb(message), to_8_bit(pixels[..., 0])
    pattern = encoding.removeprefix("bayer_")
    for y in range(1, height - 1):  # OpenCV copies the border from the row or column beside it
        for x in range(1, rgb.shape[1] - 1):
            assert rgb[y, x, "rgb".index(pattern[2 * (y % 2) + x % 2])] == seen[y, x]


@given(pictures(set(PACKED_YUV) | PLANAR_YUV))
@settings(max_examples=200)
def test_yuv_is_within_rounding_of_the_standards_formula(drawn):
    encoding, height, rows, message = drawn
    expected = bt601(yuv_planes(rows, encoding, height))
    assert np.abs(to_rgb(message) - expected).max() <= 1


# --- single cases --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3"])
@pytest.mark.parametrize("padding", [0, 5])
def test_colours_of_8_bits_are_not_copied(encoding, padding):
    message = raw(RGB, encoding, padding)
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_the_result_is_8_bit_colour_of_the_size_of_the_picture(encoding):
    rows = picture(encoding, 6, 8, np.random.default_rng(0))
    planes = encoding in PLANAR_YUV
    rgb = to_rgb(planar(rows, encoding, 6, 3) if planes else raw(rows, encoding, 3))
    assert (rgb.shape, rgb.dtype) == ((6, 8, 3), np.uint8)


@pytest.mark.parametrize("bigendian", [0, 1])
def test_16_bit_white_is_8_bit_white(bigendian):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], ">u2" if bigendian else "<u2")
    rgb = to_rgb(raw(values, "mono16", bigendian=bigendian))
    assert rgb[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


# --- cv_bridge -----------------------------------------------------------------------------------

KNOWN_TO_BRIDGE = sorted(COLOUR | BAYER | {"yuv422", "yuv422_yuy2"})


@pytest.mark.parametrize("encoding", KNOWN_TO_BRIDGE)
def test_cv_bridge_agrees(encoding):
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge cannot be imported")
    message = raw(picture(encoding, 6, 8, np.random.default_rng(0)), encoding)
    try:
        expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    except KeyError:  # the real one raises CvBridgeError, and has all of these
        pytest.skip(f"this cv_bridge is the stand-in from PyPI, which does not know {encoding}")
    assert np.array_equal(to_rgb(message), expected)


# --- what cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 0, "width": 0, "step": 0, "data": array("B")}, "empty image: 0 x 0"),
        ({"height": 0}, "empty image: 8 x 0"),
        ({"step": 23}, "wrong step: expected at least 24 bytes for 8 rgb8 pixels, got 23"),
        ({"step": 32}, "wrong amount of data: expected 192 bytes for 6 rows of 32 bytes, got 144"),
        ({"step": 2**32 - 1}, "wrong amount of data: expected 25769803770 bytes"),
        (
            {"data": array("B", bytes(100))},
            "wrong amount of data: expected 144 bytes for 6 rows of 24 bytes, got 100",
        ),
        ({"encoding": "32FC1"}, "unknown encoding '32FC1': expected one of rgb8"),
        ({"encoding": "16UC1"}, "unknown encoding '16UC1'"),  # distances or labels, not a picture
        (
            {"encoding": "rgb16"},
            "wrong step: expected at least 48 bytes for 8 rgb16 pixels, got 24",
        ),
        (
            {"encoding": "nv12"},
            "wrong amount of data: expected 216 bytes for 9 rows of 24 bytes, got 144",
        ),
        (
            {"encoding": "nv24"},
            "wrong amount of data: expected 432 bytes for 18 rows of 24 bytes, got 144",
        ),
    ],
)
def test_unusable_images_state_what_was_expected_and_got(change, words):
    message = raw(RGB, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageError) as error:
        to_rgb(message)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("encoding", "width", "height", "words"),
    [
        ("yuyv", 7, 6, "wrong size of yuyv: expected an even width, got 7 x 6 pixels"),
        ("uyvy", 1, 1, "wrong size of uyvy: expected an even width, got 1 x 1 pixels"),
        ("nv12", 7, 6, "wrong size of nv12: expected an even width, got 7 x 6 pixels"),
        ("nv21", 8, 5, "wrong size of nv21: expected an even height, got 8 x 5 pixels"),
        (
            "nv12",
            7,
            5,
            "wrong size of nv12: expected an even width and an even height, got 7 x 5 pixels",
        ),
        (
            "bayer_rggb8",
            2,
            8,
            "wrong size of bayer_rggb8: expected at least 3 x 3, got 2 x 8 pixels",
        ),
    ],
)
def test_sizes_that_an_encoding_cannot_have_are_rejected(encoding, width, height, words):
    with pytest.raises(ImageError) as error:
        to_rgb(Image(height=height, width=width, encoding=encoding, step=2 * width))
    assert str(error.value) == words
