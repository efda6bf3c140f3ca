"""Checks of JPEG and PNG files before they are decoded: complete, intact, not too large.

OpenCV decodes a file that was cut short and fills in the missing rows, differently in each version.
So the structure is read here: the segments of a JPEG (ITU T.81, annex B) and the chunks of a PNG
(W3C recommendation, section 5). A search for the bytes that end a file is not enough: a thumbnail
inside has them, too.
"""

from __future__ import annotations

import re
import zlib

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 100_000_000
"""Largest picture that is decoded. A file of a few kB can declare more than the memory holds."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""The next marker of a JPEG. Stuffed zeros, fill bytes and restart marks belong to a scan."""
_STANDALONE, _SOI, _EOI, _SOS = 0x01, 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The segments that state the size of the picture (SOF0 to SOF15)."""


class ImageError(ValueError):
    """An image message that cannot be used; the message names what was expected and what it got."""


def check_file(data: bytes) -> None:
    """Check a JPEG or PNG file before it is decoded; bytes behind its end are allowed.

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
        if code in _FRAMES:
            size = _number(data, at + 5, 2), _number(data, at + 3, 2)
        scans += code == _SOS
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
        if zlib.crc32(memoryview(data)[at + 4 : end]) != _number(data, end, 4):
            raise ImageError(f"corrupt image: wrong checksum of chunk {name!r} of the PNG")
        at = end + 4
    return _number(data, 16, 4), _number(data, 20, 4)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
