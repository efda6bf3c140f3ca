"""A second thread, so that the network does not wait for files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

DEPTH = 4
"""Jobs that may wait; each holds an image."""


class Background:
    """One thread that does jobs in the order they come."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._waiting: deque[Future[None]] = deque()

    def later(self, job: Callable[[], None]) -> None:
        """Do a job, after waiting until few others are left; raises what an earlier one raised."""
        while len(self._waiting) >= DEPTH:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(job))

    def now(self, job: Callable[[], Result]) -> Result:
        """Do all jobs and then this one; raises what any of them raises."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._thread.submit(job).result()

    def close(self, job: Callable[[], None]) -> None:
        """Drop the jobs that have not begun, do this last one, and end the thread."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        try:
            self._thread.submit(job).result()
        finally:
            self._thread.shutdown()
