"""Videos of results that play where people look at them: H.264 in MP4, by PyAV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .data.video_file import IncreasingTimes
from .output_files import replacing

TICKS = 60_000
"""Per second: of usual rates a frame is a whole number of them. The mpeg4 encoder has 16 bits."""
LONGEST_GAP = 3600 * TICKS
"""Between two frames. MP4 has 32 bits for it, and a longer one is a clock that was set."""
ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "23", "mbtree": "0"},
    "libopenh264": {},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    "mpeg4": {"qscale": "4"},
}
"""Encoders with their options; the first that PyAV was built with is used.

The macroblock tree of libx264 reads memory that it has not set: equal frames gave other bytes in up
to 1 of 7 files. Without it, a file of the same size has 0.1 dB less.
"""
NOT_IN_BROWSERS = "mpeg4"
SMPTE170M = 6
"""Matrix of BT.601, by its number in H.273: how RGB is converted, which the file declares."""

_log = logging.getLogger(__name__)


class OverlayVideo:
    """Writes RGB frames to an MP4 file that browsers play; use it in a `with` block.

    The file takes its place when it is closed, whole, with its index at the start. Its size is
    that of the first frame, which all others must have, made even by repeating the last row or
    column. Frames are shown at their stamps, so that a variable rate stays one.

    Args:
        path: the file; its folder must exist.
        fps: usual rate of the frames, which limits what the encoder expects; no time depends on it
            but that of a stamp that does not increase.
    """

    def __init__(self, path: str | Path, fps: float):
        if not fps > 0:
            raise ValueError(f"fps: expected a positive number, got {fps}")
        self.path = Path(path)
        self.fps = fps
        self._times = IncreasingTimes(round(TICKS / fps), TICKS, LONGEST_GAP)
        self._size: tuple[int, int] | None = None
        self._stack = ExitStack()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, rgb: NDArray[np.uint8], stamp: int) -> None:
        """Append a frame, uint8 [H, W, 3] RGB, shown at `stamp` [ns] after the first one's.

        OSError if the file cannot be written, ValueError if the frame has another size than the
        first one.
        """
        size = (rgb.shape[1], rgb.shape[0])
        if self._size is None:
            self._open(size)
            self._size = size
        if size != self._size:
            raise ValueError(f"{self.path} has frames of {self._size} (w, h), got {size}")
        frame = av.VideoFrame.from_ndarray(_even(rgb), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
        frame.pts = self._times.add(round(stamp * TICKS / 10**9))
        frame.time_base = Fraction(1, TICKS)
        self._encode(frame)

    def close(self) -> None:
        """Finish the file; does nothing when called again. OSError if it cannot be written."""
        if self._container is None:
            return
        self._encode(None)
        container, self._container = self._container, None
        with self._stack, self._named_errors():
            container.close()

    def _open(self, size: tuple[int, int]) -> None:
        name = next(name for name in ENCODERS if name in av.codecs_available)
        if name == NOT_IN_BROWSERS:
            _log.warning("%s: this PyAV has no H.264 encoder; browsers will not play it", self.path)
        with ExitStack() as stack:
            url = _file_url(stack.enter_context(replacing(self.path)))
            options = {"movflags": "+faststart"}
            with self._named_errors():
                self._container = av.open(url, "w", format="mp4", options=options)
                self._stream = self._add_stream(self._container, name, size)
            self._stack = stack.pop_all()

    def _add_stream(
        self, container: OutputContainer, name: str, size: tuple[int, int]
    ) -> VideoStream:
        rate = Fraction(min(max(self.fps, 1.0), 240.0)).limit_denominator(1001)
        stream = container.add_stream(name, rate=rate, options=dict(ENCODERS[name]))
        stream.width, stream.height = (length + length % 2 for length in size)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.thread_count = 1  # leaves the cores to the engine
        stream.codec_context.max_b_frames = 0  # the first frame is at 0, without an edit list
        stream.codec_context.colorspace = SMPTE170M
        return stream

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or with None those that the encoder has kept."""
        assert self._container is not None and self._stream is not None
        try:
            with self._named_errors():
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
        except OSError:  # the file is removed: PyAV crashes when it writes on after an error
            container, self._container = self._container, None
            with self._stack:
                with suppress(av.FFmpegError):  # the same error again
                    container.close()
                raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn errors of PyAV into an OSError that names the file."""
        try:
            yield
        except av.FFmpegError as error:
            reason = error.strerror or error
            raise OSError(f"cannot write video {self.path}: {reason}") from None


def _file_url(path: Path) -> str:
    """With the protocol, or FFmpeg would take a colon in a name for the end of one."""
    return f"file:{path}"


def _even(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With even height and width, as yuv420p needs them."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(rgb)
