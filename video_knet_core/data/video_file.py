"""Video files through PyAV: decoded frames with the presentation times that are in the file.

The header of a file (rate, number of frames, duration) is only a hint: it is missing in streams,
wrong in cut files, and has no variable rate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ..image_files import FrameError
from .frame_source import DEFAULT_FPS, Frame, FrameSource

_TEXT_AS_PICTURE = "tty"
"""FFmpeg's demuxer that draws text files; a text file is no video here."""
_DAMAGE = (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.EOFError)
"""What FFmpeg raises for a file whose structure is broken."""
_log = logging.getLogger(__name__)


class IncreasingTimes:
    """Turns times into ones that start at 0 and always increase, and are otherwise the same.

    A time that is not later than the one before it, by at most a second, is moved a quarter of a
    period behind that one. A step back by more, or forward by more than `longest_gap`, is a clock
    that was set: the times continue one period later.

    Args:
        period: usual step, in the unit of the times.
        second: one second in that unit.
        longest_gap: in that unit; None = any.
    """

    def __init__(self, period: int, second: int, longest_gap: int | None = None) -> None:
        self._period, self._second, self._longest_gap = max(period, 4), second, longest_gap
        self._offset = 0
        self._last: int | None = None

    def add(self, time: int | None) -> int:
        """The time of the next frame; of one without a time, a period after the last one."""
        if self._last is None:
            self._offset, self._last = -(time or 0), 0
            return 0
        if time is None:
            time = self._last + self._period - self._offset
        step = time + self._offset - self._last
        if step < -self._second or (self._longest_gap is not None and step > self._longest_gap):
            self._offset += self._period - step
            step = self._period
        self._last += step if step > 0 else self._period // 4
        return self._last


class VideoFile(FrameSource):
    """A file, or a pipe, that FFmpeg can decode. Rotation in its metadata is applied.

    Stamps are the times in the file, from 0 at the first frame; frames without a time (raw streams)
    follow at the nominal rate. Frames that cannot be decoded are left out, counted and logged.
    """

    def __init__(self, path: Path) -> None:
        """FrameError if it is missing or has no video that can be decoded."""
        self.path = self._path = path
        self._is_pipe = not path.is_file()
        self._unread: _Decoder | None = _Decoder(path)
        self.fps, self.count = self._unread.fps, self._unread.count
        if not self._is_pipe:  # a pipe can be read once only
            self._unread.container.close()
            self._unread = None

    def __iter__(self) -> Iterator[Frame]:
        if self._is_pipe and self._unread is None:
            raise FrameError(f"{self._path} is a pipe and can be read only once")
        decoder, self._unread = self._unread or _Decoder(self._path), None
        with decoder.container:
            yield from decoder.frames()


class _Decoder:
    """One reading of a file; its first frame is decoded at once, to know that it is a video."""

    def __init__(self, path: Path) -> None:
        self._path, self.container = path, _open(path)
        self._damage: list[str] = []
        """Why each damaged frame cannot be decoded."""
        with ExitStack() as on_error:
            on_error.enter_context(self.container)
            self._stream = _stream_of(self.container, path)
            # decoding frames in parallel would lose whole ones beside a damaged one
            self._stream.thread_type = "SLICE"
            self.fps = _fps(self._stream)
            self.count = self._stream.frames if self._stream.frames > 0 else None
            self._images = self._decode()
            self._first = next(self._images, None)
            if self._first is None:
                raise FrameError(f"{path}: no frame can be decoded{self._reason()}")
            on_error.pop_all()

    def frames(self) -> Iterator[Frame]:
        """All frames; what is damaged is logged at the end."""
        times = IncreasingTimes(round(1e9 / self.fps), 10**9)
        by_dts = self.container.format.name == "avi"  # has the order of decoding only
        frame = self._first
        while frame is not None:
            yield _rgb(frame), times.add(_nanoseconds(frame, by_dts))
            frame = next(self._images, None)
        if self._damage:
            _log.warning(
                "%s: left out %d damaged frames%s", self._path, len(self._damage), self._reason()
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames in the order of presentation, without the damaged ones."""
        packets = self.container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except _DAMAGE as error:
                self._damage.append(str(error.strerror))
                return
            except av.FFmpegError as error:  # as of a disk that fails
                raise FrameError(f"{self._path} cannot be read on: {error.strerror}") from None
            if packet is None:
                return
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.FFmpegError as error:  # a decoder reads no file: it is about these bytes
                self._damage.append(str(error.strerror))
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame) and frame.is_corrupt:
                    self._damage.append("data of the frame are missing")
                elif isinstance(frame, av.VideoFrame):
                    yield frame

    def _reason(self) -> str:
        return f" ({self._damage[0]})" if self._damage else ""


def _open(path: Path) -> InputContainer:
    try:
        # "file:", or a colon in a name would be taken for a protocol
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FrameError(f"{path} is not a video that FFmpeg can read: {reason}") from None


def _stream_of(container: InputContainer, path: Path) -> VideoStream:
    """The video stream; the cover picture of a song is none."""
    cover = av.stream.Disposition.attached_pic
    pictures = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not pictures or container.format.name == _TEXT_AS_PICTURE:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise FrameError(f"{path}: expected a video stream, got {kinds} ({container.format.name})")
    return pictures[0]


def _fps(stream: VideoStream) -> float:
    """Mean rate as far as the header has it; of a raw stream, that of its codec."""
    rates: tuple[Fraction | None, ...] = (stream.average_rate, stream.guessed_rate)
    if stream.duration is None and stream.start_time is None:
        rates = (stream.codec_context.framerate, *rates)
    return next((float(rate) for rate in rates if rate is not None and rate > 0), DEFAULT_FPS)


def _nanoseconds(frame: av.VideoFrame, by_dts: bool) -> int | None:
    """Presentation time; None if the file has none."""
    ticks = frame.dts if by_dts or frame.pts is None else frame.pts
    if ticks is None or not frame.time_base:
        return None
    return round(ticks * Fraction(frame.time_base) * 10**9)


def _rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3], upright."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
