"""Common pixels of the segments of two panoptic maps, from which all tube metrics are computed.

Label maps are large but simple: along a row the labels rarely change. So pixels are looked at
once, to find the runs of equal labels; all that follows works on runs, a few thousand per frame.
The result is a table of segment pairs, a few hundred rows, in exact integers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
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
            raise ValueError(f"num_classes: expected at least 1, got {self.number}")
        unknown = [int(c) for c in self.things if not 0 <= c < self.number]
        if unknown:
            raise ValueError(f"things: expected classes 0..{self.number - 1}, got {unknown}")
        if self.ignore in self.things:
            raise ValueError(f"ignore: expected no thing class, got {self.ignore}")

    def is_thing(self, classes: Labels) -> NDArray[np.bool_]:
        """Which of these classes are things; same shape."""
        return np.isin(classes, self.things)


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a true and a predicted segment, each pair once; int64 arrays [N].

    A segment is (class, id); stuff and void have id 0, whatever id the map has.
    """

    true_class: NDArray[np.int64]
    true_id: NDArray[np.int64]
    predicted_class: NDArray[np.int64]
    predicted_id: NDArray[np.int64]
    pixels: NDArray[np.int64]
    """Pixels that the two have in common, > 0."""

    def columns(self) -> list[NDArray[np.int64]]:
        """The five arrays."""
        truth, predicted = (
            [self.true_class, self.true_id],
            [self.predicted_class, self.predicted_id],
        )
        return [*truth, *predicted, self.pixels]

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


class OverlapMetric(ABC):
    """A metric of panoptic maps, fed with maps or with overlaps that are counted already."""

    classes: Classes

    def update(
        self,
        gt_semantic: Labels,
        gt_instance: Labels,
        pred_semantic: Labels,
        pred_instance: Labels,
        sequence: Hashable = 0,
    ) -> None:
        """Add the next frames of a sequence; sequences may take turns.

        Args:
            gt_semantic, pred_semantic: class maps [H, W] or [T, H, W].
            gt_instance, pred_instance: ids of things, >= 0, same shape; ids hold within a sequence.
            sequence: name of the video that the frames belong to.

        Raises:
            ValueError: see `count_overlaps`; nothing is added then.
        """
        maps = gt_semantic, gt_instance, pred_semantic, pred_instance
        for overlaps in count_overlaps(*maps, self.classes):
            self.add(overlaps, sequence)

    @abstractmethod
    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """Add a frame whose overlaps were counted with at least the things of `classes`."""


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
    maps = gt_semantic, gt_instance, pred_semantic, pred_instance
    names = ("gt_semantic", "gt_instance", "pred_semantic", "pred_instance")
    for name, values in zip(names, maps, strict=True):
        _check_map(name, values, gt_semantic.shape)
    size = gt_semantic.shape[-2] * gt_semantic.shape[-1]
    frames = zip(*(values.reshape(-1, size) for values in maps), strict=True)
    return [_frame_overlaps(frame, classes) for frame in frames]


def sum_overlaps(frames: Sequence[Overlaps]) -> Overlaps:
    """The segment pairs of several frames taken as one volume."""
    tables = zip(*(frame.columns() for frame in frames), strict=True)
    *columns, pixels = (np.concatenate(arrays) for arrays in tables)
    return _grouped(columns, pixels)


def _check_map(name: str, values: Labels, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise ValueError(f"gt_semantic: expected [H, W] or [T, H, W] with pixels, got {shape}")
    if values.shape != shape:
        raise ValueError(f"{name}: expected {shape} like gt_semantic, got {values.shape}")
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got {values.dtype}")


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
            f"{name}_semantic: expected classes 0..{classes.number - 1} or {classes.ignore} "
            f"(ignore), got {values[~known][0]}"
        )
    things = classes.is_thing(values)
    numbers = np.where(things, ids.astype(np.int64), 0)
    if (numbers < 0).any():
        raise ValueError(
            f"{name}_instance: expected ids 0..2^63 - 1 of things, got {ids[numbers < 0][0]}"
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
