"""What a replay leaves beside the bag: label images, tables and videos of one camera."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.label_png import write_step
from ..messages.result_messages import nanoseconds
from ..overlay_video import OverlayVideo
from ..types import ClassTable
from ..visualize import overlay
from .camera import Processed
from .replay_settings import ReplayError, ReplaySettings


class CameraFiles:
    """Files of one camera.

    labels/CAMERA/NNNNNN.png (R = class, G * 256 + B = track id), tracks/CAMERA.jsonl and
    overlay/CAMERA/NNNN.mp4, a video for each part of the bag.

    Args:
        out: folder for them.
        camera: name, perhaps with slashes in it.
        settings: which of the files are written.
        classes: of the model.
        fps: of the videos.
    """

    def __init__(
        self, out: Path, camera: str, settings: ReplaySettings, classes: ClassTable, fps: float
    ) -> None:
        self._out, self._camera, self._fps = out, camera, fps
        self._settings, self._classes = settings, classes
        self._video: OverlayVideo | None = None
        self._size = (0, 0)
        self._stack = ExitStack()
        self._lines = None
        if settings.tracks:
            path = out / "tracks" / f"{camera}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self._stack.enter_context(path.open("w"))

    def write(self, result: Processed, part: int) -> None:
        """Add a frame; ReplayError for a track id that label images have no room for."""
        if self._settings.labels:
            self._write_labels(result)
        if self._lines is not None:
            self._lines.write(json.dumps(self._row(result)) + "\n")
        if self._settings.overlay:
            self._write_video(result, part)

    def finish_part(self) -> None:
        """Finish the video."""
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def close(self) -> None:
        """Close the files."""
        with self._stack:
            self.finish_part()

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
            "tracks": frame.json_rows(self._classes),
        }

    def _write_video(self, result: Processed, part: int) -> None:
        """Add to the video; a picture of another size is scaled to that of the first one."""
        drawn = overlay(result.image, result.frame, self._classes)
        if self._video is None:
            path = self._out / "overlay" / self._camera / f"{part:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._video = OverlayVideo(path, self._fps)
            self._size = (drawn.shape[1], drawn.shape[0])
        if (drawn.shape[1], drawn.shape[0]) != self._size:
            drawn = np.asarray(cv2.resize(drawn, self._size), np.uint8)
        self._video.write(drawn, result.frame.stamp)
