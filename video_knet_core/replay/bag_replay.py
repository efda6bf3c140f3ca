"""The loop of a replay."""

from __future__ import annotations

import importlib
import itertools
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..bags.bag import BagDamage, Contents, Message, RecordedTopic
from ..bags.definitions import Embedded
from ..bags.opening import Bag, open_bag
from ..data.frame_source import DEFAULT_FPS
from ..engine.base import Runtime
from ..epochs import sample_of
from ..natural_order import natural_order
from ..output_files import exclusive, expanded
from ..progress import progress_bar
from ..tracking import TrackerSettings, tracker_settings
from .background import FileThread, read_ahead
from .camera import CameraReplay, Decoded
from .job_record import JobRecord, begin, finish
from .order import in_stamp_order
from .products import Products
from .replay_settings import EmptyReplayError, ReplayError, ReplaySettings
from .report.collect import ReportFacts, changed_options
from .rerun_recording import RerunRecording
from .selection import (
    TimeRange,
    choose_outputs,
    choose_topics,
    has_images,
    node_names,
    time_range,
    topics_to_copy,
)
from .spatial_topics import TRANSFORMS, SpatialTopic, spatial_topics

BATCH = 1 << 20
"""Bytes after which messages are handed on though no image follows."""
Read = tuple[Message, Decoded | ValueError | None]
"""A message and, of a camera, its image: see `CameraReplay.image_of`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay came to; `str()` is its closing report."""

    out: Path
    backend: str
    frames: int
    failed: int
    """Images that could not be used."""
    late: int
    """Images left out because they came after one with a later stamp."""
    damage: str
    """Where and why some of the bag could not be read; empty if all of it could."""
    seconds: float
    empty: tuple[str, ...] = ()
    """Topics without an image in what was read."""

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0.0
        lines = [f"{self.frames} frames in {self.seconds:.1f} s ({rate:.1f} fps, {self.backend})"]
        if self.failed:
            lines.append(f"{self.failed} images could not be used")
        if self.late:
            lines.append(f"{self.late} images were left out: they came after a later one")
        if self.damage:
            lines.append(f"the bag is damaged; it was read up to there: {self.damage}")
        lines += [f"no images of {topic} in what was read" for topic in self.empty]
        names = natural_order(f"{p.name}/" if p.is_dir() else p.name for p in self.out.iterdir())
        return "\n".join([*lines, f"{self.out}: {', '.join(names)}"])


def replay(
    path: str | Path,
    runtime: Runtime | Callable[[], Runtime],
    out: Path,
    settings: ReplaySettings | None = None,
    tracking: TrackerSettings | None = None,
    resume: bool = False,
) -> ReplaySummary:
    """Process the images of a bag and write the results into a folder.

    Args:
        path: as for `open_bag`.
        runtime: the engine, or what opens it once the bag is known to have the topics.
        out: a new or empty folder; or, with `resume`, that of an interrupted replay.
        settings: what to do.
        tracking: settings of the tracker.
        resume: replace what an interrupted replay has left.

    Raises:
        BagError: the bag cannot be read at all, or does not have what is requested.
        FinishedError: `out` holds the results of this replay.
        ReplayError: `out` holds something else.
        OutputError: another process writes into `out`, or it is a file.
    """
    settings, tracking = settings or ReplaySettings(), tracking or tracker_settings()
    path = expanded(path)
    bag = open_bag(path)
    contents = bag.contents()
    topics, limits, empty = _choose(path, bag, contents, settings)
    runtime = runtime() if callable(runtime) else runtime
    info, nodes = runtime.info, node_names(topics)
    settings = replace(settings, outputs=choose_outputs(info, settings.outputs))
    rerun = RerunRecording(out, info.classes) if settings.rerun else None
    if settings.report:
        importlib.import_module(".report.page", __package__)  # a missing package ends it here
    task = _task(path, bag, runtime, settings, tracking)
    with exclusive(out), ExitStack() as held:
        work = begin(out, task, resume)
        recording = contents.start, contents.end, path.name, sample_of(bag.files)
        cameras = {
            topic: CameraReplay(node, runtime, settings, tracking, recording)
            for topic, node in nodes.items()
        }
        needed = spatial_topics(contents, topics, settings)
        _add_static_transforms(bag, needed, cameras)
        copied = topics_to_copy(contents, nodes) if settings.include_input_topics else {}
        rates = {topic: _fps(contents, topic, settings.every) for topic in topics}
        start, options = contents.start or 0, changed_options(settings, tracking)
        facts = ReportFacts(path.name, info.name, runtime.name, info.classes, nodes, start, options)
        products = Products(held, work, settings, facts, cameras, copied, rates, rerun)
        loop = _Loop(bag, limits, cameras, needed, copied, products, settings.split_frames)
        begun = time.perf_counter()
        loop.run(_expected(contents, topics, settings))
        products.complete(loop.damage)
        failed = sum(camera.failed for camera in cameras.values())
        finish(out, JobRecord(task, loop.frames, failed, loop.damage))
    late = sum(camera.late for camera in cameras.values())
    seconds = time.perf_counter() - begun
    return ReplaySummary(out, runtime.name, loop.frames, failed, late, loop.damage, seconds, empty)


def _choose(
    path: Path, bag: Bag, contents: Contents, settings: ReplaySettings
) -> tuple[tuple[str, ...], TimeRange, tuple[str, ...]]:
    """Topics, their time, and those of them that have no image in it; errors name the bag."""
    try:
        topics = choose_topics(contents, settings)
        limits = time_range(contents, settings)
        return topics, limits, _topics_without_images(bag, contents, topics, limits)
    except ReplayError as error:
        damage = f" ({contents.damage})" if contents.damage else ""
        raise type(error)(f"{path}: {error}{damage}") from None


def _task(
    path: Path, bag: Bag, runtime: Runtime, settings: ReplaySettings, tracking: TrackerSettings
) -> dict[str, Any]:
    """What is replayed, and how: see `JobRecord`."""
    return {
        "bag": path.name,
        "bytes": sum(file.stat().st_size for file in bag.files),
        "model": runtime.info.name,
        "checkpoint": runtime.info.checkpoint_sha256,
        "backend": runtime.name,
        "settings": asdict(settings),
        "tracking": {"tracker": tracking.tracker, **asdict(tracking)},
    }


class _Loop:
    """Messages in, products out: one thread reads ahead, one writes."""

    def __init__(
        self,
        bag: Bag,
        limits: TimeRange,
        cameras: Mapping[str, CameraReplay],
        needed: Sequence[SpatialTopic],
        copied: Mapping[str, Embedded],
        products: Products,
        split_frames: int,
    ) -> None:
        self._bag, self._limits, self._cameras, self._copied = bag, limits, cameras, copied
        self._needed: dict[str, list[SpatialTopic]] = {}
        for topic in needed:
            self._needed.setdefault(topic.name, []).append(topic)
        self._products, self._split_frames = products, split_frames
        self._files = FileThread()
        self.damage = ""
        self.frames = 0

    def run(self, expected: int) -> None:
        """Process all messages; about so many frames come."""
        bar = progress_bar(total=expected, unit="frame")
        try:
            with bar, closing(read_ahead(self._read())) as batches:
                for message, decoded in itertools.chain.from_iterable(batches):
                    if self._take(message, decoded):
                        bar.update()
            self._files.run(self._products.finish_part)
        finally:
            self._files.close()

    def _read(self) -> Generator[list[Read], None, None]:
        """Messages up to each image, with the image; in the thread that reads ahead."""
        batch: list[Read] = []
        size = 0
        names = {*self._cameras, *self._copied, *self._needed}
        messages = filter(self._is_used, self._bag.messages(names, *self._limits))
        try:
            for message in in_stamp_order(messages, self._cameras):
                camera = self._cameras.get(message.topic.name)
                decoded = camera.image_of(message) if camera else None
                batch.append((message, decoded))
                size += len(message.data)
                if decoded is not None or size > BATCH:
                    yield batch
                    batch, size = [], 0
        except BagDamage as error:
            self.damage = str(error)
        yield batch

    def _is_used(self, message: Message) -> bool:
        """Whether it is an image, or copied; a topic may have messages of several types."""
        topic = message.topic
        if topic.name in self._cameras:
            return has_images(topic)
        return topic.name in self._needed or self._is_copied(topic)

    def _is_copied(self, topic: RecordedTopic) -> bool:
        return topic.name in self._copied and self._copied[topic.name].is_of(topic)

    def _take(self, message: Message, decoded: Decoded | ValueError | None) -> bool:
        """Process a message; returns whether it gave a frame."""
        if self._is_copied(message.topic):
            self._files.submit(partial(self._products.copy, message))
        for topic in self._needed.get(message.topic.name, ()):
            if message.topic.type in topic.types:
                self._cameras[topic.camera].add(message, topic.add)
        camera = self._cameras.get(message.topic.name)
        result = camera.process(message, decoded) if camera else None
        if result is None:
            return False
        self._files.submit(partial(self._products.write, message, result))
        self.frames += 1
        if self.frames % self._split_frames == 0:
            self._files.run(self._products.finish_part)
        return True


def _add_static_transforms(
    bag: Bag, needed: Sequence[SpatialTopic], cameras: Mapping[str, CameraReplay]
) -> None:
    """Those of the whole bag, which a live node gets late too: they are latched."""
    static = [topic for topic in needed if TRANSFORMS.get(topic.name)]
    if not static:
        return
    try:
        for message in bag.messages({topic.name for topic in static}):
            for topic in static:
                if message.topic.type in topic.types:
                    cameras[topic.camera].add(message, topic.add)
    except BagDamage:  # met again by the replay
        return


# --- what to expect ------------------------------------------------------------------------------


def _topics_without_images(
    bag: Bag, contents: Contents, topics: Sequence[str], limits: TimeRange
) -> tuple[str, ...]:
    """Cameras without an image in the chosen time; EmptyReplayError if none has any."""
    if limits == (None, None) and all(map(contents.counts.get, topics)):
        return ()
    missing, damage = dict.fromkeys(topics), ""
    try:
        with closing(m for m in bag.messages(topics, *limits) if has_images(m.topic)) as images:
            for message in images:
                missing.pop(message.topic.name, None)
                if not missing:
                    break
    except BagDamage as error:  # met again by the replay if there is something to replay
        damage = "" if contents.damage else f" ({error})"
    if len(missing) == len(topics):
        raise EmptyReplayError(f"no images of {', '.join(topics)} in the chosen time{damage}")
    for topic in missing:
        _log.warning("no images of %s in the chosen time%s", topic, damage)
    return tuple(missing)


def _expected(contents: Contents, topics: Sequence[str], settings: ReplaySettings) -> int:
    """Frames there are to process, about."""
    rest = max(contents.seconds - settings.start, 0.0)
    read = rest if settings.duration is None else min(rest, settings.duration)
    part = read / contents.seconds if contents.seconds else 1.0
    return round(sum(contents.counts.get(t, 0) for t in topics) * part / settings.every)


def _fps(contents: Contents, topic: str, every: int) -> float:
    """Mean rate of the processed images of a topic."""
    seconds, count = contents.seconds, contents.counts.get(topic, 0)
    rate = (count - 1) / seconds if count > 1 and seconds else DEFAULT_FPS
    return round(min(max(rate / every, 1.0), 120.0), 2)
