"""One camera of a replay: what the live node does with an image, without the node."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bags.bag import Message
from ..bags.definitions import MessageError, conversions, decode, ros2_types
from ..bags.writing import NewTopic, SplitWriter, offered
from ..engine.base import Runtime
from ..epochs import epoch_of
from ..messages.image_messages import ImageError, to_rgb
from ..messages.result_messages import (
    CLASS_MAP,
    LABEL_INFO,
    FrameToPublish,
    nanoseconds,
)
from ..messages.topics import outputs_of
from ..predictor import VideoPredictor
from ..spatial.locator import ObjectLocator
from ..spatial.objects import ObjectTable
from ..spatial.spatial_frame import SpatialFrame
from ..tasks import TASKS
from ..tracking import TrackerSettings
from ..types import PanopticFrame, StageTimes
from .replay_settings import ReplaySettings
from .spatial_topics import Add
from .time_bins import TimeBins

UNTIMED = StageTimes(*[math.nan] * 4)
MOST_FAILURES = 10
"""Reasons that are logged and kept; all failures are counted."""

Decoded = tuple[Any, NDArray[np.uint8]]
"""Header and RGB image [H, W, 3] of a message."""

_log = logging.getLogger(__name__)


class Processed(NamedTuple):
    """An image and what the predictor makes of it."""

    number: int
    """Of the processed frames of this camera, from 0 on."""
    skipped: int
    """Images passed over since the last one."""
    header: Any
    image: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    frame: PanopticFrame
    """Its times are NaN: the result of a replay must not depend on the time it takes."""
    times: StageTimes
    """What it took."""
    objects: ObjectTable | None = None
    """Its tracks in space; None without."""
    messages: Sequence[tuple[str, str, Any]] = ()
    """Topic, type and message of the outputs in space."""


class CameraReplay:
    """Processes the images of one topic.

    Args:
        node: name of the node whose outputs are made, with a slash before it.
        runtime: the engine; several cameras may use it.
        settings: of the replay.
        tracking: settings of the tracker.
        recording: what distinguishes the bag from others; first when the first message was
            received [ns], None in a bag without messages.
    """

    def __init__(
        self,
        node: str,
        runtime: Runtime,
        settings: ReplaySettings,
        tracking: TrackerSettings,
        recording: tuple[Any, ...],
    ) -> None:
        self.node = node
        self.predictor = VideoPredictor(runtime, tracking)
        self.late = 0
        """Images left out because they came after one with a later stamp."""
        self.failed = 0
        self.failures: list[str] = []
        """Reasons of the first failures."""
        self.left_out = TimeBins(2, np.int32)
        """Images left out over the seconds of the recording: failed ones, and late ones."""
        self._runtime, self._settings, self._recording = runtime, settings, recording
        self._decoded = self._processed = self._skipped = 0
        self._convert = conversions()
        task, classes = TASKS[runtime.info.task], self.predictor.classes
        named = outputs_of(task, classes, settings.mask_classes)
        self._outputs = {
            name: output
            for name, output in named.items()
            if name in settings.outputs or name not in task.outputs
        }
        self._locator = ObjectLocator(classes, settings)
        self._reported: set[str] = set()

    def image_of(self, message: Message) -> Decoded | ValueError | None:
        """The image of the next message, or why there is none; None if it is passed over.

        It may be called in another thread than `process`, and be some messages ahead of it.
        """
        self._decoded += 1
        if (self._decoded - 1) % self._settings.every:
            return None
        try:
            decoded = decode(message)
            return decoded.header, to_rgb(decoded)
        except (MessageError, ImageError) as error:
            return error

    def process(self, message: Message, decoded: Decoded | ValueError | None) -> Processed | None:
        """Segment and track an image; None if it is passed over, or cannot be used."""
        if decoded is None:
            self._skipped += 1
            return None
        if isinstance(decoded, ValueError):
            self._fail(message, decoded)
            return None
        (header, image), stamp = decoded, nanoseconds(decoded[0].stamp)
        if not -(1 << 31) <= stamp // 10**9 < 1 << 31:  # what a message of results can hold
            words = f"stamp: expected seconds of 32 bits, got {stamp // 10**9}"
            self._fail(message, ValueError(words))
            return None
        if self.predictor.is_late(stamp or message.time):
            self._skipped += 1
            self.late += 1
            self.left_out.row(self._seconds(message))[1] += 1
            return None
        if not self._processed:
            self.predictor.reset(self._first_epoch(message, stamp, image))
        try:
            frame = self.predictor.step(image, stamp or message.time)
        except FloatingPointError as error:
            self._fail(message, error)
            return None
        header = self._convert.find("std_msgs/msg/Header")(
            stamp=self._convert.time_message(stamp), frame_id=header.frame_id
        )
        number, self._processed = self._processed, self._processed + 1
        skipped, self._skipped = self._skipped, 0
        untimed = dataclasses.replace(frame, times=UNTIMED)
        result = Processed(number, skipped, header, image, untimed, frame.times)
        return self._located(result, stamp or message.time)

    def add(self, message: Message, add: Add) -> None:
        """Take a message of depth, of the camera, or of transforms; a faulty one is logged."""
        try:
            add(self._locator.inputs, decode(message))
        except (MessageError, KeyError) as error:  # a type that ROS 1 does not have
            words = f"the message received at {self._seconds(message):.3f} s is left out: {error}"
            _log.warning("%s: %s", message.topic.name, words)

    def _located(self, result: Processed, stamp: int) -> Processed:
        """With what there is in space, which is made here: what comes later must not change it."""
        spatial = self._locator.locate(result.frame, result.image, result.header.frame_id, stamp)
        published = self._published(result, spatial)
        made = [
            (output.topic, output.type, message)
            for output in self._outputs.values()
            if (output.spatial or output.semantic)
            and (message := output.make(self._convert, published)) is not None
        ]
        if any(output.spatial for output in self._outputs.values()):
            self._report_space(result.number)
        used = self._settings.report or self._settings.rerun
        known = self._locator.inputs.camera_info is not None and self.predictor.classes.things
        objects = spatial.objects if used and known else None
        return result._replace(objects=objects, messages=made)

    def _report_space(self, number: int) -> None:
        """Log why there is no output in space, or why an input was not used, once for each."""
        for name, reason in self._locator.inputs.reasons.items():
            if name not in self._reported:
                self._reported.add(name)
                words = "%s: %s of frame %d: %s; of later frames it is not logged"
                _log.warning(words, self.node, name, number, reason)

    def _published(self, result: Processed, spatial: SpatialFrame) -> FrameToPublish:
        number, skipped, header, image, frame, *_ = result
        classes, rle = self.predictor.classes, self._settings.rle
        return FrameToPublish(
            header, image, frame, classes, number, skipped, rle,
            spatial=spatial, semantic_size=spatial.semantic_size,
        )  # fmt: skip

    def _first_epoch(self, message: Message, stamp: int, image: NDArray[np.uint8]) -> int:
        """Of all that decides the results, so that no other recording has the same."""
        first = message.topic.name, message.time, stamp, self._settings.every
        engine = self._runtime.name, self._runtime.info.name, self._runtime.info.checkpoint_sha256
        return epoch_of(image, *self._recording, *first, *engine, self.predictor.tracking)

    def _fail(self, message: Message, error: Exception) -> None:
        self.failed += 1
        self.left_out.row(self._seconds(message))[0] += 1
        if self.failed <= MOST_FAILURES:
            more = "; others are only counted" if self.failed == MOST_FAILURES else ""
            seconds = f"{self._seconds(message):.3f}".rstrip("0").rstrip(".")  # as --start takes it
            words = f"the image received at {seconds} s is left out: {error}"
            self.failures.append(words)
            _log.warning("%s: %s%s", message.topic.name, words, more)

    def _seconds(self, message: Message) -> float:
        """Of the recording, when a message was received."""
        return (message.time - (self._recording[0] or 0)) * 1e-9

    # --- messages out

    def topics(self) -> Iterator[NewTopic]:
        """The topics of `write`."""
        latched = {"class_map": CLASS_MAP}
        if "detections" in self._settings.outputs:
            latched["label_info"] = LABEL_INFO
        outputs = self._outputs.values()
        for topic, kind in (latched | {output.topic: output.type for output in outputs}).items():
            definition, _ = ros2_types().generate_msgdef(kind, ros_version=2)
            qos, type_hash = offered(latched=topic in latched), ros2_types().hash_rihs01(kind)
            yield NewTopic(f"{self.node}/{topic}", kind, definition, type_hash, qos)

    def write(self, result: Processed, time: int, writer: SplitWriter) -> None:
        """Append the outputs to a bag, as received at `time` (ns); the class map comes first."""
        for topic, kind, message in self._messages(result):
            data = ros2_types().serialize_cdr(message, kind, little_endian=True)
            writer.write(f"{self.node}/{topic}", time, data)

    def _messages(self, result: Processed) -> Iterator[tuple[str, str, Any]]:
        """Topic, type and message of each output, in the order of the live node."""
        number, skipped, header, image, frame, *_ = result
        classes, rle = self.predictor.classes, self._settings.rle
        if not number:  # what the live node publishes once: names of the class ids
            yield "class_map", CLASS_MAP, self._convert.class_map(classes)
            if "detections" in self._settings.outputs:
                yield "label_info", LABEL_INFO, self._convert.label_info(header, classes)
        published = FrameToPublish(header, image, frame, classes, number, skipped, rle)
        made = {topic: (kind, message) for topic, kind, message in result.messages}
        for output in self._outputs.values():
            if not (output.spatial or output.semantic):
                yield output.topic, output.type, output.make(self._convert, published)
            elif output.topic in made:
                yield output.topic, *made[output.topic]
