"""What a replay leaves: the new bag, and label images, tables and videos beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..bags.bag import Message
from ..bags.definitions import Embedded, MessageError
from ..bags.writing import NewTopic, SplitWriter, recorded_qos
from ..data.label_png import write_step
from ..messages.result_messages import nanoseconds
from ..overlay_video import OverlayVideo
from ..types import ClassTable
from ..visualize import overlay
from .camera import CameraReplay, Processed
from .replay_settings import ReplayError, ReplaySettings
from .report.collect import ReplayReport, ReportFacts
from .rerun_recording import RerunRecording

_log = logging.getLogger(__name__)


class Products:
    """All products of a replay, in the folder `work`; `held` closes their files.

    Args:
        cameras: by topic.
        copied: topics of the bag that are copied.
        rates: frames per second of the videos, by topic of the camera.
        rerun: recording for the viewer, if there is one.
    """

    def __init__(
        self,
        held: ExitStack,
        work: Path,
        settings: ReplaySettings,
        facts: ReportFacts,
        cameras: Mapping[str, CameraReplay],
        copied: Mapping[str, Embedded],
        rates: Mapping[str, float],
        rerun: RerunRecording | None,
    ) -> None:
        self._cameras, self._copied, self._rerun = cameras, copied, rerun
        self._part = 0
        topics = [topic for camera in cameras.values() for topic in camera.topics()]
        topics += [
            NewTopic(name, e.topic.type, e.definition, e.hash, recorded_qos(e.topic.qos))
            for name, e in copied.items()
        ]
        self._writer = SplitWriter(work / "bag", settings.storage, topics)
        held.callback(self._writer.abort)
        self._report = ReplayReport(facts, work) if settings.report else None
        if self._report is not None:
            held.callback(self._report.close)
        if rerun is not None:
            held.callback(rerun.close)
        self._files: dict[str, _CameraFiles] = {}
        for topic, camera in cameras.items():
            name = camera.node.strip("/")
            self._files[topic] = _CameraFiles(work, name, settings, facts.classes, rates[topic])
            held.callback(self._files[topic].close)

    def write(self, message: Message, result: Processed) -> None:
        """Add a frame of the camera from whose topic the message is."""
        topic = message.topic.name
        self._cameras[topic].write(result, message.time, self._writer)
        self._files[topic].write(result, self._part)
        if self._report is not None:
            self._report.add(topic, message.time, result)
        if self._rerun is not None:
            self._rerun.write(self._cameras[topic].node, result, self._part)

    def copy(self, message: Message) -> None:
        """Copy a message into the new bag; one whose bytes do not fit its type is logged."""
        try:
            data = self._copied[message.topic.name].to_cdr(message.data)
        except MessageError as error:
            _log.warning("%s at %d ns is not copied: %s", message.topic.name, message.time, error)
            return
        self._writer.write(message.topic.name, message.time, data)

    def finish_part(self) -> None:
        """Begin new files of the bag, the videos and the recording for the viewer."""
        self._writer.finish_part()
        for files in self._files.values():
            files.finish_part()
        if self._rerun is not None:
            self._rerun.close()
        self._part += 1

    def complete(self, damage: str) -> None:
        """Write what comes at the end; `damage`: where and why the bag was read no further."""
        for files in self._files.values():
            files.close()
        if self._report is not None:
            from .report.page import write_page

            self._report.finish()
            write_page(self._report, damage, self._cameras)


class _CameraFiles:
    """Files of one camera.

    labels/CAMERA/NNNNNN.png (R = class, G * 256 + B = track id), tracks/CAMERA.jsonl and
    overlay/CAMERA/NNNN.mp4, a video for each part of the bag. CAMERA may have slashes in it.
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
