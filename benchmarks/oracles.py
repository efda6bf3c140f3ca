#!/usr/bin/env python3
"""What limits a model on clips with true tracks: its ids, its masks, or what it does not find.

    python benchmarks/oracles.py --model MODEL.onnx --data DATA [--clips 4] [--frames 40]

STQ, AQ and SQ of the results as they are, and of the same results corrected by the truth: with true
ids for all that was found, with true masks for all that was found, and with both. What is left then
is what was not found, and stuff.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.evaluate.judges import open_sets, true_clips
from video_knet_core.metrics.stq import SegmentationTrackingQuality
from video_knet_core.predictor import VideoPredictor

SETS = ("synthetic", "pasted", "kitti_0002", "davis_objects")
MIN_IOU = 0.25
"""Overlap of a true object and a segment from which on it counts as found."""

Maps = tuple[NDArray[np.integer], NDArray[np.integer]]
"""Class and id [H,W] of each pixel."""
Found = dict[int, int]
"""The number of the segment that shows a true object, by the number of the object."""


def numbered(maps: Maps, things: NDArray[np.integer]) -> tuple[NDArray[np.int64], list[Maps]]:
    """[H,W] the number of the instance of each pixel, from 1 on, and class and id of each."""
    names = maps[1].astype(np.int64)
    keys = np.where(np.isin(maps[0], things) & (names > 0), names * 256 + maps[0], 0)
    values, numbers = np.unique(keys, return_inverse=True)
    if values[0]:
        values, numbers = np.r_[0, values], numbers + 1
    return numbers.reshape(maps[0].shape), [(v % 256, v // 256) for v in values.tolist()]


def found(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> Found:
    """Objects and segments that are each other's best by overlap."""
    counts = np.zeros((true.max() + 1, predicted.max() + 1))
    np.add.at(counts, (true.ravel(), predicted.ravel()), 1)
    union = counts.sum(1)[:, None] + counts.sum(0) - counts
    iou = counts[1:, 1:] / union[1:, 1:]
    if not iou.size:
        return {}
    best = iou.argmax(1)
    mutual = (iou.argmax(0)[best] == np.arange(len(iou))) & (iou.max(1) >= MIN_IOU)
    return {int(row) + 1: int(best[row]) + 1 for row in np.flatnonzero(mutual)}


def corrected(truth: Maps, result: Maps, things: NDArray, ids: bool, masks: bool) -> Maps:
    """A result with the ids, or the masks and classes, of the true objects that it found."""
    true, objects = numbered(truth, things)
    predicted, segments = numbered(result, things)
    classes, names = result[0].copy(), result[1].astype(np.int64)
    pairs = found(true, predicted)
    if masks:  # what the segments had beyond the objects is what the truth has there
        wrong = np.isin(predicted, list(pairs.values()))
        classes[wrong], names[wrong] = truth[0][wrong], 0
    for row, segment in pairs.items():
        pixels = true == row if masks else predicted == segment
        if masks:
            classes[pixels] = objects[row][0]
        # no name of a track is that of an object
        names[pixels] = (1 << 20) + objects[row][1] if ids else segments[segment][1]
    return classes, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=default_model_path())
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    runtime = open_runtime(args.model, "onnxruntime-cpu", threads=1)
    table, things = runtime.info.classes, np.array(runtime.info.classes.things)
    rows: dict[str, Callable[[Maps, Maps], Maps]] = {
        "as it is": lambda _, result: result,
        "true ids": lambda truth, result: corrected(truth, result, things, True, False),
        "true masks": lambda truth, result: corrected(truth, result, things, False, True),
        "both": lambda truth, result: corrected(truth, result, things, True, True),
    }
    print(f"{'set, result':32} {'STQ':>7} {'AQ':>7} {'SQ':>7}")
    for name, clips in open_sets(args.data, args.sets.split(","), args.clips).items():
        quality = {
            row: SegmentationTrackingQuality(len(table), table.things, void="drop") for row in rows
        }
        for number, clip in enumerate(true_clips(runtime, clips, args.clips, args.frames)):
            predictor = VideoPredictor(runtime)
            for t in range(clip.count):
                labels, _ = clip.frame(t)
                truth = labels.semantic, labels.instance
                frame = predictor.step(labels.image, round(t * 1e9 / clip.fps))
                result = frame.semantic_map(), frame.track_id_map()
                for row, correct in rows.items():
                    quality[row].update(*truth, *correct(truth, result), number)
        for row, own in quality.items():
            score = own.compute()
            print(f"{name + ', ' + row:32} {score.stq:7.3f} {score.aq:7.3f} {score.sq:7.3f}")


if __name__ == "__main__":
    main()
