"""A thread that owns what only one thread may touch: it does the jobs given to it, in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


class OwnerThread:
    """Starts at once and ends with `close`; a daemon, so that it never keeps a program alive.

    `post` may be called by a finalizer: a SimpleQueue takes no lock that the interrupted code
    could hold, as the queue of an executor does.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()

    def call(self, job: Callable[[], T]) -> T:
        """Let the thread do the job and wait for it; its result, or its exception.

        Raises:
            RuntimeError: the thread has ended.
        """
        future: Future[T] = Future()
        with self._closing:  # no job comes behind the end mark, where nobody would do it
            if self._closed:
                raise RuntimeError(f"{self._thread.name} is closed")
            self._jobs.put(lambda: _settle(future, job))
        return future.result()

    def post(self, job: Callable[[], None]) -> None:
        """Let the thread do the job some time before it ends; if it has ended, nobody does."""
        self._jobs.put(job)

    def close(self, timeout: float | None = None) -> None:
        """End after the jobs given so far, and wait for that at most `timeout` seconds."""
        with self._closing:
            self._closed = True
        self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


def _work(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job()
        except Exception:
            _log.exception("a job of %s failed", threading.current_thread().name)
        del job  # while it waits for the next, it must not keep alive what this one held


def _settle(future: Future[T], job: Callable[[], T]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # whatever it is, the waiting thread has to hear of it
        future.set_exception(error)
