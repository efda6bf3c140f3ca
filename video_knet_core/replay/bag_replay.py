"""The loop of a replay."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from ..bags.bag import BagDamage, Message
from ..bags.definitions import MessageError
from ..bags.opening import Bag, open_bag
from ..bags.writing import Ros2Writer, read_metadata, recorded_qos, write_metadata
from ..config import TrackingConfig
from ..data.frame_source import DEFAULT_FPS
from ..engine.base import Runtime
from ..epochs import sample_of
from ..natural_order import natural_order
from ..output_files import exclusive, expanded
from ..progress import progress_bar
from ..stored_state import StateError, pack, unpack
from .background import Background, ahead
from .camera import CameraReplay, Decoded, Processed
from .journal import UNFINISHED, open_journal
from .order import in_stamp_order
from .products import Products
from .replay_settings import EmptyReplayError, ReplayError, ReplaySettings
from .report.page import write_page
from .report.report import Facts, Outcome, Report, in_words
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
    """Processed in all, those before an interruption included."""
    failed: int
    """Images that could not be used."""
    late: int
    """Images left out because they came after one with a later stamp."""
    damage: str
    """Where and why some of the bag could not be read; empty if all of it could."""
    frames_now: int
    """Processed since this program began."""
    seconds: float
    empty: tuple[str, ...] = ()
    """Topics without an image in what was read."""

    def __str__(self) -> str:
        rate = self.frames_now / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.frames} frames, {self.frames_now} of them in {self.seconds:.1f} s "
            f"({rate:.1f} fps, {self.backend})"
        ]
        if self.failed:
            lines.append(f"{self.failed} images could not be used")
        if self.late:
            lines.append(f"{self.late} images were left out: they came after a later one")
        if self.damage:
            lines.append(f"the bag is damaged; it was read up to there: {self.damage}")
        lines += [f"no images of {topic} in what was read" for topic in self.empty]
        return "\n".join([*lines, f"{self.out}: {', '.join(_contents(self.out))}"])


def replay(
    path: str | Path,
    runtime: Runtime | Callable[[], Runtime],
    out: Path,
    settings: ReplaySettings | None = None,
    tracking: TrackingConfig | None = None,
    resume: bool = False,
) -> ReplaySummary:
    """Process the images of a bag and write the results into a folder.

    Args:
        path: as for `open_bag`.
        runtime: the engine, or what opens it once the bag is known to have the topics.
        out: a new or empty folder; or, with `resume`, that of an interrupted replay.
        settings: what to do.
        tracking: settings of the tracker.
        resume: go on after the last complete part.

    Raises:
        BagError: the bag cannot be read at all, or has not what is asked for.
        ReplayError: `out` holds something else, or another replay.
        OutputError: another process writes into `out`, or it is a file.
        KeyboardInterrupt: the replay can be resumed.
        OSError: a file cannot be written.
    """
    settings, tracking = settings or ReplaySettings(), tracking or TrackingConfig()
    with ExitStack() as held:
        return _Replay(expanded(path), runtime, out, settings, tracking, resume, held).run()


class _Replay:
    def __init__(
        self,
        path: Path,
        runtime: Runtime | Callable[[], Runtime],
        out: Path,
        settings: ReplaySettings,
        tracking: TrackingConfig,
        resume: bool,
        held: ExitStack,
    ) -> None:
        self._bag: Bag = open_bag(path)
        self._contents = self._bag.contents()
        try:
            topics = choose_topics(self._contents, settings.topics)
            self._range = time_range(self._contents, settings)
            self._empty = self._topics_without_images(topics)
        except ReplayError as error:
            damage = f" ({self._contents.damage})" if self._contents.damage else ""
            raise type(error)(f"{path}: {error}{damage}") from None
        runtime = runtime() if callable(runtime) else runtime
        settings = replace(settings, outputs=choose_outputs(runtime.info, settings.outputs))
        self._settings, self._runtime, self._out = settings, runtime, out
        self._nodes = node_names(topics)
        classes, unfinished = runtime.info.classes, out / UNFINISHED
        self._rerun = RerunRecording(out, unfinished, classes) if settings.rerun else None
        task = {
            "bag": path.name,
            "bytes": sum(file.stat().st_size for file in self._bag.files),
            "model": runtime.info.name,
            "checkpoint": runtime.info.checkpoint_sha256,
            "backend": runtime.name,
            "settings": asdict(settings),
            "tracking": asdict(tracking),
        }
        held.enter_context(exclusive(out))
        self._journal = open_journal(out, task, resume)
        recording = self._contents.start, self._contents.end
        facts = path.name, sample_of(self._bag.files)
        self._cameras = {
            topic: CameraReplay(node, runtime, settings, tracking, recording, facts)
            for topic, node in self._nodes.items()
        }
        self._report = Report(self._facts(path, tracking), out) if settings.report else None
        self._restore()
        self._copied = (
            topics_to_copy(self._contents, self._nodes) if settings.include_input_topics else {}
        )
        self._part: Ros2Writer | None = None
        self._products: dict[str, Products] = {}
        try:
            for topic in topics:
                self._products[topic] = self._products_of(topic)
        except BaseException:
            self._close()
            raise
        self._files = Background()
        self._frames_in_part = 0
        self._damage = ""
        self._messages = self._journal.messages
        self._frames = self._journal.frames

    def run(self) -> ReplaySummary:
        start, before = time.perf_counter(), self._frames
        bar = progress_bar(total=self._expected(), initial=before, unit="frame")
        try:
            with bar as self._bar, closing(ahead(self._read())) as batches:
                for message, decoded in itertools.chain.from_iterable(batches):
                    self._take(message, decoded)
            self._files.now(partial(self._complete, self._damage))
        finally:
            self._files.close(self._close)
        return ReplaySummary(
            self._out,
            self._runtime.name,
            self._frames,
            self._journal.failed,
            sum(camera.late for camera in self._cameras.values()),
            self._damage,
            self._frames - before,
            time.perf_counter() - start,
            self._empty,
        )

    # --- messages in

    def _remaining(self) -> Iterator[Message]:
        """The messages that are still to be taken, in order."""
        names = {*self._nodes, *self._copied}
        messages = filter(self._is_used, self._bag.messages(names, *self._range))
        return itertools.islice(in_stamp_order(messages, self._nodes), self._messages, None)

    def _is_used(self, message: Message) -> bool:
        """Whether it is an image, or copied; a topic may have messages of several types."""
        topic = message.topic
        if topic.name in self._nodes:
            return has_images(topic)
        return self._copied[topic.name].is_of(topic)

    def _read(self) -> Generator[list[Read], None, None]:
        """Those messages up to each image, with the image; in the thread that reads ahead."""
        batch: list[Read] = []
        size = 0
        try:
            for message in self._remaining():
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

    def _take(self, message: Message, decoded: Decoded | ValueError | None) -> None:
        topic = message.topic.name
        self._messages += 1
        if topic in self._copied and self._copied[topic].is_of(message.topic):
            self._files.later(partial(self._copy, message))
        if topic in self._cameras and (result := self._cameras[topic].process(message, decoded)):
            self._files.later(partial(self._write, message, result))
            self._frames += 1
            self._frames_in_part += 1
            self._bar.update()
        if self._frames_in_part >= self._settings.split_frames:
            self._files.now(self._finish_part)

    # --- results out, in the thread for files

    def _write(self, message: Message, result: Processed) -> None:
        topic = message.topic.name
        self._cameras[topic].write(result, message.time, self._open_part())
        self._products[topic].write(result)
        if self._report is not None:
            self._report.add(topic, message.time, result)
        if self._rerun is not None:
            self._rerun.write(self._nodes[topic], result)

    def _copy(self, message: Message) -> None:
        embedded = self._copied[message.topic.name]
        try:
            data = embedded.to_cdr(message.data)
        except MessageError as error:
            _log.warning("%s at %d ns is not copied: %s", message.topic.name, message.time, error)
            return
        self._open_part().write(message.topic.name, message.time, data)

    def _open_part(self) -> Ros2Writer:
        """The file under way; a new one announces all topics, or parts would not fit together."""
        if self._part is None:
            compression = "chunk" if self._settings.storage == "mcap" else "none"
            folder = self._out / UNFINISHED / "bag"
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._part = Ros2Writer(folder, self._settings.storage, compression)
            for camera in self._cameras.values():
                camera.announce(self._part)
            for name, embedded in self._copied.items():
                qos = recorded_qos(embedded.topic.qos)
                self._part.add(name, embedded.topic.type, embedded.definition, embedded.hash, qos)
        return self._part

    def _finish_part(self) -> None:
        """Put the files of the part in their places, then note that in the journal."""
        number, journal = len(self._journal.parts), self._journal
        if self._part is not None:
            self._part.close()
            self._part = None
            self._move_part(number)
        for topic, products in self._products.items():
            journal.tracks_sizes[self._nodes[topic]] = products.finish_part(number)
        if self._rerun is not None:
            self._rerun.finish_part(number)
        journal.messages, journal.frames = self._messages, self._frames
        journal.failed = sum(camera.failed for camera in self._cameras.values())
        old, journal.state = journal.state, self._store_state(number)
        journal.save(self._out)
        if old:
            (self._out / old).unlink(missing_ok=True)
        if journal.parts:
            write_metadata(self._out / "bag", journal.parts)
        self._frames_in_part = 0

    def _move_part(self, number: int) -> None:
        folder, target = self._out / UNFINISHED / "bag", self._out / "bag"
        (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
        name = f"bag_{number:04d}{file.suffix}"
        self._journal.parts[name] = read_metadata(folder)
        target.mkdir(exist_ok=True)
        file.replace(target / name)
        shutil.rmtree(folder)

    def _complete(self, damage: str) -> None:
        self._finish_part()
        if self._report is not None:
            failures = {topic: (c.failed, c.failures) for topic, c in self._cameras.items()}
            late = {topic: camera.late for topic, camera in self._cameras.items()}
            left_out = {topic: camera.left_out for topic, camera in self._cameras.items()}
            self._report.finish()
            write_page(self._report, Outcome(failures, damage, late, left_out), self._out)
        state, self._journal.state = self._journal.state, ""
        self._journal.damage, self._journal.complete = damage, True
        self._journal.save(self._out)
        if state:
            (self._out / state).unlink()
        shutil.rmtree(self._out / UNFINISHED, ignore_errors=True)

    def _close(self) -> None:
        with ExitStack() as stack:  # each is closed, also after one that fails
            if self._rerun is not None:
                stack.callback(self._rerun.close)
            if self._report is not None:
                stack.callback(self._report.close)
            for products in self._products.values():
                stack.callback(products.close)
            if self._part is not None:
                stack.callback(self._part.abort)

    # --- state

    def _store_state(self, number: int) -> str:
        state = {
            "cameras": {topic: camera.state() for topic, camera in self._cameras.items()},
            "report": None if self._report is None else self._report.state(),
        }
        name = f"state_{number:04d}.zip"
        (self._out / name).write_bytes(pack(state))
        return name

    def _restore(self) -> None:
        if not self._journal.state:
            return
        path = self._out / self._journal.state
        try:
            state = unpack(path.read_bytes())
            for topic, camera in self._cameras.items():
                camera.restore(state["cameras"][topic])
            if self._report is not None:
                self._report.restore(state["report"])
        except (OSError, StateError, KeyError) as error:
            raise ReplayError(f"{self._out} cannot be resumed: {path.name}: {error}") from None

    # --- what to expect

    def _facts(self, path: Path, tracking: TrackingConfig) -> Facts:
        info = self._runtime.info
        options = in_words(self._settings, tracking)
        start, backend = self._contents.start or 0, self._runtime.name
        return Facts(path.name, info.name, backend, info.classes, self._nodes, start, options)

    def _products_of(self, topic: str) -> Products:
        node = self._nodes[topic]
        return Products(
            self._out,
            self._out / UNFINISHED,
            node.strip("/"),
            self._settings,
            self._runtime.info.classes,
            self._fps(topic),
            self._journal.tracks_sizes.get(node, 0),
        )

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

    def _expected(self) -> int | None:
        """Frames there are to process, about."""
        counts, settings = self._contents.counts, self._settings
        whole = self._contents.seconds
        rest = max(whole - settings.start, 0.0)
        read = min(rest, settings.duration) if settings.duration is not None else rest
        share = read / whole if whole else 1.0
        return round(sum(counts.get(topic, 0) for topic in self._nodes) * share / settings.every)

    def _fps(self, topic: str) -> float:
        """Mean rate of the processed images of a topic."""
        seconds = self._contents.seconds
        count = self._contents.counts.get(topic, 0)
        rate = (count - 1) / seconds if count > 1 and seconds else DEFAULT_FPS
        return round(min(max(rate / self._settings.every, 1.0), 120.0), 2)


def _contents(out: Path) -> list[str]:
    return natural_order(f"{p.name}/" if p.is_dir() else p.name for p in out.iterdir())
