"""The contracts between the parts: what an engine returns, what a tracker makes of it.

Kernel slots are positions in a tensor and mean nothing beyond their frame; track ids are names that
never change. `Detections` has slots, `Track` and `PanopticFrame` have ids.
Stamps are integer nanoseconds everywhere, as in a ROS header.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import zip_longest
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .geometry import NO_REGIONS, Box, LabelMap, OverlappingMasks, Regions

NO_CLASS = 255
"""Class value of pixels that belong to no segment (also "ignore" in ground truth). Class ids are
8 bits everywhere, so a table has at most this many classes: 0..254."""
SOME_STUFF = 254
"""Class value in labels to learn from: stuff of a class that is not known. Tables that meet it have
at most this many classes."""
ClassKind = tuple[str, bool]
"""Name of a class, and whether it is a thing."""


@dataclass(frozen=True)
class ClassInfo:
    """One row of a class table; `color` is RGB, 0..255."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]


class ClassTable(tuple[ClassInfo, ...]):
    """The classes of a model, ids 0..K-1 in order.

    The network's logits put things before stuff (as the authors' code does); `logit_class_ids`
    is the only bridge between the two orders.
    """

    def __new__(cls, classes: Iterable[ClassInfo]) -> ClassTable:
        table = super().__new__(cls, classes)
        ids = [c.id for c in table]
        if ids != list(range(len(ids))):
            raise ValueError(f"class ids: expected 0..{len(ids) - 1} in order, got {ids}")
        if len(ids) > NO_CLASS:
            raise ValueError(
                f"expected at most {NO_CLASS} classes (ids are 8 bits, {NO_CLASS} is no class), "
                f"got {len(ids)}: {table[NO_CLASS].name!r} would be class {NO_CLASS}"
            )
        _check_names(table)
        return table

    def id_of(self, name: str) -> int:
        """Id of the class called `name` by `plain_name`; KeyError names the classes there are."""
        for info in self:
            if plain_name(info.name) == plain_name(name):
                return info.id
        raise KeyError(f"no class {name!r}; there are {[c.name for c in self]}")

    @property
    def things(self) -> tuple[int, ...]:
        """Ids of the thing classes, ascending."""
        return tuple(c.id for c in self if c.is_thing)

    @property
    def stuff(self) -> tuple[int, ...]:
        """Ids of the stuff classes, ascending."""
        return tuple(c.id for c in self if not c.is_thing)

    @property
    def kinds(self) -> tuple[ClassKind, ...]:
        """Name of each class, and whether it is a thing: what makes two tables the same."""
        return tuple((c.name, c.is_thing) for c in self)

    @property
    def logit_class_ids(self) -> tuple[int, ...]:
        """Class id of each logit: things first, then stuff."""
        return self.things + self.stuff

    def to_rows(self) -> list[dict[str, object]]:
        """Plain rows for YAML and JSON; `from_rows` is the inverse."""
        return [{"name": c.name, "is_thing": c.is_thing, "color": list(c.color)} for c in self]

    @classmethod
    def from_rows(cls, rows: Sequence[dict]) -> ClassTable:
        """From rows of `name`, `is_thing`, `color`; ValueError names the class that is unusable.

        Names are composed (Unicode NFC), so that equal names are equal however they were typed.
        """
        return cls(_class_info(number, row) for number, row in enumerate(rows))


def plain_name(name: str) -> str:
    """`name` as names are compared: without case, and with "_" for spaces, hyphens, underscores.

    Data sets differ in those ("tennis racket", "tennis_racket"). Letters of any script are kept.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return _SEPARATORS.sub("_", folded).strip("_")


def first_difference(expected: Iterable[ClassKind], got: Iterable[ClassKind]) -> str:
    """The first class that differs in name or kind, by number; empty if all are equal."""
    for number, (ours, theirs) in enumerate(zip_longest(expected, got)):
        if not ours or not theirs or _compared(ours) != _compared(theirs):
            return f"class {number}: expected {_named(ours)}, got {_named(theirs)}"
    return ""


_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
_KEYS = {"name", "is_thing", "color"}


def _class_info(number: int, row: object) -> ClassInfo:
    """One row of a table; ValueError names what is wrong with it."""
    if not isinstance(row, Mapping) or set(row) != _KEYS:
        got = sorted(map(str, row)) if isinstance(row, Mapping) else repr(row)
        raise ValueError(f"class {number}: expected the keys {sorted(_KEYS)}, got {got}")
    name, is_thing, color = row["name"], row["is_thing"], row["color"]
    if not isinstance(name, str):
        raise ValueError(
            f"class {number}: name: expected text, got {name!r}; in YAML put it in quotes"
        )
    if not isinstance(is_thing, bool):
        raise ValueError(f"class {number}: is_thing: expected true or false, got {is_thing!r}")
    values = color if isinstance(color, list | tuple) else ()
    if len(values) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in values):
        raise ValueError(f"class {number}: color: expected three values 0..255, got {color!r}")
    return ClassInfo(number, unicodedata.normalize("NFC", name), is_thing, tuple(values))


def _check_names(classes: Sequence[ClassInfo]) -> None:
    """ValueError unless all names are printable and differ as `plain_name` compares them."""
    seen: dict[str, ClassInfo] = {}
    for info in classes:
        plain = plain_name(info.name)
        if not plain or any(unicodedata.category(c) in ("Cc", "Cs") for c in info.name):
            raise ValueError(f"class {info.id}: expected a name of letters, got {info.name!r}")
        other = seen.setdefault(plain, info)
        if other is not info:
            raise ValueError(
                f"class names must differ in more than case, spaces, hyphens and underscores, "
                f"got {other.name!r} (class {other.id}) and {info.name!r} (class {info.id})"
            )


def _compared(kind: ClassKind) -> ClassKind:
    return plain_name(kind[0]), kind[1]


def _named(kind: ClassKind | None) -> str:
    return f"{kind[0]!r} ({'thing' if kind[1] else 'stuff'})" if kind else "none"


def check_image(image: NDArray[np.uint8], *sizes: tuple[int, int]) -> None:
    """ValueError unless `image` is uint8 [H, W, 3] with pixels, and of one of `sizes` (H, W) if
    there are any."""
    rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    if not rgb or (sizes and image.shape[:2] not in sizes):
        expected = " or ".join(str((*size, 3)) for size in sizes) or "[H, W, 3] with pixels"
        raise ValueError(f"image: expected uint8 {expected}, got {image.dtype} {image.shape}")


@dataclass(frozen=True)
class Detections:
    """The segments of one frame as arrays; row i of each is segment i.

    An engine returns one row for each kernel slot, with and without a segment. A tracker gets the
    rows of things that have pixels, with `regions`, `image` and `image_size` filled in.
    Shapes: h, w = the engine's map (smaller than the image); S = kernel slots; N = rows; E =
    embedding size.
    """

    segment_map: NDArray[np.uint8]
    """[h, w]; 0 = no segment, s + 1 = slot s."""
    class_ids: NDArray[np.int64]
    """[N]"""
    scores: NDArray[np.float32]
    """[N] class scores 0..1."""
    areas: NDArray[np.int64]
    """[N] pixels in the map, or in `masks` if there are any; 0 = no segment."""
    embeddings: NDArray[np.float32]
    """[N, E] association embeddings, not normalised; [N, 0] in task semantic."""
    boxes: NDArray[np.floating | np.integer] | None = None
    """[N, 4] xmin, ymin, xmax, ymax, inclusive, in map pixels, if the quasi-dense tracker has to
    use others than the tight ones (torch with the reference merge; exported models have none)."""
    kernels: NDArray[np.float32] | None = None
    """[N, C] final kernels of the network, before linking; None if the engine returns none."""
    masks: NDArray[np.uint8] | None = None
    """[S, h, w] of 0 and 1, in task instance, where masks may overlap: the map then shows the
    frontmost of each pixel. Those without a segment are empty."""
    depth: NDArray[np.float32] | None = None
    """[h, w] metres along the optical axis, of a network that estimates them."""
    slots: NDArray[np.int64] | None = None
    """[N] the slot of each row; None = row s is slot s."""
    regions: Regions = NO_REGIONS
    """[N] geometry in the image."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width of the image."""
    image: NDArray[np.uint8] | None = None
    """[H, W, 3] RGB at the size of the engine's input, for trackers that read pixels."""

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, NDArray], model: str) -> Detections:
        """From the outputs of the deploy form, which have the names of the fields.

        NaN or infinite kernels or embeddings are a FloatingPointError that names the `model`.
        """
        kernels = outputs["kernels"]
        embeddings = outputs.get("embeddings", np.zeros((len(kernels), 0), np.float32))
        if not (np.isfinite(embeddings).all() and np.isfinite(kernels).all()):
            raise FloatingPointError(f"{model} returned kernels that are not finite")
        # the state goes on with what else the slots remember; embeddings are as wide as kernels
        kernels = kernels[:, : embeddings.shape[1] or None]
        fields: dict[str, Any] = {**outputs, "embeddings": embeddings, "kernels": kernels}
        return cls(**fields)

    def __len__(self) -> int:
        return len(self.class_ids)

    def take(self, rows: NDArray[np.int64]) -> Detections:
        """Only these rows of an engine's detections, in this order; map and masks stay whole."""
        return replace(
            self,
            class_ids=self.class_ids[rows],
            scores=self.scores[rows],
            areas=self.areas[rows],
            embeddings=self.embeddings[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            kernels=None if self.kernels is None else self.kernels[rows],
            slots=rows if self.slots is None else self.slots[rows],
        )

    @cached_property
    def row_masks(self) -> NDArray[np.bool_]:
        """[N, h, w] the pixels of each row, made on first access."""
        slots = np.arange(len(self)) if self.slots is None else self.slots
        if self.masks is not None:
            return self.masks[slots].view(np.bool_)
        return self.segment_map == (1 + slots).astype(self.segment_map.dtype)[:, None, None]


class TrackState(IntEnum):
    """Life of a track. A tentative track may still vanish; a coasted one has no pixels now."""

    TENTATIVE = 0
    """New, and not sure yet."""
    CONFIRMED = 1
    """Seen often enough."""
    COASTED = 2
    """Confirmed, and without pixels in this frame."""


@dataclass(frozen=True)
class Track:
    """One segment of a frame with its identity: a tracked instance, or a stuff region.

    Geometry is in pixels of the input image and that of `PanopticFrame.mask` exactly. A coasted
    track keeps its last geometry, with label 0 and area 0.
    """

    label: int
    """Its value in `PanopticFrame.labels`; 0 = no pixels in this frame."""
    track_id: int
    """1, 2, ... never reused within an epoch; 0 = stuff, or a thing too uncertain for a track."""
    class_id: int
    is_thing: bool
    state: TrackState
    score: float
    """Class score in this frame, 0..1 (the last one while coasted)."""
    track_score: float
    """Running mean of the score over the life of the track, 0..1."""
    age: int
    """Frames in which the track had pixels, this one included."""
    first_seen: int
    last_seen: int
    """Stamps in nanoseconds."""
    box: Box
    """x, y, width, height of the tight box."""
    centroid: tuple[float, float]
    """x, y of the mean pixel centre."""
    velocity: tuple[float, float]
    """Pixels per second of the centroid; NaN when unknown (first frame, stuff)."""
    area: int
    truncated: bool
    """The box touches the border of the image."""


TRACK_DTYPE = np.dtype(
    [
        *(("label", np.int64), ("track_id", np.int64), ("class_id", np.int64)),
        *(("is_thing", np.bool_), ("state", np.int64)),
        *(("score", np.float64), ("track_score", np.float64)),
        *(("age", np.int64), ("first_seen", np.int64), ("last_seen", np.int64)),
        *(("box", np.int64, 4), ("centroid", np.float64, 2), ("velocity", np.float64, 2)),
        *(("area", np.int64), ("truncated", np.bool_)),
    ]
)
"""Rows of a `TrackTable`: the fields of `Track`."""
_STATES = tuple(TrackState)
_UNKNOWN = (math.nan, math.nan)
"""One object, so that tracks with unknown velocities can be equal."""


class TrackTable(Sequence[Track]):
    """Tracks as an array [n] of `TRACK_DTYPE`; items are `Track`s, made on access."""

    def __init__(self, array: NDArray[np.void]) -> None:
        self.array = array

    @classmethod
    def of(cls, tracks: Iterable[Track]) -> TrackTable:
        """From single rows."""
        names = TRACK_DTYPE.names or ()
        rows = [tuple(getattr(track, name) for name in names) for track in tracks]
        return cls(np.array(rows, TRACK_DTYPE))

    def values(self) -> Iterator[tuple[Any, ...]]:
        """The fields of each row as plain values, in the order of `Track`."""
        columns: dict[str, Any] = {n: self.array[n].tolist() for n in TRACK_DTYPE.names or ()}
        columns["state"] = map(_STATES.__getitem__, columns["state"])
        columns["box"] = map(tuple, columns["box"])
        columns["centroid"] = map(tuple, columns["centroid"])
        columns["velocity"] = (_UNKNOWN if v[0] != v[0] else tuple(v) for v in columns["velocity"])
        return zip(*columns.values(), strict=True)

    @cached_property
    def _tracks(self) -> tuple[Track, ...]:
        return tuple(Track(*values) for values in self.values())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> Track: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Track, ...]: ...
    def __getitem__(self, index: int | slice) -> Track | tuple[Track, ...]:
        return self._tracks[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._tracks == tuple(other)

    def __repr__(self) -> str:
        return repr(self._tracks)


def rows_without_track(
    class_ids: NDArray[np.int64], scores: NDArray, regions: Regions, stamp: int, is_thing: bool
) -> NDArray[np.void]:
    """[N] rows of segments that were seen in this frame alone, at `stamp` [ns].

    They are things without a track, which are tentative, or stuff, which is confirmed; `class_ids`
    and `scores` 0..1 are [N].
    """
    rows = np.zeros(len(class_ids), TRACK_DTYPE)
    rows["class_id"], rows["is_thing"] = class_ids, is_thing
    rows["state"] = TrackState.TENTATIVE if is_thing else TrackState.CONFIRMED
    rows["score"] = rows["track_score"] = scores
    rows["age"], rows["first_seen"], rows["last_seen"] = 1, stamp, stamp
    rows["box"], rows["centroid"], rows["velocity"] = regions.boxes, regions.centroids, math.nan
    rows["area"], rows["truncated"] = regions.areas, regions.truncated
    return rows


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds that each stage of one frame took, on the clock of the wall."""

    preprocess: float
    """Resizing the image to the engine's size."""
    step: float
    """The engine: network and merge of the masks."""
    merge: float
    """Regions of the segments, and the label map at image size."""
    track: float
    """Matching the segments with the tracks."""


@dataclass(frozen=True)
class PanopticFrame:
    """The result for one image: a label map, and a table with a row per label and coasted track.

    In task semantic all rows are stuff: track id 0, nothing born or ended. In task instance masks
    may overlap: the label map shows the frontmost instance of each pixel, 0 is background, and a
    row may have no pixel there that has some in its mask.
    """

    stamp: int
    """Nanoseconds; the stamp given to `VideoPredictor.step`."""
    label_map: LabelMap
    """Label of each pixel of the input image; 0 = no segment."""
    tracks: TrackTable
    """Labels 1..n in order, then coasted tracks (label 0)."""
    born: tuple[int, ...]
    """Track ids first given in this frame."""
    ended: tuple[int, ...]
    """Track ids that ended with this frame; they never come back. A reset names none."""
    epoch: int
    """Number of the epoch, +1 at a reset of the tracker; an epoch and a track id name an object."""
    times: StageTimes
    masks: OverlappingMasks | None = None
    """Whole masks of the labels, in task instance."""

    @cached_property
    def labels(self) -> NDArray[np.uint16]:
        """[H, W] the label map at the size of the input image, made on first access."""
        return self.label_map.enlarge()

    def mask(self, track: Track, in_box: bool = False) -> NDArray[np.bool_]:
        """[H, W] the pixels of a row; with `in_box`, faster, those in its box [height, width].

        That is `labels == track.label`, but for task instance: there it is the whole mask, also
        where another instance is in front. A coasted track has none.
        """
        rows, columns = self.label_map.size
        box = track.box if in_box else (0, 0, columns, rows)
        if not track.label:
            return np.zeros((box[3], box[2]), np.bool_)
        if self.masks is not None:
            return self.masks.enlarge(track.label, box)
        return self.label_map.upsampling.enlarge(self.label_map.small == track.label, box)

    def semantic_map(
        self, unassigned: int = NO_CLASS, out: NDArray | None = None
    ) -> NDArray[np.uint8]:
        """[H, W] class id of each pixel, `unassigned` where there is no segment.

        The authors' code has 0, so that unassigned pixels become road. It is written into `out`, if
        that is given.
        """
        return self.label_map.look_up(self.by_label("class_id", unassigned, np.uint8), out)

    def json_rows(self, classes: ClassTable) -> list[dict[str, Any]]:
        """The rows of the table for JSON, which has no NaN: an unknown velocity is None."""
        return [
            {
                **asdict(track),
                "velocity": None if any(map(math.isnan, track.velocity)) else track.velocity,
                "state": track.state.name.lower(),
                "class_name": classes[track.class_id].name,
            }
            for track in self.tracks
        ]

    def track_id_map(self) -> NDArray[np.int64]:
        """[H, W] track id of each pixel; 0 for stuff and for no segment."""
        return self.label_map.look_up(self.by_label("track_id", 0, np.int64))

    def by_label(self, field: str, background: int, dtype: type) -> NDArray:
        """A field of the rows by label, [labels]; `background` for label 0."""
        rows = self.tracks.array
        table = np.zeros(1 + rows["label"].max(initial=0), dtype)
        table[rows["label"]] = rows[field]
        table[0] = background
        return table
