"""Runs a video through the predictor and keeps everything: overlay, labels and tracks."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .config import TrackingConfig
from .data.frames import FrameError, FrameSource
from .engine.runtime import Runtime
from .epochs import epoch_of
from .predictor import VideoPredictor
from .types import ClassTable, PanopticFrame, Track, TrackState
from .visualize import OverlayVideo, overlay


@dataclass
class Summary:
    """What a run came to; `str()` is its closing report."""

    out: Path
    backend: str
    tracks_things: bool = True
    """False in task semantic: the report says nothing of tracks."""
    seconds: float = 0.0
    inference_ms: list[float] = field(default_factory=list)
    """Of each frame."""
    confirmed: dict[tuple[int, int], str] = field(default_factory=dict)
    """Class name of each confirmed track, by epoch and id."""

    def add(self, frame: PanopticFrame, classes: ClassTable) -> None:
        """Count one frame."""
        self.inference_ms.append(frame.times.step)
        for track in frame.tracks:
            if track.is_thing and track.state == TrackState.CONFIRMED:
                self.confirmed[frame.epoch, track.track_id] = classes[track.class_id].name

    def __str__(self) -> str:
        frames = len(self.inference_ms)
        if not frames:
            return "no frames"
        lines = [
            f"{frames} frames in {self.seconds:.1f} s ({frames / self.seconds:.1f} fps), engine "
            f"step {np.median(self.inference_ms):.1f} ms (median, {self.backend})",
            f"{self.out}: overlay.mp4, labels/, tracks.jsonl",
        ]
        if self.tracks_things:
            names = Counter(self.confirmed.values()).most_common()
            tracks = ", ".join(f"{count} {name}" for name, count in names) or "none"
            lines.insert(1, f"tracks: {tracks}")
        return "\n".join(lines)


class Recording:
    """Writes overlay.mp4, labels/NNNNNN.png and tracks.jsonl into a folder, replacing older ones.

    A label image holds the labels of its own frame, as the node publishes them: 16 bit, 0 = no
    segment; of overlapping masks the frontmost. The line of tracks.jsonl with the same number says
    which class and track each is.
    """

    def __init__(self, out: Path, fps: float, classes: ClassTable) -> None:
        self._classes = classes
        self._labels = out / "labels"
        _make_room(out, self._labels)
        self._count = 0
        self._size: tuple[int, ...] | None = None
        self._stack = ExitStack()
        self._lines = self._stack.enter_context((out / "tracks.jsonl").open("w"))
        self._video = self._stack.enter_context(OverlayVideo(out / "overlay.mp4", fps))

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def write(self, image: NDArray[np.uint8], frame: PanopticFrame) -> None:
        """Keep one frame.

        Raises:
            FrameError: the image has another size than the first one.
            OSError: a file cannot be written.
        """
        size = image.shape[:2]
        self._size = self._size or size
        if size != self._size:
            raise FrameError(f"frame {self._count} is {size}, those before it are {self._size}")
        path = self._labels / f"{self._count:06d}.png"
        if not cv2.imwrite(str(path), frame.labels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"cannot write {path}")
        self._lines.write(json.dumps(self._line(frame)) + "\n")
        self._count += 1
        self._video.write(overlay(image, frame, self._classes))

    def _line(self, frame: PanopticFrame) -> dict[str, Any]:
        return {
            "frame": self._count,
            "stamp": frame.stamp,
            "epoch": frame.epoch,
            "inference_ms": round(frame.times.step, 3),
            "born": frame.born,
            "ended": frame.ended,
            "tracks": [table_row(track, self._classes) for track in frame.tracks],
        }


def table_row(track: Track, classes: ClassTable) -> dict[str, Any]:
    """A row of a frame's table, for JSON."""
    row = dataclasses.asdict(track)
    unknown = any(math.isnan(v) for v in track.velocity)  # JSON has no NaN
    row["velocity"] = None if unknown else track.velocity
    row["state"] = track.state.name.lower()
    row["class_name"] = classes[track.class_id].name
    return row


def _make_room(out: Path, labels: Path) -> None:
    """Remove an earlier result from `out`, and nothing else.

    Raises:
        FileExistsError: `labels` holds files, and not of an earlier result (a data set's, perhaps).
    """
    labels.mkdir(parents=True, exist_ok=True)
    if any(labels.iterdir()) and not (out / "tracks.jsonl").is_file():
        raise FileExistsError(f"{labels} holds files that are no earlier result")
    for old in (*labels.glob("[0-9]" * 6 + ".png"), out / "overlay.mp4"):
        old.unlink(missing_ok=True)


def track_video(
    source: FrameSource,
    runtime: Runtime,
    out: Path,
    max_frames: int | None = None,
    tracking: TrackingConfig | None = None,
    facts: tuple[object, ...] = (),
) -> Summary:
    """Track `source` and keep the results in `out`; Ctrl-C ends it early and keeps what there is.

    The first epoch is a number of all that decides the results: a log of many videos has each pair
    of an epoch and a track id for one object. `facts` tell the source from others that begin with
    the same image, see `epochs.facts_of`.

    Raises:
        FrameError: a frame cannot be read or has another size; the frames before it are kept.
        OSError: `out` cannot be written.
    """
    predictor = VideoPredictor(runtime, tracking)
    summary = Summary(out, runtime.name, tracks_things=runtime.info.task != "semantic")
    total = min((n for n in (source.count, max_frames) if n is not None), default=None)
    start = time.perf_counter()
    with (
        Recording(out, source.fps, predictor.classes) as recording,
        tqdm(total=total, unit="frame", disable=None) as bar,
    ):
        try:
            for image, stamp in itertools.islice(source, max_frames):
                if not summary.inference_ms:
                    model = runtime.name, runtime.info.name, runtime.info.checkpoint_sha256
                    predictor.reset(epoch_of(image, stamp, *facts, *model, predictor.tracking))
                frame = predictor.step(image, stamp)
                recording.write(image, frame)
                summary.add(frame, predictor.classes)
                bar.update()
        except KeyboardInterrupt:
            bar.close()
    summary.seconds = time.perf_counter() - start
    return summary
