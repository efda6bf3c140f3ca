"""The whole core in one verb: `VideoPredictor.step(image, stamp)` gives the panoptic frame.

    predictor = VideoPredictor(open_runtime("street_lite0.onnx"))
    frame = predictor.step(image, stamp)

One predictor per camera; several may share one runtime, because the state is kept here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import TrackingConfig
from .config_io import ConfigError
from .engine.base import Runtime
from .geometry import LabelMap, NearestUpsampling, OverlappingMasks, Regions
from .preprocess import check_image, resize
from .stored_state import pack, unpack
from .tracking import STATE_CLASSES, build_tracker
from .tracking.baselines import ImageFeatures
from .tracking.clock import StreamClock
from .tracking.detections import Pixels, ThingDetections
from .tracking.history import Tracked
from .types import ClassTable, Detections, PanopticFrame, StageTimes, Track, TrackState

LATE_IMAGES = 4
"""Late images in a row that are dropped; one more, and the clock was set back for good."""

_log = logging.getLogger(__name__)


class VideoPredictor:
    """Online segmentation and tracking of one camera, by the task of the model.

    Args:
        runtime: the engine.
        tracking: settings of the tracker; in task semantic there is none.
        first_epoch: number of the first epoch. Give `epochs.new_epoch()` where results of several
            processes come together: an epoch and a track id then name one object in all of them.

    Raises:
        ConfigError: the association needs a package that is missing.
    """

    def __init__(
        self, runtime: Runtime, tracking: TrackingConfig | None = None, first_epoch: int = 0
    ) -> None:
        self.classes: ClassTable = runtime.info.classes
        self._runtime = runtime
        self._tracker = build_tracker(
            tracking, first_epoch, _imagenet_features, has_things=bool(self.classes.things)
        )
        self._upsampling: NearestUpsampling | None = None
        self._stream = _Stream()
        self._suspended: _Suspended | None = None
        self._newest_epoch = first_epoch
        self._late_images = 0
        self.last_reset = ""
        """Why the last reset was; empty before the first."""

    @property
    def epoch(self) -> int:
        """Number of the stream of the last frame; ids of two epochs name different objects."""
        return self._tracker.epoch

    @property
    def tracking(self) -> TrackingConfig:
        """Settings of the tracker; new ones hold from the next frame on.

        Setting another `association` is a ValueError: memory of one cannot pass to the other.
        """
        return self._tracker.config

    @tracking.setter
    def tracking(self, config: TrackingConfig) -> None:
        if config.association != self.tracking.association:
            raise ValueError(
                f"association must stay {self.tracking.association!r} while the predictor lives, "
                f"found {config.association!r}; make a new predictor"
            )
        self._tracker.config = config

    @property
    def next_epoch(self) -> int:
        """The lowest number that no epoch of this predictor has had; `epoch` may be lower than the
        one before, see `step`."""
        return self._newest_epoch + 1

    def reset(self, epoch: int | None = None) -> None:
        """Forget the stream: the next frame is a first one, with new track ids.

        Args:
            epoch: number of the new epoch; None = `next_epoch`.
        """
        self._suspended = None
        self._begin("requested", epoch)

    def is_late(self, stamp: int) -> bool:
        """Whether an image came after one with a later stamp, and is better dropped than processed.

        Ask once for each image, before `step`. After `LATE_IMAGES` in a row the answer is no: the
        clock was set back by a little, and nothing would be processed until it has caught up.

        Args:
            stamp: nanoseconds.
        """
        late = self._stream.clock.is_late(int(stamp))
        self._late_images = self._late_images + 1 if late else 0
        return late and self._late_images <= LATE_IMAGES

    def state(self) -> bytes:
        """All that is remembered of the stream, for `restore`."""
        suspended = self._suspended
        tree = {
            "stream": self._packed(self._stream),
            "tracker": self._tracker.state(),
            "suspended": suspended and (self._packed(suspended.stream), suspended.tracker),
            "newest_epoch": self._newest_epoch,
            "late_images": self._late_images,
        }
        return pack(tree, STATE_CLASSES)

    def restore(self, state: bytes) -> None:
        """Resume where another predictor of the same engine and association was.

        Raises:
            StateError: the bytes are damaged.
        """
        tree = unpack(state, STATE_CLASSES)
        self._tracker.restore(tree["tracker"])
        self._stream = _Stream(*tree["stream"])
        self._suspended = None
        if tree["suspended"] is not None:
            stream, tracker = tree["suspended"]
            self._suspended = _Suspended(_Stream(*stream), tracker)
        self._newest_epoch, self._late_images = tree["newest_epoch"], tree["late_images"]

    def _packed(self, stream: _Stream) -> tuple[Any, tuple[int, ...] | None, StreamClock]:
        engine = stream.engine
        engine = None if engine is None else self._runtime.portable_state(engine)
        return engine, stream.size, stream.clock

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
            ValueError: the image is not a uint8 RGB image with pixels.
            ConfigError: the association needs what the engine does not give.
        """
        check_image(image)
        stamp = int(stamp)  # those of numpy overflow
        reason = self._break_before(image, stamp)
        resumed = self._resumed(image, stamp, reason)
        stream = resumed.stream if resumed else _Stream() if reason else self._stream
        watch = _Stopwatch()
        resized = resize(image, self._runtime.info.height, self._runtime.info.width)
        watch.lap("preprocess")
        segments, engine = self._runtime.step(resized, stream.engine)
        watch.lap("step")
        self._change(reason, resumed)
        clock = stream.clock.advanced(stamp)
        size = (image.shape[0], image.shape[1])
        shown, tracks, tracked = self._track(segments, resized, size, clock, watch)
        self._stream = _Stream(engine, image.shape, clock)
        return PanopticFrame(
            stamp=stamp,
            label_map=shown.label_map,
            tracks=tracks,
            born=tracked.born,
            ended=tracked.ended,
            epoch=self.epoch,
            times=StageTimes(**watch.laps),
            masks=shown.masks,
        )

    def _break_before(self, image: NDArray[np.uint8], stamp: int) -> str:
        """Why this frame cannot follow the last one; empty if it can."""
        size = self._stream.size
        if size is not None and image.shape != size:
            return f"the image size changed from {size[:2]} to {image.shape[:2]}"
        return self._stream.clock.break_before(stamp, self.tracking.reset_gap_s)

    def _resumed(self, image: NDArray[np.uint8], stamp: int, reason: str) -> _Suspended | None:
        """The stream before the last break, if this frame follows that and not the last one."""
        before = self._suspended
        if before is None or before.stream.size != image.shape:
            return None
        if before.stream.clock.break_before(stamp, self.tracking.reset_gap_s):
            return None
        nearer = before.stream.clock.distance(stamp) < self._stream.clock.distance(stamp)
        return before if reason or nearer else None

    def _change(self, reason: str, resumed: _Suspended | None) -> None:
        """Begin or resume a stream if the last one does not continue, which is suspended then."""
        suspended = None
        if (reason or resumed) and self._stream.size is not None:
            suspended = _Suspended(self._stream, self._tracker.state())
        if resumed:
            _log.info("tracker resumed: the last stamp was out of order (%s)", reason)
            self._stream = resumed.stream
            self._tracker.restore(resumed.tracker)
        elif reason:
            _log.info("tracker reset: %s", reason)
            self._begin(reason)
        self._suspended = suspended

    def _begin(self, reason: str, epoch: int | None = None) -> None:
        """A new stream; its epoch is one that none has had, if none is given."""
        self.last_reset = reason
        self._stream = _Stream()
        epoch = self.next_epoch if epoch is None else epoch
        self._tracker.reset()
        self._tracker.epoch = self._newest_epoch = epoch

    def _track(
        self,
        segments: Detections,
        image: NDArray[np.uint8],
        size: tuple[int, int],
        clock: StreamClock,
        watch: _Stopwatch,
    ) -> tuple[_Shown, tuple[Track, ...], Tracked]:
        """Slots to regions, regions to tracks, tracks to labels: stuff first, then things."""
        if self._upsampling is None or self._upsampling.target != size:
            height, width = segments.segment_map.shape
            self._upsampling = NearestUpsampling((height, width), size)
        grouped = _group(segments, self.classes)
        regions = _measure(segments, grouped, self._upsampling)
        present = np.flatnonzero(regions.areas)
        stuff, things = np.split(present, [np.searchsorted(present, grouped.first_thing)])
        slots = things - grouped.first_thing
        detections = _detections(segments, slots, regions.take(things), size, image)
        watch.lap("merge")
        assert clock.stamp is not None
        tracked = self._tracker.update(detections, clock.stamp, 1 + len(stuff), clock.time)
        watch.lap("track")
        order = np.concatenate([stuff, things[tracked.detection_of]])
        shown = _show(segments, grouped, order, self._upsampling)
        rows = [
            _stuff_row(grouped, regions, region, label, clock.stamp)
            for label, region in enumerate(stuff.tolist(), start=1)
        ]
        watch.lap("merge")
        return shown, (*rows, *tracked.visible, *tracked.coasted), tracked


@dataclass(frozen=True)
class _Stream:
    """What is remembered of a stream beside its tracks."""

    engine: Any | None = None
    """State of the engine."""
    size: tuple[int, ...] | None = None
    """Shape of the images; None before the first."""
    clock: StreamClock = StreamClock()


class _Suspended(NamedTuple):
    """A stream of which the last image seemed to be no part."""

    stream: _Stream
    tracker: Any
    """State of the tracker, which a reset leaves as it is."""


class _Stopwatch:
    """Milliseconds of each stage; one that is done in several parts has their sum."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage, or a part of it, that began with the end of the last one."""
        now = time.perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now


@dataclass(frozen=True)
class _Grouped:
    """Regions of a frame: one for every stuff class, then one for every slot (the thing slots)."""

    map: NDArray[np.uint16]
    """[h, w]; 0 = none, r + 1 = region r."""
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    first_thing: int
    """Region of slot 0."""


def _group(segments: Detections, classes: ClassTable) -> _Grouped:
    """Slots of one stuff class become one region, with the score of the best of them."""
    stuff = np.array(classes.stuff, np.int64)
    slots = np.arange(len(segments.class_ids))
    same = (segments.class_ids == stuff[:, None]) & (segments.areas > 0)
    stuff_scores = np.where(same, segments.scores, 0).max(axis=1, initial=0)
    region_of = np.zeros(len(slots) + 1, np.uint16)
    region_of[1:] = 1 + len(stuff) + slots
    regions, stuff_slots = np.nonzero(same)
    region_of[1 + stuff_slots] = 1 + regions
    return _Grouped(
        map=region_of[segments.segment_map],
        class_ids=np.concatenate([stuff, segments.class_ids]),
        scores=np.concatenate([stuff_scores, segments.scores]),
        first_thing=len(stuff),
    )


def _measure(segments: Detections, grouped: _Grouped, upsampling: NearestUpsampling) -> Regions:
    """Geometry of all regions: of whole masks, if masks may overlap and so all are of things."""
    if segments.masks is None:
        return upsampling.measure(grouped.map, len(grouped.class_ids))
    return upsampling.measure_masks(segments.masks, segments.areas > 0)


@dataclass(frozen=True)
class _Shown:
    """Where the labels of a frame are."""

    label_map: LabelMap
    masks: OverlappingMasks | None


def _show(
    segments: Detections, grouped: _Grouped, order: NDArray[np.int64], upsampling: NearestUpsampling
) -> _Shown:
    """Labels 1, 2, ... for the regions `order`; regions are slots where masks may overlap."""
    label_of = np.zeros(len(grouped.class_ids) + 1, np.uint16)
    label_of[1 + order] = np.arange(1, len(order) + 1)
    label_map = LabelMap(label_of[grouped.map], upsampling)
    if segments.masks is None:
        return _Shown(label_map, None)
    return _Shown(label_map, OverlappingMasks(segments.masks[order], upsampling))


def _stuff_row(grouped: _Grouped, regions: Regions, i: int, label: int, stamp: int) -> Track:
    """The row of stuff region i."""
    score = float(grouped.scores[i])
    x, y, width, height = regions.boxes[i].tolist()
    return Track(
        label=label,
        track_id=0,
        class_id=int(grouped.class_ids[i]),
        is_thing=False,
        state=TrackState.CONFIRMED,
        score=score,
        track_score=score,
        age=1,
        first_seen=stamp,
        last_seen=stamp,
        box=(x, y, width, height),
        centroid=(float(regions.centroids[i, 0]), float(regions.centroids[i, 1])),
        velocity=(float("nan"), float("nan")),
        area=int(regions.areas[i]),
        truncated=bool(regions.truncated[i]),
    )


def _detections(
    segments: Detections,
    slots: NDArray[np.int64],
    regions: Regions,
    image_size: tuple[int, int],
    image: NDArray[np.uint8],
) -> ThingDetections:
    """What the tracker is given of N slots: `regions` are theirs, in an image of `image_size`;
    `image` is the engine's."""
    return ThingDetections(
        segments.class_ids[slots],
        segments.scores[slots],
        segments.embeddings[slots],
        regions,
        image_size,
        boxes=None if segments.boxes is None else segments.boxes[slots],
        kernels=None if segments.kernels is None else segments.kernels[slots],
        pixels=Pixels(image, segments.segment_map, slots, segments.masks),
    )


def _imagenet_features() -> ImageFeatures:
    """The image network of association `appearance`."""
    try:
        from .model.image_features import imagenet_features

        return imagenet_features()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"association 'appearance' needs {error.name}: pip install 'video_knet_ros[train]'"
        ) from None
