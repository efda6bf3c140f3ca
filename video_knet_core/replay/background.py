"""A thread that reads ahead and one that writes, so that the network does not wait for files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")

AHEAD = 2
"""Items that are made before they are asked for; each holds an image."""
DEPTH = 4
"""Jobs that may wait; each holds an image."""


def ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
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
