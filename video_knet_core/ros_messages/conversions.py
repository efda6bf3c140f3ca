"""Results to messages. `image_decoding` is the way in, from image messages to pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable, PanopticFrame, Track
from .rle import run_lengths

NANOSECONDS = 1_000_000_000
_NOTHING = memoryview(b"")


@dataclass(frozen=True)
class MessageTypes:
    """The message classes of one ROS library; each is called with all its fields by name."""

    Time: Callable[..., Any]
    Header: Callable[..., Any]
    Image: Callable[..., Any]
    RegionOfInterest: Callable[..., Any]
    ClassInfo: Callable[..., Any]
    ClassMap: Callable[..., Any]
    TrackedInstance: Callable[..., Any]
    TrackedInstanceArray: Callable[..., Any]
    sequence: Callable[[str, memoryview], Any]
    """Type code ("B", "I" or "Q") and bytes -> what the library has for a sequence of numbers."""


class Conversions:
    """Makes messages of the given classes."""

    def __init__(self, types: MessageTypes) -> None:
        self._types = types

    def image_message(self, header: Any, encoding: str, pixels: NDArray) -> Any:
        """Image message of `pixels` [H, W] or [H, W, C]; 16-bit values are sent little-endian."""
        if pixels.dtype == np.uint16:
            pixels = pixels.astype("<u2", copy=False)
        data = self._types.sequence("B", _bytes(pixels))
        height, width = pixels.shape[:2]
        return self._types.Image(
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // height,
            data=data,
        )

    def instance_array(
        self,
        header: Any,
        frame: PanopticFrame,
        classes: ClassTable,
        sequence: int,
        skipped: int,
        rle: bool = False,
    ) -> Any:
        """Table of a frame, one row per track; `latency_ms` is left unknown until it is published.

        With `rle` the rows of things carry their masks, whole ones where masks overlap; stuff is in
        the label image for less.
        """
        height, width = frame.label_map.size
        return self._types.TrackedInstanceArray(
            header=header,
            tracker_epoch=frame.epoch,
            sequence=sequence,
            skipped=skipped,
            height=height,
            width=width,
            instances=[
                self._instance(t, classes, _runs(frame, t) if rle and t.is_thing else _NOTHING)
                for t in frame.tracks
            ],
            born=self._types.sequence("Q", _bytes(np.array(frame.born, np.uint64))),
            ended=self._types.sequence("Q", _bytes(np.array(frame.ended, np.uint64))),
            latency_ms=math.nan,
            inference_ms=float(frame.times.step),
        )

    def _instance(self, track: Track, classes: ClassTable, runs: memoryview) -> Any:
        """The row of a track, with the bytes of its run lengths."""
        x, y, width, height = (int(v) for v in track.box)
        return self._types.TrackedInstance(
            label=int(track.label),
            track_id=int(track.track_id),
            class_id=int(track.class_id),
            class_name=classes[track.class_id].name,
            is_thing=bool(track.is_thing),
            state=int(track.state),
            score=float(track.score),
            track_score=float(track.track_score),
            age=int(track.age),
            first_seen=self.time_message(track.first_seen),
            last_seen=self.time_message(track.last_seen),
            roi=self._types.RegionOfInterest(
                x_offset=x, y_offset=y, height=height, width=width, do_rectify=False
            ),
            centroid_x=float(track.centroid[0]),
            centroid_y=float(track.centroid[1]),
            velocity_x=float(track.velocity[0]),
            velocity_y=float(track.velocity[1]),
            area=int(track.area),
            truncated=bool(track.truncated),
            rle=self._types.sequence("I", runs),
        )

    def class_map(self, classes: ClassTable) -> Any:
        """The class table as a message, in id order."""
        rows = []
        for info in classes:
            r, g, b = info.color
            row = self._types.ClassInfo(
                id=info.id, name=info.name, is_thing=info.is_thing, r=r, g=g, b=b
            )
            rows.append(row)
        return self._types.ClassMap(classes=rows)

    def time_message(self, stamp: int) -> Any:
        """Stamp message of integer nanoseconds."""
        sec, nanosec = divmod(int(stamp), NANOSECONDS)
        return self._types.Time(sec=sec, nanosec=nanosec)


def _runs(frame: PanopticFrame, track: Track) -> memoryview:
    """Bytes of the run lengths of a track's mask inside its box; none if it has no pixels."""
    return _bytes(run_lengths(frame.mask_in_box(track))) if track.label else _NOTHING


def _bytes(values: NDArray) -> memoryview:
    return np.ascontiguousarray(values).view(np.uint8).data


def nanoseconds(stamp: Any) -> int:
    """Integer nanoseconds of a stamp message."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def latency_ms(stamp: int, now: int) -> float:
    """Milliseconds from `stamp` to `now` (ns); NaN if the image or the clock has no time yet."""
    return (now - stamp) / 1e6 if stamp and now else math.nan
