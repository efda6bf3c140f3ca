"""One thread for each engine: jobs run in it in turn, and no caller has to wait for it.

A GPU context belongs to the thread that made it, so that an engine is opened, used and closed in
one thread, which serves any number of cameras.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class EngineExecutor:
    """A single-thread executor: a queue of jobs, and slots that each keep only their newest job.

    The queue goes first, then the slots, longest filled first: a slot that is filled again and
    again cannot keep another from its turn. All methods may be called from any thread.

    The thread starts at once and ends with `close`, or with its last user. It is a daemon: an
    engine that hangs must not keep the process from ending.
    """

    hangs = False
    """Set by a user that waited too long for a job, so that no new user gets this executor."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._slots: dict[Hashable, Callable[[], Any]] = {}
        self._lock = threading.Lock()
        self._open = True
        self._users = 0
        self._begun: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _executors.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it takes jobs."""
        return self._open

    @property
    def busy_s(self) -> float | None:
        """Seconds for which the present job has run; None between two jobs."""
        begun = self._begun
        return None if begun is None else time.monotonic() - begun

    def acquire(self) -> None:
        """Become one of its users; RuntimeError after `close`."""
        with self._lock:
            self._check_open()
            self._users += 1

    def release(self) -> None:
        """One user less; the last one closes it, without a wait."""
        with self._lock:
            self._users -= 1
            unused = not self._users
        if unused:
            self.close(timeout_s=0)

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` after those submitted before it; RuntimeError after `close`.

        `cancel` of the future withdraws a job that has not begun.
        """
        future: Future[Result] = Future()
        with self._lock:  # no job comes behind the end mark, where nothing would run it
            self._check_open()
            self._queue.put(partial(_complete, future, job))
        return future

    def offer(self, slot: Hashable, job: Callable[[], object]) -> bool:
        """Run `job` unless a newer one comes into its slot before; True if it replaced one.

        It is dropped after `close`.
        """
        with self._lock:
            replaced = slot in self._slots
            if self._open:
                self._slots[slot] = job  # in place: a replaced job passes on its turn
                if not replaced:
                    self._queue.put(_look_at_the_slots)
            return replaced

    def withdraw(self, slot: Hashable) -> bool:
        """Drop the job in a slot; True if there was one."""
        with self._lock:
            return self._slots.pop(slot, None) is not None

    def close(self, timeout_s: float | None = None) -> bool:
        """Take no more jobs, drop those in slots, and end after the submitted ones.

        Returns:
            False if that takes longer than `timeout_s`, or if this is its own thread.
        """
        with self._lock:
            self._open = False
            self._slots.clear()
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"{self._thread.name} is closed")

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._begun = time.monotonic()
            try:
                job()
            except BaseException:  # SystemExit of a library too: the thread serves other jobs
                _log.exception("a job of %s failed", self._thread.name)
            self._begun = None
            del job  # with it the image and the state of its frame

    def _next(self) -> Callable[[], object] | None:
        """Wait for a job; None at the end mark."""
        while True:
            try:
                job = self._queue.get(block=not self._slots)
            except Empty:
                with self._lock:
                    if self._slots:
                        return self._slots.pop(next(iter(self._slots)))
            else:
                if job is not _look_at_the_slots:
                    return job


def run_in_thread(job: Callable[[], Result], name: str) -> Future[Result]:
    """Run `job` in a daemon thread of its own."""
    future: Future[Result] = Future()
    threading.Thread(target=_complete, args=(future, job), name=name, daemon=True).start()
    return future


_executors: WeakSet[EngineExecutor] = WeakSet()


def busy_executors() -> list[EngineExecutor]:
    """The executors of this process that are in the middle of a job."""
    return [executor for executor in list(_executors) if executor.busy_s is not None]


def _look_at_the_slots() -> None:
    """A mark in the queue, which wakes the thread."""


def _complete(future: Future[Result], job: Callable[[], Result]) -> None:
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(job())
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # SystemExit of a library must not end the waiting thread
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        del future, job  # an exception holds this frame, and with it a cycle
