"""What a replay leaves beside the bag: label images, tables and videos of one camera."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.kitti_step import write_step
from ..messages.result_messages import nanoseconds
from ..overlay_video import OverlayVideo
from ..recording import table_row
from ..types import ClassTable
from ..visualize import overlay
from .camera import Processed
from .replay_settings import ReplayError, ReplaySettings


class Products:
    """Files of one camera.

    OUT/labels/CAMERA/NNNNNN.png (R = class, G * 256 + B = track id), OUT/tracks/CAMERA.jsonl and
    OUT/overlay/CAMERA/NNNN.mp4, a video for each part of the bag, because a video cannot be gone
    on with.

    Args:
        out: folder of the replay.
        unfinished: folder for what is under way.
        camera: name, perhaps with slashes in it.
        settings: say which of the files are wanted.
        classes: of the model.
        fps: of the videos.
        tracks_size: bytes of the JSON lines that are kept.
    """

    def __init__(
        self,
        out: Path,
        unfinished: Path,
        camera: str,
        settings: ReplaySettings,
        classes: ClassTable,
        fps: float,
        tracks_size: int,
    ) -> None:
        self._out, self._camera = out, camera
        self._settings, self._classes, self._fps = settings, classes, fps
        self._unfinished = unfinished / f"{camera}.mp4"
        self._video: OverlayVideo | None = None
        self._size: tuple[int, int] = (0, 0)
        self._stack = ExitStack()
        self._lines = None
        if settings.tracks:
            path = out / "tracks" / f"{camera}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, tracks_size)
            self._lines = self._stack.enter_context(path.open("a"))

    def write(self, result: Processed) -> None:
        """Add a frame; ReplayError for a track id that label images have no room for."""
        if self._settings.labels:
            self._write_labels(result)
        if self._lines is not None:
            self._lines.write(json.dumps(self._row(result)) + "\n")
        if self._settings.overlay:
            self._draw(overlay(result.image, result.frame, self._classes), result.frame.stamp)

    def finish_part(self, part: int) -> int:
        """Put the video of a part in its place; returns the bytes of the JSON lines so far."""
        if self._video is not None:
            self._video.close()
            self._video = None
            path = self._out / "overlay" / self._camera / f"{part:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished.replace(path)
        if self._lines is None:
            return 0
        self._lines.flush()
        return os.fstat(self._lines.fileno()).st_size

    def close(self) -> None:
        """Close the files."""
        video, self._video = self._video, None
        if video is not None:
            self._stack.callback(video.close)
        self._stack.close()

    def _write_labels(self, result: Processed) -> None:
        semantic, instance = result.frame.semantic_map(), result.frame.track_id_map()
        try:
            write_step(
                self._out / "labels", self._camera, f"{result.number:06d}", semantic, instance
            )
        except ValueError as error:
            raise ReplayError(f"frame {result.number}: {error}") from None

    def _row(self, result: Processed) -> dict[str, Any]:
        frame = result.frame
        return {
            "frame": result.number,
            "stamp": nanoseconds(result.header.stamp),
            "frame_id": result.header.frame_id,
            "epoch": frame.epoch,
            "born": frame.born,
            "ended": frame.ended,
            "tracks": [table_row(track, self._classes) for track in frame.tracks],
        }

    def _draw(self, drawn: NDArray[np.uint8], stamp: int) -> None:
        """Add to the video; a picture of another size is scaled to that of the first one."""
        if self._video is None:
            self._unfinished.parent.mkdir(parents=True, exist_ok=True)
            self._video = OverlayVideo(self._unfinished, self._fps)
            self._size = (drawn.shape[1], drawn.shape[0])
        if (drawn.shape[1], drawn.shape[0]) != self._size:
            drawn = np.asarray(cv2.resize(drawn, self._size), np.uint8)
        self._video.write(drawn, stamp)
