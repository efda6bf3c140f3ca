"""Frames in space, each published when its depth has come, or before the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from video_knet_core.messages.result_messages import FrameToPublish


class DeferredPublisher:
    """Holds at most one frame.

    `offer` is called in the inference thread, all else in the executor's. A frame is published in
    the inference thread alone.

    Args:
        publish: publishes a frame; must not raise.
        submit: runs a job in the inference thread; None if that has ended.
    """

    def __init__(
        self,
        publish: Callable[[FrameToPublish], None],
        submit: Callable[[Callable[[], None]], Future[None] | None],
    ) -> None:
        self._publish, self._submit = publish, submit
        self._frame: FrameToPublish | None = None
        self._overdue: FrameToPublish | None = None
        """The frame at the last call of `tick`."""
        self._job: Future[None] | None = None

    def offer(self, frame: FrameToPublish | None) -> None:
        """Publish the last frame, whatever it lacks, and this one as soon as it lacks nothing."""
        self._flush()
        if frame is not None:
            self._frame = frame
            self._flush_if_complete()

    def drop(self) -> None:
        """Publish the last frame no more."""
        self._frame = None

    def input_received(self) -> None:
        """Publish the last frame if it is complete now."""
        if self._is_complete and (self._job is None or self._job.done()):
            self._job = self._submit(self._flush_if_complete)

    def tick(self) -> None:
        """Publish a frame that was there at the last call too: no image has come since."""
        overdue, self._overdue = self._overdue, self._frame
        if overdue is not None and overdue is self._frame:
            self._submit(lambda: self._flush(overdue))

    @property
    def _is_complete(self) -> bool:
        frame = self._frame
        return frame is not None and frame.spatial is not None and not frame.spatial.is_waiting

    def _flush_if_complete(self) -> None:
        """After a step, maybe, since which another frame is the last."""
        if self._is_complete:
            self._flush()

    def _flush(self, only: FrameToPublish | None = None) -> None:
        frame = self._frame
        if frame is not None and (only is None or only is frame):
            self._frame = None
            self._publish(frame)
