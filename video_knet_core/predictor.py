"""The whole core in one verb: `VideoPredictor.step(image, stamp)` gives the panoptic frame.

    predictor = VideoPredictor(open_runtime("street.onnx"))
    frame = predictor.step(image, stamp)

One predictor per camera; several may use one runtime, because the state is kept here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .engine.base import Runtime
from .geometry import LabelMap, NearestUpsampling, OverlappingMasks, nearest_aspect
from .tracking import build_tracker, tracker_settings
from .tracking.clock import StreamClock, StreamTime
from .tracking.tracker import NoTracker, Tracker, TrackerSettings
from .types import (
    TRACK_DTYPE,
    ClassTable,
    Detections,
    PanopticFrame,
    StageTimes,
    TrackTable,
    check_image,
    rows_without_track,
)

LATE_IMAGES = 4
"""Late images in a row that are dropped; one more, and the clock was set back for good."""

_log = logging.getLogger(__name__)


class VideoPredictor:
    """Online segmentation and tracking of one camera, by the task of the model.

    Args:
        runtime: the engine.
        tracking: settings of a tracker, which choose it; see `tracking.tracker_settings`. In task
            semantic there is no tracker.
        first_epoch: number of the first epoch. Give `epochs.new_epoch()` where results of several
            processes come together: an epoch and a track id then name one object in all of them.

    Raises:
        ConfigError: the tracker needs a package that is missing.
    """

    def __init__(
        self, runtime: Runtime, tracking: TrackerSettings | None = None, first_epoch: int = 0
    ) -> None:
        self.classes: ClassTable = runtime.info.classes
        self.runtime = runtime
        settings = tracking or tracker_settings()
        self._tracker: Tracker = (
            build_tracker(settings) if self.classes.things else NoTracker(settings)
        )
        self._upsampling: NearestUpsampling | None = None
        self._stream = _Stream(first_epoch)
        self._suspended: _Stream | None = None
        self._newest_epoch = first_epoch
        self._late_images = 0
        self.last_reset = ""
        """Reason of the last reset; empty before the first one."""

    @property
    def epoch(self) -> int:
        """Number of the stream of the last frame; ids of two epochs name different objects."""
        return self._stream.epoch

    @property
    def tracking(self) -> TrackerSettings:
        """Settings of the tracker; new ones are used from the next frame on.

        Setting those of another tracker is a ValueError: the memory of one is useless to another.
        """
        return self._tracker.settings

    @tracking.setter
    def tracking(self, settings: TrackerSettings) -> None:
        if type(settings) is not type(self.tracking):
            raise ValueError(
                f"tracker: expected settings of {self.tracking.tracker!r} while the predictor "
                f"lives, got {settings.tracker!r}; make a new predictor"
            )
        self._tracker.settings = settings

    @property
    def next_epoch(self) -> int:
        """The lowest number that no epoch of this predictor has had; `epoch` may be lower than the
        one before, see `step`."""
        return self._newest_epoch + 1

    def reset(self, epoch: int | None = None) -> None:
        """Forget the stream: the next frame is a first one, with new track ids.

        The new epoch has the number `epoch`, or else `next_epoch`.
        """
        self._suspended = None
        self._begin("requested", epoch)

    def is_late(self, stamp: int) -> bool:
        """Whether an image came after one with a later stamp [ns], and is better dropped.

        Ask once for each image, before `step`. After `LATE_IMAGES` in a row the answer is no: the
        clock was set back by a little, and nothing would be processed until it has caught up.
        """
        late = self._stream.clock.is_late(int(stamp))
        self._late_images = self._late_images + 1 if late else 0
        return late and self._late_images <= LATE_IMAGES

    def step(self, image: NDArray[np.uint8], stamp: int) -> PanopticFrame:
        """Segment and track one frame. A frame that fails leaves the predictor as it was.

        Args:
            image: uint8 [H, W, 3] RGB of any size. Another size than the last one's resets.
            stamp: nanoseconds. A step back by more than half a second resets, and so does a gap
                over `reset_gap_s`; a smaller step back does not: the order of the calls counts. If
                the very next stamp is again one of before the break, its epoch and ids are resumed:
                one wrong stamp costs no ids. The ids that its own frame gave may come again,
                in another epoch.

        Raises:
            ValueError: the image is not a uint8 RGB image with pixels, or the stamp has over 62
                bits.
            ConfigError: the tracker needs what the engine does not return.
        """
        check_image(image)
        stamp = int(stamp)  # those of numpy overflow
        if not -(2**62) <= stamp < 2**62:
            raise ValueError(f"stamp: expected nanoseconds of less than 146 years, got {stamp}")
        reason = self._break_before(image, stamp)
        resumed = self._resumed(image, stamp, reason)
        before = resumed or (_Stream(0) if reason else self._stream)
        marks = [time.perf_counter()]
        size = (image.shape[0], image.shape[1])
        resized = resize(image, *nearest_aspect(self.runtime.info.sizes, size))
        marks.append(time.perf_counter())
        detections, engine = self.runtime.step(resized, before.engine)
        marks.append(time.perf_counter())
        self._change(reason, resumed)
        clock = before.clock.advanced(stamp)
        frame = self._track(detections, resized, size, stamp, clock.time, marks)
        self._stream = _Stream(self.epoch, engine, image.shape, clock)
        return frame

    def _break_before(self, image: NDArray[np.uint8], stamp: int) -> str:
        """Why this frame cannot follow the last one; empty if it can."""
        size = self._stream.size
        if size is not None and image.shape != size:
            return f"the image size changed from {size[:2]} to {image.shape[:2]}"
        return self._stream.clock.break_before(stamp, self.tracking.reset_gap_s)

    def _resumed(self, image: NDArray[np.uint8], stamp: int, reason: str) -> _Stream | None:
        """The stream before the last break, if this frame follows that and not the last one."""
        before = self._suspended
        if before is None or before.size != image.shape:
            return None
        if before.clock.break_before(stamp, self.tracking.reset_gap_s):
            return None
        nearer = before.clock.distance(stamp) < self._stream.clock.distance(stamp)
        return before if reason or nearer else None

    def _change(self, reason: str, resumed: _Stream | None) -> None:
        """Begin or resume a stream if the last one does not continue, which is suspended then."""
        suspended = None
        if (reason or resumed) and self._stream.size is not None:
            suspended = replace(self._stream, tracker=self._tracker.state())
        if resumed:
            _log.info("tracker resumed: the last stamp was out of order (%s)", reason)
            self._stream = resumed
            self._tracker.restore(resumed.tracker)
        elif reason:
            _log.info("tracker reset: %s", reason)
            self._begin(reason)
        self._suspended = suspended

    def _begin(self, reason: str, epoch: int | None = None) -> None:
        """A new stream; its epoch is one that none has had, if none is given."""
        self.last_reset = reason
        self._newest_epoch = self.next_epoch if epoch is None else epoch
        self._stream = _Stream(self._newest_epoch)
        self._tracker.reset()

    def _upsampling_of(self, small: NDArray, size: tuple[int, int]) -> NearestUpsampling:
        """That of a map [h, w] to a size; the last one is kept."""
        height, width = small.shape
        kept = self._upsampling
        if kept is None or (kept.source, kept.target) != ((height, width), size):
            self._upsampling = kept = NearestUpsampling((height, width), size)
        return kept

    def _track(
        self,
        detections: Detections,
        image: NDArray[np.uint8],
        size: tuple[int, int],
        stamp: int,
        now: StreamTime,
        marks: list[float],
    ) -> PanopticFrame:
        """Slots to regions, regions to tracks, tracks to labels: stuff first, then things.

        The regions of a frame are its stuff classes, then its slots, of which those of things are
        used. `image` is the engine's, `size` that of the camera's.
        """
        upsampling = self._upsampling_of(detections.segment_map, size)
        stuff = np.array(self.classes.stuff, np.int64)
        region_of, stuff_scores = _stuff_regions(detections, stuff)
        if detections.masks is None:
            region_map = _look_up(region_of, detections.segment_map)
            regions = upsampling.measure(region_map, len(stuff) + len(detections))
        else:  # no stuff: regions are slots
            regions = upsampling.measure_masks(detections.masks, detections.areas > 0)
        present = np.flatnonzero(regions.areas)
        of_stuff, of_things = np.split(present, [np.searchsorted(present, len(stuff))])
        things = replace(
            detections.take(of_things - len(stuff)),
            regions=regions.take(of_things),
            image_size=size,
            image=image,
        )
        marks.append(time.perf_counter())
        update = self._tracker.update(things, stamp, now)
        marks.append(time.perf_counter())
        order = np.lexsort((update.rows["track_id"], update.rows["track_id"] == 0))
        shown = np.concatenate([of_stuff, of_things[order]])
        rows = np.zeros(len(shown) + len(update.coasted), TRACK_DTYPE)
        rows[: len(of_stuff)] = rows_without_track(
            stuff[of_stuff], stuff_scores[of_stuff], regions.take(of_stuff), stamp, False
        )
        rows[len(of_stuff) : len(shown)] = update.rows.take(order)
        rows[len(shown) :] = update.coasted
        labels = np.arange(1, len(shown) + 1)
        rows["label"][: len(shown)] = labels
        label_of = np.zeros(len(regions.areas) + 1, np.uint16)
        label_of[1 + shown] = labels
        label_map = _look_up(label_of[region_of], detections.segment_map)
        masks = None if detections.masks is None else detections.masks[shown]
        marks.append(time.perf_counter())
        preprocess, step, merge, track, label = (1e3 * np.diff(marks)).tolist()
        return PanopticFrame(
            stamp,
            LabelMap(label_map, upsampling),
            TrackTable(rows),
            update.born,
            update.ended,
            self.epoch,
            StageTimes(preprocess, step, merge + label, track),
            None if masks is None else OverlappingMasks(masks, upsampling),
        )


@dataclass(frozen=True)
class _Stream:
    """What is stored of a stream beside its tracks."""

    epoch: int
    engine: Any = None
    """State of the engine."""
    size: tuple[int, ...] | None = None
    """Shape of the images; None before the first."""
    clock: StreamClock = StreamClock()
    tracker: Any = None
    """State of the tracker while the stream is suspended, since the last image seemed to be no part
    of it."""


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """To [height, width, 3] by linear interpolation in steps that at most halve an axis.

    In one step, thin objects between the sampled pixels would be lost; half the size is the mean of
    two pixels. That is several times faster than OpenCV's INTER_AREA.
    """
    if image.strides[2] < 0:  # a view of BGR, of which OpenCV would make a copy first
        bgr = resize(image[..., ::-1], height, width)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    while image.shape[:2] != (height, width):
        step = [
            max(length // 2, target) if length > target else target
            for length, target in ((image.shape[1], width), (image.shape[0], height))
        ]
        image = np.asarray(cv2.resize(image, step, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(image)


def _look_up(table: NDArray, small: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[h, w] what `table`, of up to 256 values, has for each pixel of a map."""
    values = np.zeros(256, np.uint16)
    values[: len(table)] = table
    return np.asarray(cv2.LUT(small, values), np.uint16)


def _stuff_regions(
    detections: Detections, stuff: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Slots of one stuff class become one region, with the score of the best of them.

    Returns:
        [S + 1] 1 + the region of each value of the segment map, 0 for none; and the score of each
        stuff class.
    """
    slots = np.arange(len(detections))
    same = (detections.class_ids == stuff[:, None]) & (detections.areas > 0)
    region_of = np.concatenate([[0], 1 + len(stuff) + slots])
    regions, stuff_slots = np.nonzero(same)
    region_of[1 + stuff_slots] = 1 + regions
    return region_of, np.where(same, detections.scores, 0).max(axis=1, initial=0)
