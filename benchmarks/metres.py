#!/usr/bin/env python3
"""What each output in metres costs a frame, interleaved with none of them.

    python benchmarks/metres.py [--tracks 30] [--frames 60] [--size 720x1280]

A drawn scene of persons on a road, with an aligned depth image, is located and turned into
messages, by the node's own functions and with the message classes of rosbags. Each output is made
alone in turn, then all of them, in another order in each frame; the figures are medians. Decoding
the depth image is part of each. One thread.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core.bags.definitions import conversions
from video_knet_core.data.frame_source import Intrinsics
from video_knet_core.geometry import LabelMap, NearestUpsampling
from video_knet_core.messages import view_messages
from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.types import (
    TRACK_DTYPE,
    ClassInfo,
    ClassTable,
    PanopticFrame,
    StageTimes,
    TrackState,
    TrackTable,
)

CLASSES = ClassTable(
    ClassInfo(number, name, name == "person", (0, 0, 0))
    for number, name in enumerate(("road", "building", "person"))
)
MAP = (144, 240)
"""Height and width of the label map: that of the shipped model."""
FOCAL = 0.7
"""In widths of the image."""
CAMERA_HEIGHT = 1.5
CLOUDS = ("obstacles", "free_space")
SETS = {
    "none": (),
    **{name: (name,) for name, output in OUTPUTS.items() if output.spatial},
    "both clouds": CLOUDS,
    "objects and both clouds": ("objects", *CLOUDS),
    "all": tuple(name for name, output in OUTPUTS.items() if output.spatial),
}


def scene(tracks: int, size: tuple[int, int], t: int) -> tuple[PanopticFrame, NDArray[np.float32]]:
    """A frame and its depth [H, W]: persons at 4 to 30 m before a wall at 35 m."""
    height, width = size
    focal = FOCAL * width
    rows = np.maximum(np.arange(height) - height / 2, 1e-3)
    depth = np.minimum(focal * CAMERA_HEIGHT / rows, 35.0).astype(np.float32)
    depth = np.repeat(depth[:, None], width, axis=1)
    labels = np.where(depth >= 35.0, 2, 1).astype(np.uint16)
    ranges = np.linspace(30, 4, tracks) + 0.05 * t
    for number, z in enumerate(ranges.tolist()):
        x = int((number * 7919 % tracks + 0.5) / tracks * width)
        foot, head = (int(height / 2 + focal * y / z) for y in (CAMERA_HEIGHT, CAMERA_HEIGHT - 1.7))
        half = max(int(focal * 0.25 / z), 2)
        part = np.s_[max(head, 0) : foot, max(x - half, 0) : x + half]
        labels[part], depth[part] = 3 + number, z
    small = cv2.resize(labels, MAP[::-1], interpolation=cv2.INTER_NEAREST)
    label_map = LabelMap(small, NearestUpsampling(MAP, size))
    regions = label_map.upsampling.measure(small, tracks + 2)
    table = np.zeros(tracks + 2, TRACK_DTYPE)
    table["label"], table["state"] = np.arange(1, tracks + 3), TrackState.CONFIRMED
    table["class_id"][:3] = 0, 1, 2
    table["class_id"][2:], table["is_thing"][2:] = 2, True
    table["track_id"][2:], table["score"] = np.arange(1, tracks + 1), 0.9
    table["box"], table["area"] = regions.boxes, regions.areas
    times = StageTimes(0, 0, 0, 0)
    return PanopticFrame(t * 10**8, label_map, TrackTable(table), (), (), 1, times), depth


def measured(tracks: int, frames: int, size: tuple[int, int]) -> Iterator[tuple[str, float]]:
    """Name of a set of outputs, and the milliseconds that it took in a frame."""
    convert, order = conversions(), random.Random(0)
    locators = {name: ObjectLocator(CLASSES, SpatialSettings(follow_track=tracks)) for name in SETS}
    image = np.full((*size, 3), 90, np.uint8)
    focal = FOCAL * size[1]
    camera = Intrinsics(focal, focal, size[1] / 2, size[0] / 2)
    for t in range(frames):
        frame, depth = scene(tracks, size, t)
        header = convert.make(
            "std_msgs/msg/Header", stamp=convert.time_message(frame.stamp), frame_id="camera"
        )
        info = view_messages.camera_info(convert, header, camera, size)
        depth_image = view_messages.depth_image(convert, header, depth)
        for name in order.sample(list(SETS), len(SETS)):
            locator = locators[name]
            locator.inputs.add_camera_info(info)
            locator.inputs.add_depth(depth_image)
            start = time.perf_counter()
            spatial = locator.locate(frame, image, "camera", frame.stamp)
            result = FrameToPublish(header, image, frame, CLASSES, t, 0, spatial=spatial)
            for output in SETS[name]:
                assert OUTPUTS[output].make(convert, result) is not None, output
            if t:  # the first one computes the rays of the camera
                yield name, 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=30)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", default="720x1280", help="HxW of image and depth")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = {name: [] for name in SETS}
    for name, milliseconds in measured(args.tracks, args.frames, (height, width)):
        times[name].append(milliseconds)
    print(f"{args.tracks} tracks, {width} x {height}, {args.frames} frames; median ms of a frame")
    for name, values in times.items():
        print(f"  {name:<24}{np.median(values):7.2f}   90 % {np.quantile(values, 0.9):7.2f}")


if __name__ == "__main__":
    main()
