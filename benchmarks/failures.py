#!/usr/bin/env python3
"""Where a model fails: a picture of the worst frames of the held-out synthetic streets.

    python benchmarks/failures.py OUT.png [--model MODEL] [--clips 10] [--frames 60] [--pictures 4]

Left the image, right what the model says. Red: an object that it has not found (no segment with an
IoU above 0.5). Yellow: one whose track id is another than in the frame where it was last found.
The frame of each clip with the most pixels in such objects is taken, the worst clips first.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core.data.street_frame import StreetClip
from video_knet_core.engine.base import Runtime
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.evaluate.clips import _tracks_of as owners
from video_knet_core.evaluate.clips import synthetic_streets
from video_knet_core.predictor import VideoPredictor
from video_knet_core.visualize import overlay, side_by_side

MISSED, SWITCHED = (255, 0, 0), (255, 255, 0)


@dataclass(frozen=True)
class Failure:
    """One frame, and how many pixels are in objects that were missed or switched."""

    pixels: int
    picture: NDArray[np.uint8]


def worst_frame(runtime: Runtime, clip: StreetClip, frames: int) -> Failure:
    """The frame of a clip with the most pixels in wrong objects."""
    predictor, last_ids = VideoPredictor(runtime), dict[int, int]()
    worst = Failure(-1, np.zeros((0, 0, 3), np.uint8))
    for t in range(frames):
        truth = clip.frame(t)
        frame = predictor.step(truth.image, round(t * 1e9 / clip.fps))
        found = owners(truth.instance, frame.track_id_map())
        missed = [object_ for object_, track in found.items() if not track]
        switched = [o for o, track in found.items() if track and last_ids.get(o, track) != track]
        last_ids |= {object_: track for object_, track in found.items() if track}
        wrong = int(np.isin(truth.instance, missed + switched).sum())
        if wrong > worst.pixels:
            drawn = overlay(truth.image, frame, predictor.classes)
            for objects, color in ((missed, MISSED), (switched, SWITCHED)):
                for object_ in objects:
                    outline(drawn, truth.instance == object_, color)
            worst = Failure(wrong, side_by_side(truth.image, drawn))
    return worst


def outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple) -> None:
    """Draw the border of a mask [H,W] into a picture [H,W,3]."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(picture, contours, -1, color, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=None, help="default: the shipped model")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=4)
    args = parser.parse_args()
    runtime = open_runtime(args.model or default_model_path())
    clips = synthetic_streets(args.clips)
    failures = [worst_frame(runtime, clip, args.frames) for clip in clips]
    failures.sort(key=lambda failure: -failure.pixels)
    rows = np.vstack([failure.picture for failure in failures[: args.pictures]])
    if not cv2.imwrite(str(args.out), cv2.cvtColor(rows, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"cannot write {args.out}")


if __name__ == "__main__":
    main()
