"""Common pixels of the segments of two panoptic maps, from which all tube metrics are computed.

Label maps are large but simple: along a row the labels rarely change. So pixels are looked at
once, to find the runs of equal labels; all that follows works on runs, a few thousand per frame.
The result is a table of segment pairs, a few hundred rows, in exact integers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS

if TYPE_CHECKING:
    from typing_extensions import Self

Labels = NDArray[np.integer]
"""Classes or ids of any integer type."""


@dataclass(frozen=True)
class Classes:
    """The class values that maps may hold: 0..number - 1, and `NO_CLASS` (void)."""

    number: int
    things: tuple[int, ...]

    def is_thing(self, classes: Labels) -> NDArray[np.bool_]:
        """Which of these classes are things; same shape."""
        return np.isin(classes, self.things)


class Overlaps(NamedTuple):
    """Pairs of a true and a predicted segment, each pair once; int64 arrays [N].

    A segment is (class, id); stuff and void have id 0, whatever id the map has.
    """

    true_class: NDArray[np.int64]
    true_id: NDArray[np.int64]
    predicted_class: NDArray[np.int64]
    predicted_id: NDArray[np.int64]
    pixels: NDArray[np.int64]
    """Pixels that the two have in common, > 0."""

    def where(self, rows: NDArray[np.bool_]) -> Overlaps:
        """Some of the pairs: those at `rows`, bool [N]."""
        return Overlaps(*(column[rows] for column in self))

    def of_things(self, classes: Classes) -> Overlaps:
        """With id 0 for all that is no thing of `classes`: what counting with those gives, but that
        a pair may be there more than once until `sum_overlaps` puts it together."""
        return self._replace(
            true_id=np.where(classes.is_thing(self.true_class), self.true_id, 0),
            predicted_id=np.where(classes.is_thing(self.predicted_class), self.predicted_id, 0),
        )


class OverlapMetric(ABC):
    """A metric of panoptic maps, fed with maps or with overlaps that are counted already.

    Args:
        num_classes: classes are 0..num_classes - 1, void is `NO_CLASS`.
        things: the thing classes.
    """

    def __init__(self, num_classes: int, things: Sequence[int]) -> None:
        self.classes = Classes(num_classes, tuple(things))
        self._sequences: dict[Hashable, Any] = {}

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

    def merge(self, other: Self) -> None:
        """Take over the sequences of `other`, none of which is known here."""
        self._sequences |= other._sequences


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
    *columns, pixels = (np.concatenate(arrays) for arrays in zip(*frames, strict=True))
    return _grouped(columns, pixels)


def distinct(
    columns: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Number the different rows of a table given by its columns [N], in rising order.

    Returns:
        The number of each row [N], and the columns of the different rows [columns, numbers].
    """
    order = np.lexsort(columns[::-1])
    table = np.stack(columns)[:, order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (table[:, 1:] != table[:, :-1]).any(axis=0)
    numbers = np.empty(len(order), np.intp)
    numbers[order] = np.cumsum(first) - 1
    return numbers, table[:, first]


def totals(numbers: NDArray[np.intp], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of each number from 0 on; exact integers."""
    sums = np.zeros(int(numbers.max()) + 1, np.int64)
    np.add.at(sums, numbers, pixels)
    return sums


def _check_map(name: str, values: Labels, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise ValueError(f"gt_semantic: expected [H, W] or [T, H, W] with pixels, got {shape}")
    if values.shape != shape:
        raise ValueError(f"{name}: expected {shape} like gt_semantic, got {values.shape}")
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got {values.dtype}")


def _frame_overlaps(maps: Sequence[Labels], classes: Classes) -> Overlaps:
    """The segment pairs of four flat maps [H * W]."""
    starts = np.ones(len(maps[0]), np.bool_)  # of runs: pixels that are equal in all maps
    starts[1:] = False
    for values in maps:
        starts[1:] |= values[1:] != values[:-1]
    places = np.flatnonzero(starts)
    sizes = np.diff(places, append=len(maps[0]))
    gt_class, gt_id, pred_class, pred_id = (values[places] for values in maps)
    truth = _segments("gt", gt_class, gt_id, classes)
    predicted = _segments("pred", pred_class, pred_id, classes)
    return _grouped([*truth, *predicted], sizes)


def _segments(
    name: str, values: Labels, ids: Labels, classes: Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Checked classes and ids; the ids of stuff and void become 0."""
    known = ((values >= 0) & (values < classes.number)) | (values == NO_CLASS)
    if not known.all():
        raise ValueError(
            f"{name}_semantic: expected classes 0..{classes.number - 1} or {NO_CLASS} "
            f"(ignore), got {values[~known][0]}"
        )
    numbers = np.where(classes.is_thing(values), ids.astype(np.int64), 0)
    if (numbers < 0).any():
        raise ValueError(
            f"{name}_instance: expected ids 0..2^63 - 1 of things, got {ids[numbers < 0][0]}"
        )
    return values.astype(np.int64), numbers


def _grouped(columns: Sequence[NDArray[np.int64]], pixels: NDArray[np.int64]) -> Overlaps:
    """One row for all rows of equal columns, their pixels added up."""
    numbers, table = distinct(columns)
    return Overlaps._make([*table, totals(numbers, pixels)])
