"""The loop of a replay."""

from __future__ import annotations

import importlib
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from ..bags.bag import BagDamage, Message
from ..bags.definitions import MessageError
from ..bags.opening import open_bag
from ..bags.writing import NewTopic, SplitWriter, recorded_qos
from ..data.frame_source import DEFAULT_FPS
from ..engine.base import Runtime
from ..epochs import sample_of
from ..natural_order import natural_order
from ..output_files import exclusive, expanded
from ..progress import progress_bar
from ..tracking import TrackerSettings, tracker_settings
from .background import FileThread, read_ahead
from .camera import CameraReplay, Decoded, Processed
from .job_record import JobRecord, begin, finish
from .order import in_stamp_order
from .products import CameraFiles
from .replay_settings import EmptyReplayError, ReplayError, ReplaySettings
from .report.collect import ReplayReport, ReportFacts, changed_options
from .rerun_recording import RerunRecording
from .selection import (
    choose_outputs,
    choose_topics,
    has_images,
    node_names,
    time_range,
    topics_to_copy,
)

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
        OSError: a file cannot be written.
    """
    settings, tracking = settings or ReplaySettings(), tracking or tracker_settings()
    with ExitStack() as held:
        return _Replay(expanded(path), runtime, out, settings, tracking, resume, held).run()


class _Replay:
    def __init__(
        self,
        path: Path,
        runtime: Runtime | Callable[[], Runtime],
        out: Path,
        settings: ReplaySettings,
        tracking: TrackerSettings,
        resume: bool,
        held: ExitStack,
    ) -> None:
        self._bag = open_bag(path)
        contents = self._contents = self._bag.contents()
        try:
            topics = choose_topics(contents, settings.topics)
            self._range = time_range(contents, settings)
            self._empty = self._topics_without_images(topics)
        except ReplayError as error:
            damage = f" ({contents.damage})" if contents.damage else ""
            raise type(error)(f"{path}: {error}{damage}") from None
        runtime = runtime() if callable(runtime) else runtime
        info = runtime.info
        settings = replace(settings, outputs=choose_outputs(info, settings.outputs))
        self._settings, self._runtime, self._out = settings, runtime, out
        self._nodes = node_names(topics)
        rerun = RerunRecording(out, info.classes) if settings.rerun else None
        if settings.report:
            importlib.import_module(".report.page", __package__)  # a missing package ends it here
        self._task = {
            "bag": path.name,
            "bytes": sum(file.stat().st_size for file in self._bag.files),
            "model": info.name,
            "checkpoint": info.checkpoint_sha256,
            "backend": runtime.name,
            "settings": asdict(settings),
            "tracking": {"tracker": tracking.tracker, **asdict(tracking)},
        }
        held.enter_context(exclusive(out))
        work = begin(out, self._task, resume)
        recording = (contents.start, contents.end), (path.name, sample_of(self._bag.files))
        self._cameras = {
            topic: CameraReplay(node, runtime, settings, tracking, *recording)
            for topic, node in self._nodes.items()
        }
        self._copied = {}
        if settings.include_input_topics:
            self._copied = topics_to_copy(contents, self._nodes)
        self._writer = SplitWriter(work / "bag", settings.storage, [*self._new_topics()])
        held.callback(self._writer.abort)
        self._report = None
        if settings.report:
            options, start = changed_options(settings, tracking), contents.start or 0
            facts = ReportFacts(
                path.name, info.name, runtime.name, info.classes, self._nodes, start, options
            )
            self._report = ReplayReport(facts, work)
            held.callback(self._report.close)
        self._rerun = rerun
        if rerun is not None:
            held.callback(rerun.close)
        self._files: dict[str, CameraFiles] = {}
        for topic, node in self._nodes.items():
            files = CameraFiles(work, node.strip("/"), settings, info.classes, self._fps(topic))
            self._files[topic] = files
            held.callback(files.close)
        self._thread = FileThread()
        self._damage = ""
        self._frames = self._part = 0

    def run(self) -> ReplaySummary:
        start = time.perf_counter()
        bar = progress_bar(total=self._expected(), unit="frame")
        try:
            with bar, closing(read_ahead(self._read())) as batches:
                for message, decoded in itertools.chain.from_iterable(batches):
                    if self._take(message, decoded):
                        bar.update()
            self._thread.run(self._complete)
        finally:
            self._thread.close()
        return ReplaySummary(
            self._out,
            self._runtime.name,
            self._frames,
            self._failed,
            sum(camera.late for camera in self._cameras.values()),
            self._damage,
            time.perf_counter() - start,
            self._empty,
        )

    # --- messages in

    def _read(self) -> Generator[list[Read], None, None]:
        """Messages up to each image, with the image; in the thread that reads ahead."""
        batch: list[Read] = []
        size = 0
        names = {*self._nodes, *self._copied}
        messages = filter(self._is_used, self._bag.messages(names, *self._range))
        try:
            for message in in_stamp_order(messages, self._nodes):
                camera = self._cameras.get(message.topic.name)
                decoded = camera.image_of(message) if camera else None
                batch.append((message, decoded))
                size += len(message.data)
                if decoded is not None or size > BATCH:
                    yield batch
                    batch, size = [], 0
        except BagDamage as error:
            self._damage = str(error)
        yield batch

    def _is_used(self, message: Message) -> bool:
        """Whether it is an image, or copied; a topic may have messages of several types."""
        topic = message.topic
        if topic.name in self._nodes:
            return has_images(topic)
        return self._copied[topic.name].is_of(topic)

    def _take(self, message: Message, decoded: Decoded | ValueError | None) -> bool:
        """Process a message; returns whether it gave a frame."""
        topic = message.topic.name
        if topic in self._copied and self._copied[topic].is_of(message.topic):
            self._thread.submit(partial(self._copy, message))
        if topic not in self._cameras:
            return False
        result = self._cameras[topic].process(message, decoded)
        if result is None:
            return False
        self._thread.submit(partial(self._write, message, result))
        self._frames += 1
        if self._frames % self._settings.split_frames == 0:
            self._thread.run(self._finish_part)
        return True

    # --- results out, in the thread for files

    def _new_topics(self) -> Iterator[NewTopic]:
        for camera in self._cameras.values():
            yield from camera.topics()
        for name, copy in self._copied.items():
            qos = recorded_qos(copy.topic.qos)
            yield NewTopic(name, copy.topic.type, copy.definition, copy.hash, qos)

    def _write(self, message: Message, result: Processed) -> None:
        topic = message.topic.name
        self._cameras[topic].write(result, message.time, self._writer)
        self._files[topic].write(result, self._part)
        if self._report is not None:
            self._report.add(topic, message.time, result)
        if self._rerun is not None:
            self._rerun.write(self._nodes[topic], result, self._part)

    def _copy(self, message: Message) -> None:
        try:
            data = self._copied[message.topic.name].to_cdr(message.data)
        except MessageError as error:
            _log.warning("%s at %d ns is not copied: %s", message.topic.name, message.time, error)
            return
        self._writer.write(message.topic.name, message.time, data)

    def _finish_part(self) -> None:
        self._writer.finish_part()
        for files in self._files.values():
            files.finish_part()
        if self._rerun is not None:
            self._rerun.close()
        self._part += 1

    def _complete(self) -> None:
        self._finish_part()
        for files in self._files.values():
            files.close()
        if self._report is not None:
            from .report.page import write_page

            self._report.finish()
            write_page(self._report, self._damage, self._cameras)
        finish(self._out, JobRecord(self._task, self._frames, self._failed, self._damage))

    @property
    def _failed(self) -> int:
        return sum(camera.failed for camera in self._cameras.values())

    # --- what to expect

    def _topics_without_images(self, topics: Sequence[str]) -> tuple[str, ...]:
        """Cameras without an image in the chosen time; ReplayError if none has any."""
        if self._range == (None, None) and all(map(self._contents.counts.get, topics)):
            return ()
        missing, damage = dict.fromkeys(topics), ""
        messages = self._bag.messages(topics, *self._range)
        try:
            with closing(m for m in messages if has_images(m.topic)) as images:
                for message in images:
                    missing.pop(message.topic.name, None)
                    if not missing:
                        break
        except BagDamage as error:  # met again by the replay if there is something to replay
            damage = "" if self._contents.damage else f" ({error})"
        if len(missing) == len(topics):
            raise EmptyReplayError(f"no images of {', '.join(topics)} in the chosen time{damage}")
        for topic in missing:
            _log.warning("no images of %s in the chosen time%s", topic, damage)
        return tuple(missing)

    def _expected(self) -> int:
        """Frames there are to process, about."""
        counts, settings, whole = self._contents.counts, self._settings, self._contents.seconds
        rest = max(whole - settings.start, 0.0)
        read = rest if settings.duration is None else min(rest, settings.duration)
        part = read / whole if whole else 1.0
        return round(sum(counts.get(topic, 0) for topic in self._nodes) * part / settings.every)

    def _fps(self, topic: str) -> float:
        """Mean rate of the processed images of a topic."""
        seconds, count = self._contents.seconds, self._contents.counts.get(topic, 0)
        rate = (count - 1) / seconds if count > 1 and seconds else DEFAULT_FPS
        return round(min(max(rate / self._settings.every, 1.0), 120.0), 2)
