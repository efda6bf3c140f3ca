"""A replay for the Rerun viewer: images, classes, boxes and objects in space by stamp."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..messages.object_messages import MIN_SIDE
from ..spatial.objects import ObjectTable
from ..types import NO_CLASS, ClassTable, Track
from ..visualize import track_color
from .camera import Processed
from .job_record import UNFINISHED
from .replay_settings import ReplayError

APPLICATION = "video_knet"
QUALITY = 85
"""Of the JPEG images."""
BY_STAMP, BY_FRAME = "stamp", "frame"
"""Timelines."""


class RerunRecording:
    """rerun/NNNN.rrd, a file for each part of the bag.

    All have one recording id, so the viewer shows them as one. Each camera has an image, its
    segmentation by class, and a box for each instance with its track id; with a camera info also
    boxes in metres. The files are written into OUT/unfinished. ReplayError if rerun-sdk is not
    installed.
    """

    def __init__(self, out: Path, classes: ClassTable) -> None:
        try:
            import rerun
        except ModuleNotFoundError:
            raise ReplayError(
                "--rerun needs rerun-sdk: pip install 'video_knet_ros[rerun]'"
            ) from None
        self._rerun: Any = rerun
        self._out = out
        self._classes = classes
        self._stream: Any = None
        self._located: set[str] = set()  # entities with objects in their last frame

    def write(self, node: str, result: Processed, part: int) -> None:
        """Add a frame of the camera whose results are below `node` to a part of the recording."""
        stream = self._open(part)
        stamp = np.datetime64(result.frame.stamp, "ns")
        stream.set_time(BY_STAMP, timestamp=stamp)
        stream.set_time(BY_FRAME, sequence=result.number)
        bgr = cv2.cvtColor(result.image, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        image = self._rerun.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")
        stream.log(f"{node}/image", image)
        semantic = result.frame.semantic_map()
        stream.log(f"{node}/segmentation", self._rerun.SegmentationImage(semantic, opacity=0.5))
        things = [track for track in result.frame.tracks if track.is_thing and track.label]
        facts = self._rerun.AnyValues(
            tracker_epoch=np.full(len(things), result.frame.epoch, np.int64),
            track_id=np.array([track.track_id for track in things], np.int64),
            score=np.array([track.score for track in things], np.float32),
        )
        stream.log(f"{node}/instances", self._boxes(things), facts)
        self._log_objects(f"{node}/objects", result.objects)

    def close(self) -> None:
        """Close the file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.disconnect()

    def _open(self, part: int) -> Any:
        """The file under way; each begins with the names and colours of the classes."""
        if self._stream is None:
            path = self._out / UNFINISHED / "rerun" / f"{part:04d}.rrd"
            path.parent.mkdir(exist_ok=True)
            name = uuid.uuid5(uuid.NAMESPACE_URL, self._out.resolve().as_uri())
            self._stream = self._rerun.RecordingStream(APPLICATION, recording_id=name)
            self._stream.save(path)
            classes = [(info.id, info.name, info.color) for info in self._classes]
            none = (NO_CLASS, "no class", (0, 0, 0, 0))
            self._stream.log("/", self._rerun.AnnotationContext([*classes, none]), static=True)
        return self._stream

    def _log_objects(self, entity: str, table: ObjectTable | None) -> None:
        """The tracks in space; without a table those of the frame before are removed."""
        if table is None:
            if entity in self._located:
                self._stream.log(entity, self._rerun.Clear(recursive=False))
            self._located.discard(entity)
            return
        self._located.add(entity)
        rows = table.rows
        facts = self._rerun.AnyValues(
            frame_id=[table.frame_id] * len(rows),
            track_id=rows["track_id"],
            velocity=rows["velocity"].ravel(),
            range=rows["range"],
            range_source=rows["source"],
        )
        self._stream.log(entity, self._boxes_in_space(rows), facts)

    def _boxes_in_space(self, rows: NDArray[np.void]) -> Any:
        """Parallel to the axes of the target frame, in metres."""
        ids, classes = rows["track_id"].tolist(), rows["class_id"].tolist()
        return self._rerun.Boxes3D(
            centers=rows["box_center"],
            sizes=np.maximum(rows["size"], MIN_SIDE),
            colors=[track_color(track_id) for track_id in ids],
            labels=self._labels(classes, ids),
            class_ids=classes,
        )

    def _labels(self, classes: list[int], track_ids: list[int]) -> list[str]:
        pairs = zip(classes, track_ids, strict=True)
        return [f"{self._classes[class_id].name} {track_id}" for class_id, track_id in pairs]

    def _boxes(self, things: list[Track]) -> Any:
        rerun = self._rerun
        classes, ids = [t.class_id for t in things], [t.track_id for t in things]
        return rerun.Boxes2D(
            array=np.array([track.box for track in things], np.float32).reshape(-1, 4),
            array_format=rerun.Box2DFormat.XYWH,
            colors=[track_color(track_id) for track_id in ids],
            labels=self._labels(classes, ids),
            class_ids=classes,
        )
