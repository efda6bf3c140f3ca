"""How many pixels the segments of two panoptic maps share: what every tube metric is made of.

Label maps are large but simple: along a row the labels rarely change. So pixels are looked at
once, to find the runs of equal labels; all that follows works on runs, a few thousand per frame.
The result is a table of segment pairs, a few hundred rows, in exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
"""Classes or ids of any integer type."""


@dataclass(frozen=True)
class Classes:
    """The class values that maps may hold: 0..number - 1 and `ignore` (void).

    Raises:
        ValueError: there is no class, or a thing is not among the classes or is `ignore`.
    """

    number: int
    things: tuple[int, ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"num_classes must be at least 1, found {self.number}")
        unknown = [int(c) for c in self.things if not 0 <= c < self.number]
        if unknown:
            raise ValueError(f"thing classes must be 0..{self.number - 1}, found {unknown}")
        if self.ignore in self.things:
            raise ValueError(f"ignore must not be a thing class, found {self.ignore}")

    def is_thing(self, classes: Labels) -> NDArray[np.bool_]:
        """Which of these classes are things; same shape."""
        return np.isin(classes, self.things)


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a true and a predicted segment, each pair once; int64 arrays [N].

    A segment is (class, id); stuff and void have id 0, whatever the map says.
    """

    true_class: NDArray[np.int64]
    true_id: NDArray[np.int64]
    predicted_class: NDArray[np.int64]
    predicted_id: NDArray[np.int64]
    pixels: NDArray[np.int64]
    """Pixels that the two have in common, > 0."""

    def columns(self) -> list[NDArray[np.int64]]:
        """The five arrays."""
        return [
            self.true_class,
            self.true_id,
            self.predicted_class,
            self.predicted_id,
            self.pixels,
        ]

    def where(self, rows: NDArray[np.bool_]) -> Overlaps:
        """Some of the pairs: those at `rows`, bool [N]."""
        return Overlaps(*(column[rows] for column in self.columns()))

    def of_things(self, classes: Classes) -> Overlaps:
        """With id 0 for all that is no thing of `classes`: what counting with those gives, but that
        a pair may be there more than once until `sum_overlaps` puts it together."""
        return Overlaps(
            self.true_class,
            np.where(classes.is_thing(self.true_class), self.true_id, 0),
            self.predicted_class,
            np.where(classes.is_thing(self.predicted_class), self.predicted_id, 0),
            self.pixels,
        )


def count_overlaps(
    gt_semantic: Labels,
    gt_instance: Labels,
    pred_semantic: Labels,
    pred_instance: Labels,
    classes: Classes,
) -> list[Overlaps]:
    """The segment pairs of each frame.

    Args:
        gt_semantic, pred_semantic: class maps [H, W] or [T, H, W].
        gt_instance, pred_instance: ids of things, same shape; not looked at elsewhere.
        classes: the values that class maps may hold.

    Raises:
        ValueError: shapes differ or have no pixels, a map is not of integers, a class is unknown,
            or a thing's id is not in 0..2^63 - 1.
    """
    maps = {
        "gt_semantic": gt_semantic,
        "gt_instance": gt_instance,
        "pred_semantic": pred_semantic,
        "pred_instance": pred_instance,
    }
    for name, values in maps.items():
        _check_map(name, values, gt_semantic.shape)
    size = gt_semantic.shape[-2] * gt_semantic.shape[-1]
    frames = zip(*(values.reshape(-1, size) for values in maps.values()), strict=True)
    return [_frame_overlaps(frame, classes) for frame in frames]


def sum_overlaps(frames: Sequence[Overlaps]) -> Overlaps:
    """The segment pairs of several frames taken as one volume."""
    tables = zip(*(frame.columns() for frame in frames), strict=True)
    *columns, pixels = (np.concatenate(arrays) for arrays in tables)
    return _grouped(columns, pixels)


def _check_map(name: str, values: Labels, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise ValueError(f"gt_semantic must be [H, W] or [T, H, W] with pixels, found {shape}")
    if values.shape != shape:
        raise ValueError(f"{name} must be {shape} like gt_semantic, found {values.shape}")
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, found {values.dtype}")


def _frame_overlaps(maps: Sequence[Labels], classes: Classes) -> Overlaps:
    """The segment pairs of four flat maps [H * W]."""
    starts = _run_starts(maps)
    sizes = np.diff(starts, append=len(maps[0]))
    gt_class, gt_id, pred_class, pred_id = (values[starts] for values in maps)
    truth = _segments("gt", gt_class, gt_id, classes)
    predicted = _segments("pred", pred_class, pred_id, classes)
    return _grouped([*truth, *predicted], sizes)


def _run_starts(maps: Sequence[Labels]) -> NDArray[np.intp]:
    """Where runs start in flat maps: any stretch of pixels that are equal in all of them."""
    starts = np.ones(len(maps[0]), np.bool_)
    starts[1:] = False
    for values in maps:
        starts[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(starts)


def _segments(
    name: str, values: Labels, ids: Labels, classes: Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Checked classes and ids; the ids of stuff and void become 0."""
    known = ((values >= 0) & (values < classes.number)) | (values == classes.ignore)
    if not known.all():
        raise ValueError(
            f"{name}_semantic holds class {values[~known][0]}, "
            f"wanted 0..{classes.number - 1} or {classes.ignore} (ignore)"
        )
    things = classes.is_thing(values)
    numbers = np.where(things, ids.astype(np.int64), 0)
    if (numbers < 0).any():
        raise ValueError(
            f"{name}_instance holds id {ids[numbers < 0][0]} on a thing, wanted 0..2^63 - 1"
        )
    return values.astype(np.int64), numbers


def _grouped(columns: Sequence[NDArray[np.int64]], pixels: NDArray[np.int64]) -> Overlaps:
    """One row for all rows of equal columns, their pixels added up."""
    order = np.lexsort(columns[::-1])
    table = np.stack(columns)[:, order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (table[:, 1:] != table[:, :-1]).any(axis=0)
    starts = np.flatnonzero(first)
    unique = [column[starts] for column in table]
    return Overlaps(*[*unique, np.add.reduceat(pixels[order], starts)])
