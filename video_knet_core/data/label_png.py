"""Label images as files: values exactly as stored, and the codes of several data sets."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image_files import decode_pixels, write_pixels
from ..output_files import inside
from ..types import NO_CLASS
from .video import DatasetError

_GREYS = np.arange(256, dtype=np.uint8).repeat(3).tobytes()


def read_values(path: str | Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A label image of one value per pixel, [H, W], 8 or 16 bit; DatasetError if it is none.

    Of an image with a palette the values are the positions in it, not the colours.
    """
    data = _bytes(path)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\x03":  # it has a palette
        values = _decode(_grey_palette(data), cv2.IMREAD_COLOR, path)[..., 0]
    else:
        values = _decode(data, cv2.IMREAD_UNCHANGED, path)
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        raise DatasetError(f"{path}: expected one value per pixel, got {_kind(values)}")
    return values


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """A label image of three 8-bit channels, [H, W, 3] RGB; DatasetError if it is none."""
    values = _decode(_bytes(path), cv2.IMREAD_UNCHANGED, path)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8:
        raise DatasetError(f"{path}: expected three 8-bit channels, got {_kind(values)}")
    return values[..., ::-1]


def write_png(path: str | Path, values: NDArray) -> None:
    """Write [H, W] u8 or u16, or RGB [H, W, 3] u8; makes folders. OSError if it cannot."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_pixels(Path(path), values[..., ::-1] if values.ndim == 3 else values)


def segment_ids(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[H, W] of the COCO panoptic code R + 256 G + 65536 B; 0 = void."""
    return rgb.astype(np.int64) @ np.array([1, 256, 65536])


def segment_colors(ids: NDArray) -> NDArray[np.uint8]:
    """[..., 3]; the inverse of `segment_ids`. ValueError for ids beyond 24 bits."""
    if ids.size and not 0 <= ids.min() <= ids.max() < 1 << 24:
        raise ValueError(f"expected segment ids 0..{(1 << 24) - 1}, got {ids.min()}..{ids.max()}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def step_rgb(semantic: NDArray[np.integer], instance: NDArray) -> NDArray[np.uint8]:
    """[H, W, 3] of the KITTI-STEP code: R = class, G * 256 + B = instance.

    `semantic` [H, W] has class ids, 255 = void, `instance` [H, W] ids 0..65535, 0 for stuff.
    ValueError if they differ in size, or an id does not fit.
    """
    check_maps(semantic, instance)
    if instance.size and not 0 <= instance.min() <= instance.max() < 1 << 16:
        raise ValueError(f"expected instance ids 0..65535, got {instance.min()}..{instance.max()}")
    return np.stack([semantic, instance >> 8, instance & 255], axis=-1).astype(np.uint8)


def write_step(
    out: Path, video: str, frame: str, semantic: NDArray[np.integer], instance: NDArray
) -> None:
    """Write OUT/VIDEO/FRAME.png. Raises as `step_rgb`, and OSError."""
    write_png(inside(out, Path(video, f"{frame}.png")), step_rgb(semantic, instance))


def check_maps(semantic: NDArray, instance: NDArray) -> None:
    """ValueError unless both are [H, W], with class ids of 8 bits."""
    if semantic.ndim != 2 or semantic.shape != instance.shape:
        raise ValueError(
            f"expected semantic and instance [H, W], got {semantic.shape}, {instance.shape}"
        )
    if semantic.size and not 0 <= semantic.min() <= semantic.max() <= NO_CLASS:
        raise ValueError(
            f"expected class ids 0..{NO_CLASS}, got {semantic.min()}..{semantic.max()}"
        )


def class_values(class_count: int) -> NDArray[np.int64]:
    """The table for `look_up` of values that are class ids, or `NO_CLASS`."""
    table = np.full(NO_CLASS + 1, -1, np.int64)
    table[:class_count], table[NO_CLASS] = np.arange(class_count), NO_CLASS
    return table


def look_up(values: NDArray, table: NDArray, path: str | Path) -> NDArray:
    """`table[values]`; DatasetError where `values` [H, W] go beyond the table or hit a -1 in it."""
    inside = values < len(table)
    found = table[np.where(inside, values, 0)]
    wrong = ~inside | (found < 0)
    if wrong.any():
        raise DatasetError(
            f"{path}: expected one of {value_ranges(np.flatnonzero(table >= 0))}, "
            f"got {int(values[wrong][0])}"
        )
    return found


def value_ranges(values: NDArray) -> str:
    """0..124, 255 for many numbers."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in runs)


def _bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"there is no label image {path}") from None
    except (OSError, ValueError) as error:  # as of a folder, or a null character in the path
        raise DatasetError(f"label image {str(path)!r} cannot be read: {error}") from None
    if not data:  # the first VSPW archive had some
        raise DatasetError(f"{path}: expected a PNG, got an empty file")
    return data


def _decode(data: bytes, flags: int, path: str | Path) -> NDArray:
    """The values in a file; DatasetError if OpenCV cannot read it."""
    values = decode_pixels(np.frombuffer(data, np.uint8), flags)
    if values is None:
        raise DatasetError(f"{path} is no image that OpenCV can read")
    return values


def _kind(values: NDArray) -> str:
    channels = 1 if values.ndim == 2 else values.shape[2]
    return f"an image of {channels} channels of {values.dtype.itemsize * 8} bit"


def _grey_palette(data: bytes) -> bytes:
    """The PNG with entry i of its palette made the grey (i, i, i).

    OpenCV decodes colours only; through this palette the colours are the positions themselves.
    """
    at = data.find(b"PLTE")
    if at < 0:
        return data  # damaged, as decoding it will show
    chunk = b"PLTE" + _GREYS[: int.from_bytes(data[at - 4 : at], "big")]
    return data[:at] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[at + len(chunk) + 4 :]
