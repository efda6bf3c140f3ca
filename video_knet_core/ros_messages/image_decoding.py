"""Image messages to RGB: every encoding that cameras send.

All of it is OpenCV's own conversion, the one that cv_bridge calls too, so both agree. cv_bridge
itself is not asked: it knows none of the planar encodings, and its Python side shears an image of
several channels whose `step` is no multiple of the pixel size.

The planar encodings nv12, nv21 and nv24 are laid out as image_encodings.hpp and V4L2 have it:
`height` is that of the picture, `step` the length of a row of luma. The rows of luma are followed
by those of chroma. nv12 and nv21 have half as many, as long: step * height * 3/2 bytes in all.
nv24 has as many, twice as long: step * height * 3 bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_RGB = -1
"""In place of an OpenCV conversion code: the pixels are RGB already."""
_NV24 = -2
"""In place of an OpenCV conversion code: OpenCV has none for chroma at full resolution."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


class ImageError(ValueError):
    """An image message that cannot be used; the message names what was found and what is wanted."""


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

    @property
    def least_size(self) -> int:
        return 3 if self.bayer else 1  # of fewer Bayer pixels OpenCV makes a black image

    @property
    def pixel_bytes(self) -> int:
        return self.channels * np.dtype(self.dtype).itemsize


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

    An rgb8 image without row padding is not copied: the result shares the message's memory.
    16-bit values are scaled so that 65535 becomes 255, and rounded, as cv_bridge does it.
    """
    if not hasattr(message, "encoding"):  # a CompressedImage has a format instead
        return _decompress(message)
    encoding = _look_up(message)
    _check_size(message, encoding)
    _check_data(message, encoding)
    if encoding.code == _NV24:
        return _nv24_to_rgb(message)
    pixels = _pixels(message, encoding)
    if not encoding.bayer:  # scaling first is faster, and the same where no values are mixed
        pixels = _to_8_bit(pixels)
    if encoding.code != _RGB:
        pixels = cv2.cvtColor(pixels, encoding.code)
    return np.ascontiguousarray(_to_8_bit(pixels), np.uint8)


def _to_8_bit(pixels: NDArray) -> NDArray:
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=255 / 65535)


def _look_up(message: Any) -> _Encoding:
    try:
        return ENCODINGS[message.encoding]
    except KeyError:
        raise ImageError(
            f"unknown encoding {message.encoding!r}; wanted one of {', '.join(ENCODINGS)}"
        ) from None


def _check_size(message: Any, encoding: _Encoding) -> None:
    height, width = message.height, message.width
    if not height or not width:
        raise ImageError(f"empty image: {width} x {height} pixels")
    wanted = []
    if encoding.even_width and width % 2:
        wanted.append("an even width")
    if encoding.even_height and height % 2:
        wanted.append("an even height")
    if min(height, width) < encoding.least_size:
        wanted.append(f"at least {encoding.least_size} x {encoding.least_size}")
    if wanted:
        raise ImageError(
            f"{width} x {height} pixels cannot be {message.encoding}, wanted {' and '.join(wanted)}"
        )


def _check_data(message: Any, encoding: _Encoding) -> None:
    step, rows = message.step, message.height * encoding.half_rows // 2
    least = message.width * encoding.pixel_bytes
    if step < least:
        raise ImageError(
            f"wrong step: {step} bytes, wanted at least {least} "
            f"for {message.width} {message.encoding} pixels"
        )
    if len(message.data) != rows * step:
        raise ImageError(
            f"wrong amount of data: {len(message.data)} bytes, wanted {rows * step} "
            f"for {rows} rows of {step} bytes"
        )


def _pixels(message: Any, encoding: _Encoding) -> NDArray:
    """The rows without padding [rows, W, channels], in this machine's byte order.

    A view of the message's memory wherever OpenCV can read that.
    """
    dtype = np.dtype(encoding.dtype).newbyteorder("big" if message.is_bigendian else "little")
    pixels: NDArray = np.ndarray(
        (message.height * encoding.half_rows // 2, message.width, encoding.channels),
        dtype,
        buffer=message.data,
        strides=(message.step, encoding.pixel_bytes, dtype.itemsize),
    )
    return np.require(pixels, encoding.dtype, "A")  # aligned: the step of 16-bit rows may be odd


def _nv24_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Each pixel becomes two of uyvy, which share their chroma; one of them is kept."""
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    luma = data[: height * step].reshape(height, step)[:, :width]
    chroma = data[height * step :].reshape(height, 2 * step)[:, : 2 * width]
    u, v = cv2.split(chroma.reshape(height, width, 2))
    uyvy = cv2.merge([u, luma, v, luma]).reshape(height, 2 * width, 2)
    twice = cv2.cvtColor(uyvy, cv2.COLOR_YUV2RGB_UYVY)
    return np.asarray(cv2.resize(twice, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _decompress(message: Any) -> NDArray[np.uint8]:
    data = bytes(message.data)
    found = f"{len(data)} bytes of format {message.format!r}"
    if not data.startswith((_JPEG_START, _PNG_START)):
        raise ImageError(f"not an image: {found}, wanted JPEG or PNG")
    end = _JPEG_END if data.startswith(_JPEG_START) else _PNG_END
    if end not in data:  # OpenCV would make up the missing rows
        raise ImageError(f"truncated image: {found}, without the mark that ends the file")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # labels must lie on the sent pixels
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr is None:
        raise ImageError(f"corrupt image: {found} cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
