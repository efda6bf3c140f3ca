"""Binary masks as run lengths, as COCO and YouTube-VIS store them, by pycocotools.

A mask [H, W] is read column by column; the counts are the lengths of its runs, zeros and ones in
turn, zeros first. JSON holds them as a list or, compressed, as text. pycocotools reads memory
beyond the counts if they are malformed, so they are checked here first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

MAX_PIXELS = 1 << 30
"""OpenCV reads no larger image."""
_COMPRESSED = re.compile(rb"[0-o]*[0-O]")
"""Digits of 5 bits; those from "P" on are followed by another one."""
_MAX_COORDINATE = 1 << 16
"""pycocotools steps along every edge of a polygon, five steps a pixel."""


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A binary mask."""

    size: tuple[int, int]
    """Height and width in pixels."""
    counts: bytes
    """Compressed."""

    @classmethod
    def from_mask(cls, mask: NDArray[Any]) -> RunLengths:
        """Encode [H, W], bool or integers; anything but 0 is inside. ValueError on other arrays."""
        if mask.ndim != 2 or mask.dtype.kind not in "biu":
            raise ValueError(
                f"mask: expected [H, W] of bool or integers, got {mask.dtype} {mask.shape}"
            )
        encoded = coco_mask.encode(np.asfortranarray(mask != 0, np.uint8))
        return cls((mask.shape[0], mask.shape[1]), encoded["counts"])

    @classmethod
    def from_coco(cls, entry: Mapping[str, Any]) -> RunLengths:
        """Read {"size": [height, width], "counts": list or text}; ValueError if it is malformed, or
        the runs do not add up to the pixels of the mask."""
        missing = {"size", "counts"} - entry.keys()
        if missing:
            raise ValueError(f"expected run lengths with size and counts, got {sorted(entry)}")
        height, width = (int(length) for length in entry["size"])
        if min(height, width) < 0 or height * width > MAX_PIXELS:
            raise ValueError(
                f"expected a mask of up to {MAX_PIXELS} pixels, got {height} x {width}"
            )
        counts = entry["counts"]
        if isinstance(counts, str):
            counts = counts.encode()
        if not isinstance(counts, bytes):
            counts = _compressed(np.asarray(counts), height, width)
        elif not _has_sum(counts, height * width):
            raise ValueError(
                f"expected compressed run lengths of {height} x {width} pixels, got {counts[:40]!r}"
            )
        return cls((height, width), counts)

    @classmethod
    def from_polygons(
        cls, polygons: Sequence[NDArray[np.floating]], size: tuple[int, int]
    ) -> RunLengths:
        """The union of polygons [V, 2] of x, y in pixels, rasterised as COCO's own tools do it.

        One of fewer than three corners is empty. ValueError for coordinates far off any image.
        """
        rings = [polygon for polygon in polygons if len(polygon) > 2]
        for ring in rings:
            if not (np.abs(ring) <= _MAX_COORDINATE).all():  # also false for NaN
                raise ValueError(
                    f"expected polygons with coordinates up to {_MAX_COORDINATE}, got {ring}"
                )
        if not rings:
            return cls.from_mask(np.zeros(size, bool))
        flat = [ring.astype(np.float64).ravel().tolist() for ring in rings]
        return cls(size, coco_mask.merge(coco_mask.frPyObjects(flat, *size))["counts"])

    def to_coco(self) -> dict[str, Any]:
        """The compressed entry for JSON."""
        return {"size": list(self.size), "counts": self.counts.decode()}

    def mask(self) -> NDArray[np.bool_]:
        """Decode to [H, W]."""
        if not self.size[0] * self.size[1]:
            return np.zeros(self.size, bool)
        return np.asarray(coco_mask.decode(self.entry)) > 0

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(coco_mask.area(self.entry))

    @property
    def entry(self) -> dict[str, Any]:
        """For the functions of pycocotools."""
        return {"size": self.size, "counts": self.counts}


def _compressed(counts: NDArray[Any], height: int, width: int) -> bytes:
    """ValueError unless the counts are integers >= 0 that add up to the pixels of the mask."""
    if counts.ndim != 1 or (len(counts) and counts.dtype.kind not in "iu"):
        raise ValueError(f"expected run lengths as integers, got {counts.dtype} {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"expected run lengths >= 0, got {counts.min()}")
    if sum(counts.tolist()) != height * width:
        raise ValueError(
            f"expected run lengths of {height} x {width} that add up to {height * width}, "
            f"got {sum(counts.tolist())}"
        )
    if not len(counts):
        return b""
    entry = {"size": [height, width], "counts": counts}
    compressed: bytes = coco_mask.frPyObjects(entry, height, width)["counts"]
    return compressed


def _has_sum(counts: bytes, pixels: int) -> bool:
    """Whether compressed run lengths are those of so many pixels.

    `decode` raises ValueError for runs that go beyond the mask, but not for those that end before.
    """
    if not counts:
        return not pixels
    if not _COMPRESSED.fullmatch(counts):
        return False

    def fits(pixels: int) -> bool:
        try:
            coco_mask.decode({"size": [1, pixels], "counts": counts})
        except ValueError:
            return False
        return True

    return fits(pixels) and not (pixels and fits(pixels - 1))
