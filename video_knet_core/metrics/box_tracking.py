"""Tracking of boxes: CLEAR (Bernardin and Stiefelhagen, 2008), IDF1 (Ristani et al., 2016) and HOTA
(Luiten et al., IJCV 2021), with the numbers of the program TrackEval.

- Boxes are compared by intersection over union, and only with those of their class. Counts are
  summed over classes and sequences, as TrackEval's "det_averaged" of classes does.
- CLEAR and IDF1 match at an IoU of 0.5. CLEAR keeps the pairs of the frame before where it can.
- HOTA is the mean over the thresholds 0.05, 0.10, ... 0.95.
- A box of a track on unlabelled ground that no true box was matched with is left out, neither
  right nor wrong, as KITTI's program does in its "DontCare" regions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..geometry import box_overlap

if TYPE_CHECKING:
    from typing_extensions import Self

THRESHOLD = 0.5
"""Minimum IoU of a box that is found."""
HOTA_THRESHOLDS = np.arange(0.05, 0.99, 0.05)
_CONTINUED = 1000.0  # outweighs any IoU
_EPSILON = np.finfo(float).eps
_CLASSES = 1 << 16  # more than there are


class TrackedBoxes(NamedTuple):
    """Boxes with ids; N in one frame, none twice."""

    ids: NDArray[np.integer]
    """[N] An object is an id and a class together."""
    class_ids: NDArray[np.integer]
    """[N]"""
    boxes: NDArray
    """[N, 4] x, y, width, height in pixels."""

    @classmethod
    def of_maps(
        cls, semantic: NDArray[np.integer], instance: NDArray[np.integer], things: Sequence[int]
    ) -> Self:
        """The boxes of the things with an id > 0 in a class map and an id map [H, W]."""
        y, x = np.nonzero((instance > 0) & np.isin(semantic, things))
        keys = instance[y, x].astype(np.int64) * _CLASSES + semantic[y, x]
        objects, number = np.unique(keys, return_inverse=True)
        low = np.full((2, len(objects)), np.iinfo(np.int64).max)
        high = np.zeros((2, len(objects)), np.int64)
        for axis, values in enumerate((x, y)):
            np.minimum.at(low[axis], number, values)
            np.maximum.at(high[axis], number, values + 1)
        return cls(objects // _CLASSES, objects % _CLASSES, np.concatenate([low, high - low]).T)


@dataclass(frozen=True)
class BoxScores:
    """What `BoxTracking` measured; fractions are NaN where there is no true box."""

    boxes: int
    """True boxes."""
    found: float
    """Fraction of them with a matched box of a track."""
    missed: int
    false: int
    """Boxes of tracks that match none."""
    switches: int
    """Times that an object's track id is not that of the last time it was found."""
    mota: float
    """1 - (missed + false + switches) / boxes; may be negative."""
    idf1: float
    """F1 of the boxes, each object having one track and each track one object."""
    hota: float
    deta: float
    """Its detection part."""
    assa: float
    """Its association part; NaN where nothing was found."""
    ids: float
    """Track ids of an object, mean over the objects that were found at least once."""


class _Frame(NamedTuple):
    true: NDArray[np.int64]
    """[N] objects."""
    tracks: NDArray[np.int64]
    """[M]"""
    similarity: NDArray[np.float64]
    """[N, M] IoU; 0 between classes."""


class BoxTracking:
    """Collects frames of sequences, and measures them together."""

    def __init__(self) -> None:
        self._sequences: dict[Hashable, list[_Frame]] = {}

    def update(
        self,
        truth: TrackedBoxes,
        found: TrackedBoxes,
        unlabelled: NDArray[np.bool_] | None = None,
        sequence: Hashable = 0,
    ) -> None:
        """Add the next frame of a sequence; sequences may take turns.

        Args:
            unlabelled: [M] which of the M found boxes are on ground without labels.
        """
        similarity = np.asarray(box_overlap(truth.boxes, found.boxes), np.float64)
        similarity[truth.class_ids[:, None] != found.class_ids] = 0
        if unlabelled is not None and unlabelled.any():
            matched = best_pairs(np.where(similarity >= THRESHOLD, similarity, 0))[1]
            kept = ~unlabelled
            kept[matched] = True
            found, similarity = TrackedBoxes(*(part[kept] for part in found)), similarity[:, kept]
        objects, tracks = (
            part.ids.astype(np.int64) * _CLASSES + part.class_ids for part in (truth, found)
        )
        self._sequences.setdefault(sequence, []).append(_Frame(objects, tracks, similarity))

    def merge(self, other: Self) -> None:
        """Take over the sequences of `other`, none of which is known here."""
        self._sequences |= other._sequences

    def compute(self) -> BoxScores:
        """The scores of all frames so far."""
        sequences = [_numbered(frames) for frames in self._sequences.values()]
        boxes = sum(len(frame.true) for frames, *_ in sequences for frame in frames)
        tracked = sum(len(frame.tracks) for frames, *_ in sequences for frame in frames)
        clear = [_clear(frames) for frames, *_ in sequences]
        pairs = sum(matches for matches, _, _ in clear)
        switches = sum(changed for _, changed, _ in clear)
        ids = [number for _, _, numbers in clear for number in numbers]
        shared = sum(_identity(*sequence) for sequence in sequences)
        hota_pairs, association = np.zeros((2, len(HOTA_THRESHOLDS)))
        for sequence in sequences:
            matches, associated = _hota(*sequence)
            hota_pairs, association = hota_pairs + matches, association + associated
        nan = float("nan")
        detected = hota_pairs / np.maximum(boxes + tracked - hota_pairs, 1)
        associated = association / np.maximum(hota_pairs, 1)
        missed, false = boxes - pairs, tracked - pairs
        return BoxScores(
            boxes=boxes,
            found=pairs / boxes if boxes else nan,
            missed=missed,
            false=false,
            switches=switches,
            mota=1 - (missed + false + switches) / boxes if boxes else nan,
            idf1=2 * shared / (boxes + tracked) if boxes else nan,
            hota=float(np.sqrt(detected * associated).mean()) if boxes else nan,
            deta=float(detected.mean()) if boxes else nan,
            assa=float(associated.mean()) if pairs else nan,
            ids=float(np.mean(ids)) if ids else nan,
        )


def _numbered(frames: Sequence[_Frame]) -> tuple[list[_Frame], NDArray, NDArray]:
    """The frames of one sequence with objects and tracks numbered from 0, and in how many frames
    each of them is."""
    true, true_counts = _renumbered([frame.true for frame in frames])
    tracks, track_counts = _renumbered([frame.tracks for frame in frames])
    numbered = map(_Frame, true, tracks, [frame.similarity for frame in frames])
    return list(numbered), true_counts, track_counts


def _renumbered(keys: Sequence[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], NDArray]:
    """Keys of each frame as numbers from 0, and how often each number is there."""
    _, numbers, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    return np.split(numbers, np.cumsum([len(part) for part in keys])[:-1]), counts


def _clear(frames: Sequence[_Frame]) -> tuple[int, int, list[int]]:
    """Matched boxes, switches, and of each object that was found the number of its track ids."""
    pairs = switches = 0
    last: dict[int, int] = {}
    before: dict[int, int] = {}
    ids: dict[int, set[int]] = {}
    for true, tracks, similarity in frames:
        if not similarity.size:
            # a frame without boxes on one side leaves the pairs of the one before, as in TrackEval
            continue
        continued = np.array([before.get(n, -1) for n in true.tolist()])[:, None] == tracks
        score = np.where(similarity >= THRESHOLD - _EPSILON, _CONTINUED * continued + similarity, 0)
        rows, columns = best_pairs(score)
        before = dict(zip(true[rows].tolist(), tracks[columns].tolist(), strict=True))
        pairs += len(before)
        for n, track in before.items():
            switches += last.get(n, track) != track
            ids.setdefault(n, set()).add(track)
        last |= before
    return pairs, switches, [len(found) for found in ids.values()]


def _identity(frames: Sequence[_Frame], true_counts: NDArray, track_counts: NDArray) -> int:
    """Boxes that objects share with their one track each, at best."""
    together = np.zeros((len(true_counts), len(track_counts)))
    for true, tracks, similarity in frames:
        together[np.ix_(true, tracks)] += similarity >= THRESHOLD
    rows, columns = best_pairs(together)
    return int(together[rows, columns].sum())


def _hota(
    frames: Sequence[_Frame], true_counts: NDArray, track_counts: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At each threshold, the matched boxes and the sum of their association scores."""
    both = true_counts[:, None] + track_counts
    together = np.zeros(both.shape)
    for true, tracks, similarity in frames:
        total = similarity.sum(0) + similarity.sum(1, keepdims=True) - similarity
        share = np.divide(similarity, total, out=np.zeros_like(similarity), where=total > _EPSILON)
        together[np.ix_(true, tracks)] += share
    alignment = together / (both - together)
    matches = np.zeros((len(HOTA_THRESHOLDS), *both.shape))
    for true, tracks, similarity in frames:
        rows, columns = best_pairs(alignment[np.ix_(true, tracks)] * similarity)
        above = similarity[rows, columns] >= HOTA_THRESHOLDS[:, None] - _EPSILON
        matches[:, true[rows], tracks[columns]] += above
    association = matches * matches / np.maximum(both - matches, 1)
    # exact sums, which do not depend on how tracks are numbered
    sums = [math.fsum(scores[scores > 0].tolist()) for scores in association]
    return matches.sum((1, 2)), np.array(sums)


def best_pairs(scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs with the largest sum of `scores` [N, M] >= 0, each row and
    column in one pair at most; pairs with a score of 0 are left out.

    The Hungarian method with shortest augmenting paths, O(N^2 M). SciPy has it too; the core does
    not depend on SciPy for this alone.
    """
    rows, columns = np.flatnonzero(scores.any(axis=1)), np.flatnonzero(scores.any(axis=0))
    turned = len(rows) > len(columns)
    cost = -scores[np.ix_(rows, columns)].astype(np.float64)
    chosen = _assigned_rows(cost.T if turned else cost)  # [columns] + 1, 0 = none
    second = np.flatnonzero(chosen)
    first = chosen[second] - 1
    if turned:
        first, second = second, first
    order = np.argsort(first)
    found = rows[first[order]], columns[second[order]]
    real = scores[found] > 0
    return found[0][real], found[1][real]


def _assigned_rows(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """[M] 1 + the row of each column at the least sum of `cost` [N, M], N <= M; 0 for no row."""
    count, width = cost.shape
    row_price, price = np.zeros(count + 1), np.zeros(width + 1)
    row_of = np.zeros(width + 1, np.int64)  # column 0 holds the row that has no column yet
    for row in range(1, count + 1):
        row_of[0], column = row, 0
        nearest, visited = np.full(width + 1, np.inf), np.zeros(width + 1, np.bool_)
        previous = np.zeros(width + 1, np.int64)
        while row_of[column]:
            visited[column] = True
            current = row_of[column]
            reduced = cost[current - 1] - row_price[current] - price[1:]
            better = ~visited[1:] & (reduced < nearest[1:])
            nearest[1:][better], previous[1:][better] = reduced[better], column
            following = int(np.where(visited[1:], np.inf, nearest[1:]).argmin()) + 1
            step = nearest[following]
            row_price[row_of[visited]] += step
            price[visited] -= step
            nearest[~visited] -= step
            column = following
        while column:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    return row_of[1:]
