"""Compressed images: what their sender declares is read, and damaged files are rejected.

No ROS here: these tests run with any OpenCV of the declared range.
"""

from __future__ import annotations

import os
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from video_knet_core.messages.image_messages import ENCODINGS, MAX_PIXELS, ImageError, to_rgb

FUZZ_MESSAGES = int(os.environ.get("VIDEO_KNET_FUZZ_MESSAGES", "2000"))
"""Damaged messages in `test_damaged_files_are_decoded_or_rejected`."""
_SEEDS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = cv2.resize(_SEEDS, (64, 48), interpolation=cv2.INTER_CUBIC)
"""RGB [48, 64, 3], smooth enough for JPEG."""
PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def compressed(data: bytes, declaration: str = "jpeg") -> SimpleNamespace:
    return SimpleNamespace(format=declaration, data=data)


def encode(suffix: str, pixels: NDArray, *options: int) -> bytes:
    """File of RGB or grey pixels."""
    ok, data = cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)
    assert ok
    return data.tobytes()


def mosaic(pattern: str, rgb: NDArray) -> NDArray:
    """The mosaic that a Bayer sensor makes of a picture, [H, W]."""
    height, width = rgb.shape[:2]
    y, x = np.indices((height, width))
    channel = np.array(["rgb".index(c) for c in pattern])[2 * (y % 2) + x % 2]
    return np.take_along_axis(rgb, channel[..., None], axis=2)[..., 0]


def raw(pixels: NDArray, encoding: str) -> SimpleNamespace:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).tobytes()
    return raw_message(height, width, encoding, len(data) // height, 0, data)


def raw_message(*values: object) -> SimpleNamespace:
    names = ("height", "width", "encoding", "step", "is_bigendian", "data")
    return SimpleNamespace(**dict(zip(names, values, strict=True)))


# --- the declared encoding -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "declaration",
    [
        "png",
        "PNG",
        "",
        "jpeg",
        "image/png",
        "rgb8; png compressed bgr8",
        "bgr8; png compressed bgr8",
    ]
    + ["rgb8; png compressed rgb8", "rgba8; png compressed bgr8", "8UC3; png compressed ", "rgb8"]
    + ["yuv422; png compressed bgr8", "bayer_rggb8; png compressed bgr8", "jpeg; of camera 3"],
)
def test_colours_are_those_of_the_file(declaration):
    file = encode(".png", PICTURE)
    assert np.array_equal(to_rgb(compressed(file, declaration)), PICTURE)


@pytest.mark.parametrize("target", ["", "bayer"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mosaic_that_was_sent_as_it_is_becomes_colour_as_raw_bayer_does(pattern, bits, target):
    encoding = f"bayer_{pattern}{bits}"
    pixels = mosaic(pattern, PICTURE) if bits == 8 else mosaic(pattern, PICTURE).astype("u2") * 257
    message = compressed(
        encode(".png", pixels), f"{encoding}; png compressed {target and encoding}"
    )
    assert np.array_equal(to_rgb(message), to_rgb(raw(pixels, encoding)))


@pytest.mark.parametrize("declaration", ["bayer_grbg8; jpeg compressed ", "bayer_grbg8"])
def test_a_mosaic_in_a_jpeg_becomes_colour(declaration):
    tile = mosaic("grbg", np.full((48, 64, 3), (200, 90, 30), np.uint8))
    rgb = to_rgb(compressed(encode(".jpg", tile, cv2.IMWRITE_JPEG_QUALITY, 100), declaration))
    assert np.abs(rgb[8:-8, 8:-8].astype(int) - (200, 90, 30)).max() < 12


@pytest.mark.parametrize(
    "declaration",
    ["mono8; png compressed mono8", "8UC1; png compressed ", "png"]
    + ["yuv422_yuy2; png compressed mono8", "bayer_rggb8; png compressed mono8"],
)
def test_grey_is_grey(declaration):
    grey = PICTURE[..., 1]
    rgb = to_rgb(compressed(encode(".png", grey), declaration))
    assert np.array_equal(rgb, np.dstack([grey] * 3))


@pytest.mark.parametrize("declaration", ["mono16; png compressed ", "png"])
def test_16_bit_grey_is_scaled_as_raw_mono16_is(declaration):
    values = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    rgb = to_rgb(compressed(encode(".png", values), declaration))
    assert np.array_equal(rgb, to_rgb(raw(values, "mono16")))


def test_16_bit_colour_is_scaled_as_raw_rgb16_is():
    values = PICTURE.astype(np.uint16) * 257
    rgb = to_rgb(compressed(encode(".png", values), "rgb16; png compressed bgr16"))
    assert np.array_equal(rgb, PICTURE)


def test_an_8_bit_jpeg_of_16_bit_pixels_is_taken_as_it_is():
    message = compressed(encode(".jpg", PICTURE), "rgb16; jpeg compressed bgr8")
    assert np.abs(to_rgb(message).astype(int) - PICTURE).mean() < 5


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "16SC1", "teal9"])
def test_what_is_no_picture_raw_is_none_compressed(encoding):
    depth = encode(".png", np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    declared = [(depth, f"{encoding}; png compressed "), (JPEG, f"{encoding}; jpeg compressed ")]
    if encoding == "16UC1":  # a type of OpenCV alone declares the encoding, too
        declared.append((depth, encoding))
    for file, declaration in declared:
        with pytest.raises(ImageError, match=f"unknown encoding '{encoding}': expected one of"):
            to_rgb(compressed(file, declaration))


@pytest.mark.parametrize(
    "declaration", ["16UC1; compressedDepth png", "32FC1; compressedDepth rvl"]
)
def test_compressed_depth_is_rejected_by_name(declaration):
    with pytest.raises(ImageError, match="compressedDepth holds distances"):
        to_rgb(compressed(bytes(12) + encode(".png", PICTURE), declaration))


def test_a_picture_that_contradicts_its_declaration_is_rejected():
    grey = PICTURE[..., 0]
    with pytest.raises(ImageError, match=r"expected colours \(bgr8\), got one value per pixel"):
        to_rgb(compressed(encode(".png", grey), "bayer_rggb8; png compressed bgr8"))
    with pytest.raises(ImageError, match="expected a picture of 8 bits per value, got uint16"):
        to_rgb(compressed(encode(".png", grey.astype(np.uint16)), "mono8; png compressed "))
    with pytest.raises(ImageError, match="expected a mosaic of at least 3 x 3 pixels"):
        to_rgb(compressed(encode(".png", grey[:2]), "bayer_rggb8; png compressed "))


# --- files cut short -----------------------------------------------------------------------------


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment, behind its start mark."""
    return (
        jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]
    )


def exif(thumbnail: bytes, orientation: int = 1) -> bytes:
    """Content of an EXIF segment: an orientation and a thumbnail."""
    tags = struct.pack("<HHHIHxxI", 1, 0x0112, 3, 1, orientation, 26)
    rows = (0x0103, 3, 6), (0x0201, 4, 68), (0x0202, 4, len(thumbnail))
    tags += struct.pack("<H", 3) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in rows)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags + struct.pack("<I", 0) + thumbnail


JPEG = encode(".jpg", PICTURE)
WITH_THUMBNAIL = with_segment(JPEG, 0xE1, exif(encode(".jpg", PICTURE[::4, ::4])))
PROGRESSIVE = encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
WITH_RESTARTS = encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
JPEGS = {
    "plain": JPEG,
    "with a thumbnail": WITH_THUMBNAIL,
    "with an end mark in a comment": with_segment(JPEG, 0xFE, b"\xff\xd9 by camera"),
    "progressive": PROGRESSIVE,
    "progressive with a thumbnail": with_segment(PROGRESSIVE, 0xE1, exif(JPEG)),
    "with restart marks": WITH_RESTARTS,
    "with fill bytes": JPEG[:2] + b"\xff\xff" + JPEG[2:-2] + b"\xff\xff\xff\xd9",
    "grey": encode(".jpg", PICTURE[..., 0]),
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_whole_jpeg_agrees_with_opencv_also_with_bytes_behind_its_end(name):
    expected = cv2.imdecode(np.frombuffer(JPEGS[name], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for behind in (b"", bytes(100), b"\xff" * 9, JPEG[:50]):
        assert np.array_equal(to_rgb(compressed(JPEGS[name] + behind)), expected)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_cut_short_anywhere_is_rejected(name):
    whole = JPEGS[name]
    for size in range(2, len(whole) - 1):
        with pytest.raises(ImageError, match="truncated image"):
            to_rgb(compressed(whole[:size]))


def test_a_jpeg_of_many_scans_is_rejected():
    scan = b"\xff\xda" + struct.pack(">H", 8) + bytes(6)
    start = PROGRESSIVE.index(b"\xff\xda")
    with pytest.raises(ImageError, match="JPEG: expected at most 100 scans, got more"):
        to_rgb(compressed(PROGRESSIVE[:start] + 101 * scan + PROGRESSIVE[start:]))


def test_a_jpeg_that_is_followed_by_the_next_image_or_has_no_scan_is_rejected():
    for data in (JPEG[: len(JPEG) // 2] + JPEG, b"\xff\xd8 nothing \xff\xd9"):
        with pytest.raises(ImageError, match="truncated image"):
            to_rgb(compressed(data))


def test_the_exif_orientation_is_ignored_as_labels_lie_on_the_pixels_that_were_sent():
    turned = with_segment(JPEG, 0xE1, exif(b"", orientation=6))
    assert np.array_equal(to_rgb(compressed(turned)), to_rgb(compressed(JPEG)))


# --- PNG -----------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png_of_size(width: int, height: int) -> bytes:
    """A complete PNG of a few bytes that declares a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


PNG = encode(".png", PICTURE[:6, :8])
WITH_TEXT = PNG[:33] + chunk(b"tEXt", b"Comment\0IEND of the day") + PNG[33:]


@pytest.mark.parametrize("file", [PNG, WITH_TEXT, PNG + b"behind"], ids=["plain", "text", "tail"])
def test_png_is_lossless_whatever_codec_is_declared(file):
    for declaration in ("png", "rgb8; jpeg compressed bgr8"):
        assert np.array_equal(to_rgb(compressed(file, declaration)), PICTURE[:6, :8])


def test_a_png_cut_short_or_changed_anywhere_is_rejected():
    for at in range(8, len(WITH_TEXT)):
        changed = WITH_TEXT[:at] + bytes([WITH_TEXT[at] ^ 0x10]) + WITH_TEXT[at + 1 :]
        for data, reason in ((WITH_TEXT[:at], "truncated"), (changed, "truncated|corrupt")):
            with pytest.raises(ImageError, match=f"({reason}) image"):
                to_rgb(compressed(data, "png"))
    with pytest.raises(ImageError, match="corrupt image"):
        to_rgb(compressed(png_of_size(64, 48), "png"))  # right checksums, too few rows


# --- other files, and sizes ----------------------------------------------------------------------


def test_alpha_is_dropped():
    rgba = np.dstack([PICTURE[..., ::-1], PICTURE[..., 0]])
    data = cv2.imencode(".png", rgba)[1].tobytes()
    assert np.array_equal(to_rgb(compressed(data, "bgra8; png compressed bgr8")), PICTURE)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(50), b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0" + bytes(9)]
)
def test_other_files_are_rejected(data):
    with pytest.raises(
        ImageError, match=f"{len(data)} bytes of format 'png': .*expected JPEG or PNG"
    ):
        to_rgb(compressed(data, "png"))


def test_a_picture_that_is_too_large_is_rejected_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # calling it would be a TypeError
    at = JPEG.index(b"\xff\xc0") + 5
    for file in (png_of_size(60000, 60000), JPEG[:at] + b"\xff\xff\xff\xff" + JPEG[at + 4 :]):
        with pytest.raises(ImageError, match=f"expected at most {MAX_PIXELS} pixels, got 6"):
            to_rgb(compressed(file, "png"))


def test_the_size_is_the_one_that_a_decoder_takes(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # calling it would be a TypeError
    start = JPEG.index(b"\xff\xc0")
    small = JPEG[start : start + 2 + int.from_bytes(JPEG[start + 2 : start + 4], "big")]
    large = small[:5] + b"\xff\xff\xff\xff" + small[9:]
    with pytest.raises(ImageError, match=f"at most {MAX_PIXELS} pixels, got 65535 x 65535"):
        to_rgb(compressed(JPEG.replace(small, large)[:-2] + small + JPEG[-2:]))
    png = png_of_size(60000, 60000)
    with pytest.raises(ImageError, match="begins with the chunk b'abCd'"):
        to_rgb(compressed(png[:8] + chunk(b"abCd", PNG[16:29]) + png[8:], "png"))


# --- whatever comes ------------------------------------------------------------------------------

FILES = {**JPEGS, "png": PNG, "text": WITH_TEXT, "deep": encode(".png", PICTURE.astype("u2") * 257)}
DECLARATIONS = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}; {} compressed {}".format,
        st.sampled_from([*ENCODINGS, "16UC1", "32FC1", ""]),
        st.sampled_from(["jpeg", "png", "tiff", ""]),
        st.sampled_from(["bgr8", "rgb8", "mono8", "bayer_rggb8", ""]),
    ),
)


@st.composite
def changed_files(draw) -> bytes:
    """A valid file with a few bytes replaced, cut out, put in or cut off."""
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 8))
        data[at : at + size] = draw(st.binary(max_size=8))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def assert_picture_or_error(message: SimpleNamespace) -> None:
    try:
        rgb = to_rgb(message)
    except ImageError as error:
        assert str(error)
    else:
        assert (rgb.ndim, rgb.shape[2], rgb.dtype) == (3, 3, np.uint8)


@pytest.mark.slow
@given(changed_files(), DECLARATIONS)
@settings(max_examples=FUZZ_MESSAGES, deadline=None)
def test_damaged_files_are_decoded_or_rejected(data, declaration):
    assert_picture_or_error(compressed(data, declaration))


@given(
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]), st.binary(max_size=64), DECLARATIONS
)
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_decoded_or_rejected(start, data, declaration):
    assert_picture_or_error(compressed(start + data, declaration))


SIZES = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))


@given(
    st.one_of(st.sampled_from([*ENCODINGS, "32FC1", "16UC1"]), st.text(max_size=8)),
    st.tuples(SIZES, SIZES, SIZES),
    st.integers(0, 255),
    st.integers(0, 400),
)
@settings(max_examples=300, deadline=None)
def test_raw_images_are_decoded_or_rejected(encoding, size, bigendian, amount):
    height, width, step = size
    message = raw_message(height, width, encoding, step, bigendian, bytes(amount))
    assert_picture_or_error(message)
