"""Image messages to RGB: every encoding that cameras send.

All of it is OpenCV's own conversion, the one that cv_bridge calls too, so both agree. cv_bridge
itself is not used: it supports none of the planar encodings, and its Python side shears an image of
several channels whose `step` is no multiple of the pixel size.

The planar encodings nv12, nv21 and nv24 are laid out as image_encodings.hpp and V4L2 have it:
`height` is that of the picture, `step` the length of a row of luma. The rows of luma are followed
by those of chroma. nv12 and nv21 have half as many, as long: step * height * 3/2 bytes in all.
nv24 has as many, twice as long: step * height * 3 bytes.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class ImageError(ValueError):
    """An image message that cannot be used; the message names what was expected and what it got."""


_RGB = -1
"""In place of an OpenCV conversion code: the pixels are RGB already."""
_NV24 = -2
"""In place of an OpenCV conversion code: OpenCV has none for chroma at full resolution."""

_MIN_BAYER = 3
"""Height and width: of fewer Bayer pixels OpenCV makes a black image."""
_OPENCV_TYPE = re.compile(r"\d+[USF]C\d*")
_CODECS = ("", "jpeg", "jpg", "png")


class _Encoding(NamedTuple):
    """How a row is laid out and which OpenCV conversion makes RGB of it."""

    channels: int
    code: int
    dtype: type = np.uint8
    half_rows: int = 2
    """Rows of `step` bytes in the data, for every two rows of the picture."""
    even_width: bool = False
    even_height: bool = False
    bayer: bool = False


def _encodings() -> dict[str, _Encoding]:
    """All encodings, in the order in which an error lists them."""
    table = {}
    for suffix, dtype in (("8", np.uint8), ("16", np.uint16)):
        table[f"rgb{suffix}"] = _Encoding(3, _RGB, dtype)
        table[f"bgr{suffix}"] = _Encoding(3, cv2.COLOR_BGR2RGB, dtype)
        table[f"rgba{suffix}"] = _Encoding(4, cv2.COLOR_RGBA2RGB, dtype)
        table[f"bgra{suffix}"] = _Encoding(4, cv2.COLOR_BGRA2RGB, dtype)
        table[f"mono{suffix}"] = _Encoding(1, cv2.COLOR_GRAY2RGB, dtype)
        for pattern in ("rggb", "bggr", "gbrg", "grbg"):
            code = getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB")
            table[f"bayer_{pattern}{suffix}"] = _Encoding(1, code, dtype, bayer=True)
    table["8UC1"] = table["mono8"]  # OpenCV's names say nothing of colour: its habit is BGR
    table["8UC3"] = table["bgr8"]
    table["8UC4"] = table["bgra8"]
    for name in ("uyvy", "yuv422"):
        table[name] = _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True)
    for name in ("yuyv", "yuv422_yuy2"):
        table[name] = _Encoding(2, cv2.COLOR_YUV2RGB_YUYV, even_width=True)
    for name in ("nv12", "nv21"):
        code = getattr(cv2, f"COLOR_YUV2RGB_{name.upper()}")
        table[name] = _Encoding(1, code, half_rows=3, even_width=True, even_height=True)
    table["nv24"] = _Encoding(1, _NV24, half_rows=6)
    return table


ENCODINGS = _encodings()
"""Encoding of a sensor_msgs/Image -> how to read it."""


def to_rgb(message: Any) -> NDArray[np.uint8]:
    """Pixels of an Image or CompressedImage as RGB uint8 [H, W, 3]; ImageError if it is unusable.

    An rgb8 or bgr8 image is not copied: the result is a view of the message's memory, without the
    padding of its rows, and of bgr8 with the channels in reverse.
    16-bit values are scaled so that 65535 becomes 255, and rounded, as cv_bridge does it.
    """
    try:  # a CompressedImage has a format instead of an encoding
        return _raw_to_rgb(message) if hasattr(message, "encoding") else _decompress(message)
    except cv2.error as error:
        raise ImageError(
            f"OpenCV cannot convert the image: {' '.join(str(error).split())}"
        ) from error


def _raw_to_rgb(message: Any) -> NDArray[np.uint8]:
    encoding = _look_up(message.encoding)
    check_size(message, encoding)
    pixels = pixel_rows(message, encoding)
    if encoding.code == _NV24:
        return _nv24_to_rgb(message)
    if not encoding.bayer:  # scaling first is faster, and the same where no values are mixed
        pixels = _to_8_bit(pixels)
    if encoding.code == cv2.COLOR_BGR2RGB:
        return np.asarray(pixels[..., ::-1], np.uint8)
    if encoding.code != _RGB:
        pixels = cv2.cvtColor(pixels, encoding.code)
    return np.asarray(_to_8_bit(pixels), np.uint8)


def _to_8_bit(pixels: NDArray) -> NDArray:
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=255 / 65535)


def _look_up(name: str) -> _Encoding:
    if name not in ENCODINGS:
        raise ImageError(f"unknown encoding {name!r}: expected one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def check_size(message: Any, encoding: _Encoding) -> None:
    """ImageError if the image has no pixels, or a size that its encoding cannot have."""
    height, width = message.height, message.width
    if not height or not width:
        raise ImageError(f"empty image: {width} x {height} pixels")
    expected = []
    if encoding.even_width and width % 2:
        expected.append("an even width")
    if encoding.even_height and height % 2:
        expected.append("an even height")
    if encoding.bayer and min(height, width) < _MIN_BAYER:
        expected.append(f"at least {_MIN_BAYER} x {_MIN_BAYER}")
    if expected:
        raise ImageError(
            f"wrong size of {message.encoding}: expected {' and '.join(expected)}, "
            f"got {width} x {height} pixels"
        )


def pixel_rows(message: Any, encoding: _Encoding) -> NDArray:
    """The rows without padding [rows, W, channels], in this machine's byte order.

    A view of the message's memory wherever OpenCV can read that. ImageError if the step or the
    amount of data is wrong.
    """
    dtype = np.dtype(encoding.dtype).newbyteorder("big" if message.is_bigendian else "little")
    pixel_bytes = encoding.channels * dtype.itemsize
    step, rows = message.step, message.height * encoding.half_rows // 2
    if step < message.width * pixel_bytes:
        raise ImageError(
            f"wrong step: expected at least {message.width * pixel_bytes} bytes "
            f"for {message.width} {message.encoding} pixels, got {step}"
        )
    if len(message.data) != rows * step:
        raise ImageError(
            f"wrong amount of data: expected {rows * step} bytes "
            f"for {rows} rows of {step} bytes, got {len(message.data)}"
        )
    pixels: NDArray = np.ndarray(
        (rows, message.width, encoding.channels),
        dtype,
        buffer=message.data,
        strides=(step, pixel_bytes, dtype.itemsize),
    )
    return np.require(pixels, encoding.dtype, "A")  # aligned: the step of 16-bit rows may be odd


def _nv24_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Each pixel becomes two of uyvy, with one chroma; one of them is kept."""
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    luma = data[: height * step].reshape(height, step)[:, :width]
    chroma = data[height * step :].reshape(height, 2 * step)[:, : 2 * width]
    u, v = cv2.split(chroma.reshape(height, width, 2))
    uyvy = cv2.merge([u, luma, v, luma]).reshape(height, 2 * width, 2)
    twice = cv2.cvtColor(uyvy, cv2.COLOR_YUV2RGB_UYVY)
    return np.asarray(cv2.resize(twice, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _decompress(message: Any) -> NDArray[np.uint8]:
    """A compressed picture, understood as its `format` declares it."""
    data = bytes(message.data)
    try:
        declared, target = _declared(message.format)
        check_file(data)
        return _picture_to_rgb(decode_file(data), declared, target)
    except ImageError as error:
        raise ImageError(f"{len(data)} bytes of format {message.format!r}: {error}") from None


def _declared(declaration: str) -> tuple[_Encoding | None, str]:
    """What the `format` of a CompressedImage declares.

    image_transport writes "ENCODING; CODEC compressed TARGET": the encoding of the raw image, and
    that of the picture in the file where the sender converted it. Other senders write only a codec,
    such as "jpeg": then the picture is colour or grey, as sensor_msgs/CompressedImage has it.

    Returns:
        The encoding of the raw image, None if there is none declared; the target, "" if none.
    """
    if "compresseddepth" in declaration.lower():
        raise ImageError("compressedDepth holds distances, expected a picture")
    name, semicolon, rest = (part.strip() for part in declaration.partition(";"))
    is_codec = name.lower() in _CODECS if semicolon else not _OPENCV_TYPE.fullmatch(name)
    if is_codec and name not in ENCODINGS:
        return None, ""
    return _look_up(name), rest.partition("compressed")[2].strip()


def decode_file(data: bytes) -> NDArray:
    """The picture in a file, grey [H, W] or BGR [H, W, 3], of 8 or 16 bit, without alpha."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    flags |= cv2.IMREAD_IGNORE_ORIENTATION  # labels must lie on the sent pixels
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        raise ImageError("corrupt image: it cannot be decoded")
    return picture


def _picture_to_rgb(picture: NDArray, declared: _Encoding | None, target: str) -> NDArray[np.uint8]:
    """A decoded picture as RGB; a mosaic is one if the raw image was, unless it was converted."""
    if declared and picture.dtype.itemsize > np.dtype(declared.dtype).itemsize:
        raise ImageError(f"expected a picture of 8 bits per value, got {picture.dtype}")
    code = cv2.COLOR_BGR2RGB if picture.ndim == 3 else cv2.COLOR_GRAY2RGB
    if declared and declared.bayer and picture.ndim == 2 and not target.startswith("mono"):
        if target in ("bgr8", "rgb8", "bgr16", "rgb16"):
            raise ImageError(f"expected colours ({target}), got one value per pixel")
        if min(picture.shape) < _MIN_BAYER:
            raise ImageError(f"expected a mosaic of at least 3 x 3 pixels, got {picture.shape}")
        return _to_8_bit(cv2.cvtColor(picture, declared.code))
    return np.asarray(cv2.cvtColor(_to_8_bit(picture), code), np.uint8)


JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 100_000_000
"""Largest picture that is decoded. A file of a few kB can declare more than the memory holds."""
MAX_SCANS = 100
"""Of a JPEG: progressive ones of common encoders have about 10, and each costs a pass over all
pixels, however short it is."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""The next marker of a JPEG. Stuffed zeros, fill bytes and restart marks belong to a scan."""
_STANDALONE, _SOI, _EOI, _SOS = 0x01, 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The segments that state the size of the picture (SOF0 to SOF15)."""


def check_file(data: bytes) -> None:
    """Check a JPEG or PNG file before it is decoded; bytes behind its end are allowed.

    OpenCV decodes a file that was cut short and fills in the missing rows, differently in each
    version. So the structure is read here: the segments of a JPEG (ITU T.81, annex B) and the
    chunks of a PNG (W3C recommendation, section 5). A search for the bytes that end a file is not
    enough: a thumbnail inside has them, too.

    Raises:
        ImageError: another kind of file, one cut short or damaged, or of more than `MAX_PIXELS`.
    """
    if data.startswith(JPEG_START):
        width, height = _jpeg_size(data)
    elif data.startswith(PNG_START):
        width, height = _png_size(data)
    else:
        raise ImageError("not an image: expected JPEG or PNG")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"image too large: expected at most {MAX_PIXELS} pixels, got {width} x {height}"
        )


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in the frame header of a JPEG that has all segments and the end mark."""
    size, scans, at = (0, 0), 0, len(JPEG_START)
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _EOI and scans:
            return size
        if code in (_SOI, _EOI):
            break
        if code in _FRAMES and not scans:  # a decoder takes the one before the scans
            size = _number(data, at + 5, 2), _number(data, at + 3, 2)
        scans += code == _SOS
        if scans > MAX_SCANS:
            raise ImageError(f"JPEG: expected at most {MAX_SCANS} scans, got more")
        at += 0 if code == _STANDALONE else _number(data, at, 2)
    raise ImageError("truncated image: the JPEG ends without an end mark after its scans")


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG whose chunks are all there with right checksums."""
    at, name = len(PNG_START), b""
    while name != b"IEND":
        end = at + 8 + _number(data, at, 4)
        if end + 4 > len(data):
            raise ImageError("truncated image: the PNG ends without its chunk IEND")
        name = data[at + 4 : at + 8]
        if at == len(PNG_START) and name != b"IHDR":  # whose size is returned
            raise ImageError(f"corrupt image: the PNG begins with the chunk {name!r}, not IHDR")
        if zlib.crc32(memoryview(data)[at + 4 : end]) != _number(data, end, 4):
            raise ImageError(f"corrupt image: wrong checksum of chunk {name!r} of the PNG")
        at = end + 4
    return _number(data, 16, 4), _number(data, 20, 4)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
