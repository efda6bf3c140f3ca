"""Tracked things before a camera, and the messages of its sensors."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_knet_core.geometry import LabelMap
from video_knet_core.types import (
    ClassInfo,
    ClassTable,
    PanopticFrame,
    StageTimes,
    Track,
    TrackState,
    TrackTable,
)

SECOND = 1_000_000_000
ROAD, PERSON, VEHICLE = 0, 1, 2
CLASSES = ClassTable(
    ClassInfo(number, name, name != "road", (number, number, number))
    for number, name in enumerate(("road", "person", "vehicle"))
)


def thing(
    label: int,
    track_id: int,
    class_id: int = PERSON,
    *,
    box: tuple[int, int, int, int] = (0, 0, 0, 0),
    is_thing: bool = True,
    state: TrackState = TrackState.CONFIRMED,
    score: float = 0.9,
) -> Track:
    """A row of a frame's table; coasted ones have label 0."""
    return Track(
        label, track_id, class_id, is_thing, state, score, score, 1, 0, 0, box,
        (0.0, 0.0), (0.0, 0.0), box[2] * box[3], False,
    )  # fmt: skip


def frame_of(
    labels: LabelMap, tracks: Sequence[Track], stamp: int = 0, epoch: int = 1
) -> PanopticFrame:
    times = StageTimes(0, 0, 0, 0)
    return PanopticFrame(stamp, labels, TrackTable.of(tracks), (), (), epoch, times)


# --- messages ------------------------------------------------------------------------------------


def header(stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    seconds, nanoseconds = divmod(stamp, SECOND)
    return SimpleNamespace(
        frame_id=frame_id, stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)
    )


def camera_info(
    size: tuple[int, int], focal: float, frame_id: str = "camera", **changes: Any
) -> SimpleNamespace:
    """Of a camera without distortion, whose axis is in the middle of the image (H, W)."""
    height, width = size
    k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    fields = {
        "header": header(0, frame_id),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": k,
        "r": list(np.eye(3).ravel()),
        "p": [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    return SimpleNamespace(**{**fields, **changes})


def depth_message(depth: NDArray, stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    """Of metres [H, W]."""
    pixels = np.ascontiguousarray(depth, "<f4")
    return SimpleNamespace(
        header=header(stamp, frame_id),
        height=depth.shape[0],
        width=depth.shape[1],
        encoding="32FC1",
        is_bigendian=0,
        step=4 * depth.shape[1],
        data=pixels.tobytes(),
    )


def cloud_message(points: NDArray, stamp: int, frame_id: str = "camera") -> SimpleNamespace:
    """Of points [N, 3]."""
    data = np.ascontiguousarray(points, "<f4")
    axes = enumerate("xyz")
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7, count=1) for i, n in axes]
    return SimpleNamespace(
        header=header(stamp, frame_id),
        height=1,
        width=len(data),
        fields=fields,
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(data),
        data=data.tobytes(),
    )
