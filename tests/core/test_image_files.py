"""Image files of any name, size and content."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from video_knet_core.image_files import read_pixels, write_pixels


@pytest.mark.parametrize("name", ["plain.png", "名前.png", "no text \udcff.png"])
def test_an_image_of_any_name_is_written_and_read(name, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (7, 9), np.uint16)
    write_pixels(tmp_path / name, pixels)
    np.testing.assert_array_equal(read_pixels(tmp_path / name, cv2.IMREAD_UNCHANGED), pixels)


def header(side: int) -> bytes:
    """A PNG that declares an image of side x side and ends there."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.parametrize("content", [b"", b"text", header(8), header(100_000), None])
def test_what_is_no_image_is_none(content, tmp_path):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    assert read_pixels(path) is None


def test_a_folder_is_no_image(tmp_path):
    assert read_pixels(tmp_path) is None


def test_a_file_that_cannot_be_written_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_pixels(tmp_path / "none/x.png", np.zeros((2, 2), np.uint8))
