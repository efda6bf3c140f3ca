"""`video-knet track`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import TrackingConfig
from .arguments import add_association, add_model, positive, runtime_of


def add_track(commands: argparse._SubParsersAction) -> None:
    """Add `track`."""
    track = commands.add_parser(
        "track",
        help="segment and track a video",
        description="Writes DIR/overlay.mp4, DIR/labels/NNNNNN.png (16-bit labels, 0 = none; "
        "of overlapping masks the frontmost) and DIR/tracks.jsonl (one line per frame: what each "
        "label is). An earlier result in DIR is replaced. Ctrl-C ends the video early.",
    )
    track.add_argument(
        "video", help="video file, folder of images, webcam index, or synthetic[:seed]"
    )
    track.add_argument("--out", type=Path, required=True, metavar="DIR")
    track.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    add_model(track)
    add_association(track)
    track.set_defaults(run=_track)


def _track(arguments: argparse.Namespace) -> None:
    from ..data.frames import open_frames
    from ..epochs import facts_of
    from ..recording import track_video

    source = open_frames(arguments.video)
    tracking = TrackingConfig(association=arguments.association)
    summary = track_video(
        source,
        runtime_of(arguments),
        arguments.out,
        arguments.max_frames,
        tracking,
        facts_of(arguments.video),
    )
    print(summary)
