"""Label images: values as stored, palettes, damaged files."""

from __future__ import annotations

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest

from video_knet_core.data import label_png
from video_knet_core.data.video import DatasetError


def test_a_palette_is_read_as_positions_not_colours(tmp_path):
    """Two entries of one colour; rows of a 2 x 3 image, each with filter 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0))
    png += chunk(b"PLTE", bytes([9, 8, 7] * 2 + [200, 0, 0] + [1, 2, 3]))
    png += chunk(b"IDAT", zlib.compress(bytes([0, 0, 1, 2, 0, 3, 1, 0]))) + chunk(b"IEND", b"")
    (tmp_path / "labels.png").write_bytes(png)
    assert label_png.read_values(tmp_path / "labels.png").tolist() == [[0, 1, 2], [3, 1, 0]]


def palette_png(side: int) -> bytes:
    """A PNG of positions in a palette; of a large `side` it declares more than it holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)
    rows = zlib.compress(b"\0\1\2\3\4" * 4)
    chunks = ((b"IHDR", header), (b"PLTE", bytes(48)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


@pytest.mark.slow
def test_damaged_label_images_are_read_or_named(tmp_path):
    path, rng = tmp_path / "label.png", np.random.default_rng(0)
    grey = cv2.imencode(".png", np.arange(16, dtype=np.uint16).reshape(4, 4))[1].tobytes()
    rgb = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for number in range(600):
        data = bytearray((palette_png(4), palette_png(60000), grey, rgb)[number % 4])
        for at in rng.integers(0, len(data), rng.integers(0, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data)) if number % 3 == 0 else None])
        for read in (label_png.read_values, label_png.read_rgb):
            with contextlib.suppress(DatasetError):  # all that may be raised
                assert read(path).size
