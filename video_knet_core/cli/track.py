"""`video-knet track`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..config import TrackingConfig
from .arguments import add_association, add_json, add_model, positive, runtime_of
from .errors import NothingError

if TYPE_CHECKING:
    from ..recording import Summary


def add_track(commands: argparse._SubParsersAction) -> None:
    """Add `track`."""
    track = commands.add_parser(
        "track",
        help="segment and track a video",
        description="Writes DIR/overlay.mp4, DIR/labels/NNNNNN.png (16-bit labels, 0 = none; "
        "of overlapping masks the frontmost) and DIR/tracks.jsonl (one line per frame: what each "
        "label is). An earlier result in DIR is replaced. Ctrl-C ends the video early and "
        "keeps the frames so far.",
    )
    track.add_argument(
        "video", help="video file, folder of images, webcam index, or synthetic[:seed]"
    )
    track.add_argument("--out", type=Path, required=True, metavar="DIR")
    track.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    add_model(track)
    add_association(track)
    add_json(track)
    track.set_defaults(run=_track)


def _track(arguments: argparse.Namespace) -> None:
    from ..data.frames import open_frames
    from ..epochs import facts_of
    from ..recording import track_video

    source, out = open_frames(arguments.video), arguments.out
    tracking = TrackingConfig(association=arguments.association)
    facts = facts_of(arguments.video)
    with closing(runtime_of(arguments)) as runtime:
        summary = track_video(source, runtime, out, arguments.max_frames, tracking, facts)
    print(json.dumps(_as_json(summary), indent=2) if arguments.json else summary)
    if not summary.inference_ms:
        raise NothingError(f"{arguments.video} has no frames")


def _as_json(summary: Summary) -> dict[str, Any]:
    frames, seconds = len(summary.inference_ms), summary.seconds
    return {
        "out": str(summary.out),
        "backend": summary.backend,
        "frames": frames,
        "seconds": seconds,
        "fps": frames / seconds if frames else None,
        "step_ms_median": median(summary.inference_ms) if frames else None,
        "tracks": dict(Counter(summary.confirmed.values())) if summary.tracks_things else None,
    }
