"""A thread that reads ahead and one that writes, so that the network does not wait for files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""Items that are prefetched; each holds an image."""
DEPTH = 4
"""Jobs that may wait; each holds an image."""


def read_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """The items of a generator, which runs in a thread of its own and is a little ahead.

    What it raises comes in its turn. It is closed when this iterator is.
    """
    thread, end = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead"), object()
    waiting = deque(thread.submit(next, items, end) for _ in range(AHEAD))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]  # it is not `end`
    finally:
        for future in waiting:
            future.cancel()
        thread.submit(items.close)
        thread.shutdown()


class FileThread:
    """One thread that does jobs in the order they come."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Do a job, after waiting until few others are left; raises what an earlier one raised."""
        self._wait(DEPTH - 1)
        self._waiting.append(self._thread.submit(job))

    def run(self, job: Callable[[], None]) -> None:
        """Do all jobs and then this one; raises what any of them raises."""
        self.submit(job)
        self._wait(0)

    def close(self) -> None:
        """Drop the jobs that have not begun, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _wait(self, left: int) -> None:
        while len(self._waiting) > left:
            self._waiting.popleft().result()
