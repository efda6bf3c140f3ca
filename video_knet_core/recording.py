"""Runs a video through the predictor and keeps everything: overlay, labels and tracks."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .data.frame_source import FrameSource
from .data.frames import ImageFolder
from .engine.base import Runtime
from .epochs import epoch_of
from .image_files import FrameError, write_pixels
from .output_files import OutputError, exclusive, refuse_inputs
from .overlay_video import OverlayVideo
from .predictor import VideoPredictor
from .progress import progress_bar
from .tasks import TASKS
from .tracking import TrackerSettings
from .types import ClassTable, PanopticFrame, TrackState
from .visualize import overlay

OVERLAY, TRACKS = "overlay.mp4", "tracks.jsonl"
LABEL_NAME = re.compile(r"\d{6,}\.png")


@dataclass
class Summary:
    """What a run came to; `str()` is its closing report."""

    out: Path
    backend: str
    tracks_things: bool = True
    """False in task semantic: the report does not mention tracks."""
    interrupted: bool = False
    """Ended before the source did, by Ctrl-C or SIGTERM."""
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
        if self.interrupted:
            lines.append("stopped early; the files are complete up to there")
        if self.tracks_things:
            names = Counter(self.confirmed.values()).most_common()
            tracks = ", ".join(f"{count} {name}" for name, count in names) or "none"
            lines.insert(1, f"tracks: {tracks}")
        return "\n".join(lines)


class Recording:
    """Writes overlay.mp4, labels/NNNNNN.png and tracks.jsonl into a folder, replacing older ones.

    A label image holds the labels of its own frame, as the node publishes them: 16 bit, 0 = no
    segment; of overlapping masks the frontmost. The line of tracks.jsonl with the same number has
    the class and track of each. Other files in the folder are left as they are. OutputError if a
    result would replace one of the `inputs`, which are read during the recording, or a file that is
    no earlier result, or if another process writes into the folder.
    """

    def __init__(
        self, out: Path, fps: float, classes: ClassTable, inputs: Iterable[Path] = ()
    ) -> None:
        self._classes = classes
        self._labels = out / "labels"
        self._count = 0
        self._size: tuple[int, ...] | None = None
        with ExitStack() as stack:
            stack.enter_context(exclusive(out))
            _remove_earlier(out, inputs)
            self._labels.mkdir(exist_ok=True)
            self._lines = stack.enter_context((out / TRACKS).open("w", buffering=1))
            self._video = stack.enter_context(OverlayVideo(out / OVERLAY, fps))
            self._stack = stack.pop_all()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def write(self, image: NDArray[np.uint8], frame: PanopticFrame) -> None:
        """Keep one frame, shown in the video at its stamp.

        FrameError if the image has another size than the first one, OSError if a file cannot be
        written.
        """
        size = image.shape[:2]
        self._size = self._size or size
        if size != self._size:
            raise FrameError(f"frame {self._count} is {size}, those before it are {self._size}")
        # the line comes first: a folder with label images in it has lines that show whose they are
        self._lines.write(json.dumps(self._line(frame)) + "\n")
        path = self._labels / f"{self._count:06d}.png"
        write_pixels(path, frame.labels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        self._count += 1
        self._video.write(overlay(image, frame, self._classes), frame.stamp)

    def _line(self, frame: PanopticFrame) -> dict[str, Any]:
        return {
            "frame": self._count,
            "stamp": frame.stamp,
            "epoch": frame.epoch,
            "inference_ms": round(frame.times.step, 3),
            "born": frame.born,
            "ended": frame.ended,
            "tracks": frame.json_rows(self._classes),
        }


def _remove_earlier(out: Path, inputs: Iterable[Path]) -> None:
    """Remove an earlier result from `out`, and nothing else; OutputError before anything is."""
    labels, files = out / "labels", (out / OVERLAY, out / TRACKS)
    older = [path for path in labels.glob("*.png") if LABEL_NAME.fullmatch(path.name)]
    refuse_inputs((labels, *files, *older), inputs)
    present = [path for path in (labels, *files) if _holds_data(path)]
    if present and not _is_ours(out / TRACKS):
        raise OutputError(
            f"{present[0]} is no earlier result of this program, which would replace it: "
            "name another folder"
        )
    for path in (*older, *files):
        path.unlink(missing_ok=True)


def _holds_data(path: Path) -> bool:
    """Whether replacing the file, or writing into the folder, would change what it holds."""
    if path.is_dir():
        return path.suffix != "" or any(path.iterdir())
    return path.is_symlink() or (path.exists() and path.stat().st_size > 0)


def _is_ours(tracks: Path) -> bool:
    """Whether the first line is one that `Recording` writes."""
    try:
        with tracks.open() as file:
            row = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.keys() >= {"frame", "stamp", "epoch", "tracks"}


def track_video(
    source: FrameSource,
    runtime: Runtime,
    out: Path,
    max_frames: int | None = None,
    tracking: TrackerSettings | None = None,
    facts: tuple[object, ...] = (),
) -> Summary:
    """Track `source` and keep the results in `out`.

    Ctrl-C (KeyboardInterrupt) ends it early: all files are finished, and the summary reports it.

    The first epoch is a number of all that decides the results: a log of many videos has each pair
    of an epoch and a track id for one object. `facts` distinguish the source from others
    that begin with the same image, see `epochs.facts_of`.

    Raises:
        FrameError: a frame cannot be read or has another size; the frames before it are kept.
        OutputError: see `Recording`.
        OSError: `out` cannot be written.
    """
    predictor = VideoPredictor(runtime, tracking)
    summary = Summary(out, runtime.name, tracks_things=TASKS[runtime.info.task].has_things)
    total = min((n for n in (source.count, max_frames) if n is not None), default=None)
    start = time.perf_counter()
    with (
        Recording(out, source.fps, predictor.classes, _files_of(source)) as recording,
        progress_bar(total=total, unit="frame") as bar,
        ThreadPoolExecutor(max_workers=1) as files,
    ):

        def keep(image: NDArray[np.uint8], frame: PanopticFrame) -> None:
            recording.write(image, frame)
            summary.add(frame, predictor.classes)

        try:
            for image, stamp in itertools.islice(source, max_frames):
                if not summary.inference_ms:
                    model = runtime.name, runtime.info.name, runtime.info.checkpoint_sha256
                    predictor.reset(epoch_of(image, stamp, *facts, *model, predictor.tracking))
                frame = predictor.step(image, stamp)
                # in a thread, which Ctrl-C does not interrupt: all files have the same frames
                files.submit(keep, image, frame).result()
                bar.update()
        except KeyboardInterrupt:
            summary.interrupted = True
            bar.close()
    summary.seconds = time.perf_counter() - start
    summary.backend = runtime.name  # that of the images' native size
    return summary


def _files_of(source: FrameSource) -> list[Path]:
    """What is read: the file, or the folder and its images, which may be links to elsewhere."""
    if source.path is None:
        return []
    return [source.path, *(source.paths if isinstance(source, ImageFolder) else ())]
