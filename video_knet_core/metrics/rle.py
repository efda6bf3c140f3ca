"""Run lengths of binary masks, as COCO and YouTube-VIS store them.

A mask [H, W] is read column by column; the counts are the lengths of its runs, zeros and ones in
turn, zeros first. JSON holds them as a list or, compressed, as text (pycocotools, `maskApi.c`):
from the fourth count on the difference to the count two before, each number in digits of 5 bits,
lowest first, two's complement, as the characters from "0" on; bit 6 tells that more digits follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST_NUMBER = 12
"""Digits of 5 bits that fit int64."""


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A binary mask.

    Raises:
        ValueError: a count is negative, or they do not add up to the pixels of the mask.
    """

    size: tuple[int, int]
    """Height and width in pixels."""
    counts: NDArray[np.int64]
    """Pixels of each run; the even ones are outside the mask."""

    def __post_init__(self) -> None:
        height, width = self.size
        if (self.counts < 0).any():
            raise ValueError(f"run lengths must be 0 or more, found {self.counts.min()}")
        if self.counts.sum() != height * width:
            raise ValueError(
                f"run lengths of a mask of {height} x {width} must add up to {height * width}, "
                f"found {self.counts.sum()}"
            )

    @classmethod
    def from_mask(cls, mask: NDArray[Any]) -> RunLengths:
        """Encode [H, W], bool or integers; anything but 0 is inside. ValueError on other arrays."""
        if mask.ndim != 2 or mask.dtype.kind not in "biu":
            raise ValueError(
                f"mask must be [H, W] of bool or integers, found {mask.dtype} {mask.shape}"
            )
        pixels = (mask != 0).ravel(order="F")
        changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
        first = [0] if pixels[:1].any() else []
        counts = np.diff(np.concatenate([first, [0], changes, [len(pixels)]]))
        return cls((mask.shape[0], mask.shape[1]), counts.astype(np.int64))

    @classmethod
    def from_coco(cls, entry: Mapping[str, Any]) -> RunLengths:
        """Read {"size": [height, width], "counts": list or text}; ValueError if malformed."""
        missing = {"size", "counts"} - entry.keys()
        if missing:
            raise ValueError(f"run lengths need size and counts, found {sorted(entry)}")
        counts = entry["counts"]
        if isinstance(counts, (str, bytes)):
            numbers = _decompressed(counts)
        else:
            numbers = np.asarray(counts, np.int64)
        height, width = entry["size"]
        return cls((int(height), int(width)), numbers)

    def to_coco(self) -> dict[str, Any]:
        """The compressed entry for JSON."""
        return {"size": list(self.size), "counts": _compressed(self.counts)}

    def mask(self) -> NDArray[np.bool_]:
        """Decode to [H, W]."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.size, order="F")

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(self.counts[1::2].sum())

    def intersection(self, other: RunLengths) -> int:
        """Pixels inside both; ValueError if sizes differ."""
        if self.size != other.size:
            raise ValueError(f"masks must have one size, found {self.size} and {other.size}")
        edges = self._edges[0]
        before = other._inside_before(edges)
        return int((before[2::2] - before[1:-1:2]).sum())

    @cached_property
    def _edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[N + 1] pixels before each run and after the last one: all, and those inside."""
        inside = self.counts * (np.arange(len(self.counts)) % 2)
        return np.append(0, np.cumsum(self.counts)), np.append(0, np.cumsum(inside))

    def _inside_before(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the first so many pixels are inside."""
        edges, inside = self._edges
        run = np.searchsorted(edges, positions, side="right") - 1
        return inside[run] + (run % 2) * (positions - edges[run])


def _decompressed(text: str | bytes) -> NDArray[np.int64]:
    """Counts from text; ValueError if it has other characters or ends within a number."""
    raw = text.encode() if isinstance(text, str) else text
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - ord("0")
    if not len(codes):
        return codes
    more = codes & 32 > 0
    first = np.flatnonzero(np.append(True, ~more[:-1]))
    digits = np.diff(np.append(first, len(codes)))
    if codes.min() < 0 or codes.max() > 63 or more[-1] or digits.max() > _LONGEST_NUMBER:
        raise ValueError(f"counts must be compressed run lengths, found {text[:40]!r}")
    places = np.arange(len(codes)) - np.repeat(first, digits)
    numbers = np.add.reduceat((codes & 31) << 5 * places, first)
    negative = codes[first + digits - 1] & 16 > 0
    numbers -= np.where(negative, np.int64(1) << 5 * digits, 0)
    for start in (1, 2):  # every second count tells the difference to the one before
        numbers[start::2] = numbers[start::2].cumsum()
    return numbers


def _compressed(counts: NDArray[np.int64]) -> str:
    """Text from counts."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    codes: list[int] = []
    for number in numbers.tolist():
        more = True
        while more:
            digit, number = number & 31, number >> 5
            more = number != (-1 if digit & 16 else 0)
            codes.append(ord("0") + digit + 32 * more)
    return bytes(codes).decode()
