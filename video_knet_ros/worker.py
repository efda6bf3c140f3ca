"""The thread that owns an engine, and the mailbox in front of it.

A GPU context belongs to the thread that made it, so an engine is opened, used and closed in one
thread, which any number of cameras share. The executor's thread only leaves work: it never waits
for the engine, which may hang.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Engine = TypeVar("Engine")
Result = TypeVar("Result")
Item = TypeVar("Item")

CLOSE_WAIT_S = 3.0
"""How long the end of a node or a process waits for an engine."""

_log = logging.getLogger(__name__)


class Mailbox(Generic[Item]):
    """Slots that keep only the newest item each, and a queue whose items all arrive.

    `take` empties the queue first, then the slots, longest filled first: a slot that is filled
    again and again cannot keep another from its turn. All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._slots: dict[Hashable, Item] = {}
        self._closed = False

    def offer(self, slot: Hashable, item: Item) -> bool:
        """Leave `item` in a slot; True if an unread one had to make room for it."""
        with self._changed:
            replaced = slot in self._slots
            if not self._closed:
                self._slots[slot] = item  # in place: a replaced item passes on its turn
            self._changed.notify()
            return replaced

    def withdraw(self, slot: Hashable) -> bool:
        """Empty a slot; True if there was something in it."""
        with self._changed:
            return self._slots.pop(slot, None) is not None

    def send(self, item: Item) -> None:
        """Queue `item`; RuntimeError if the mailbox is closed."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the mailbox is closed")
            self._queue.append(item)
            self._changed.notify()

    def take(self) -> Item | None:
        """Wait for an item; None once the mailbox is closed and its queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._slots or self._closed)
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                return None
            return self._slots.pop(next(iter(self._slots)))

    def close(self) -> None:
        """Let `take` return None; the slots are emptied, the queue is still delivered."""
        with self._changed:
            self._closed = True
            self._slots.clear()
            self._changed.notify_all()


class InferenceThread:
    """One thread that runs the jobs of all cameras of an engine, one after the other.

    It ends when its last user releases it, or with `close`. It is a daemon: an engine that hangs
    must not keep the process from ending.
    """

    def __init__(self) -> None:
        self._mailbox: Mailbox[Callable[[], Any]] = Mailbox()
        self._lock = threading.Lock()
        self._users = 0
        self._open = True
        self._begun: float | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()
        _threads.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it can be acquired: it has not ended and its engine is not known to hang."""
        return self._open

    @property
    def busy_s(self) -> float | None:
        """Seconds for which the present job has run; None between two jobs."""
        begun = self._begun
        return None if begun is None else time.monotonic() - begun

    def acquire(self) -> None:
        """Become one of its users; RuntimeError if it is not open."""
        with self._lock:
            if not self._open:
                raise RuntimeError("the inference thread is closed")
            self._users += 1

    def release(self) -> None:
        """One user less; after the last one it finishes its queue and ends."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._open = False
                self._mailbox.close()

    def give_up(self) -> None:
        """Take no more users: a job does not return."""
        self._open = False

    def offer(self, slot: Hashable, job: Callable[[], None]) -> bool:
        """Run `job` unless a newer one comes into its slot before; True if it replaced one."""
        return self._mailbox.offer(slot, job)

    def withdraw(self, slot: Hashable) -> bool:
        """Forget the job in a slot that has not begun; True if there was one."""
        return self._mailbox.withdraw(slot)

    def call(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` before the next offered one, whatever comes; RuntimeError after `close`.

        `cancel` of the future withdraws a job that has not begun.
        """
        future: Future[Result] = Future()
        self._mailbox.send(lambda: _resolve(future, job))
        return future

    def close(self, timeout_s: float = CLOSE_WAIT_S) -> bool:
        """Finish what was called and end; False if that takes longer than `timeout_s`."""
        self._open = False
        self._mailbox.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._mailbox.take()) is not None:
            self._begun = time.monotonic()
            try:
                job()
            except BaseException:  # SystemExit too: the thread serves other jobs and cameras
                _log.exception("a job of the inference thread failed")
            self._begun = None
            del job  # with it the image and the engine of its camera


_threads: WeakSet[InferenceThread] = WeakSet()


def busy_threads() -> list[InferenceThread]:
    """The inference threads of this process that are in the middle of a job."""
    return [thread for thread in list(_threads) if thread.busy_s is not None]


class Worker(Generic[Engine]):
    """Runs the jobs of one camera, functions of its engine, in the inference thread.

    No method waits for the engine. One that could not be opened has no jobs but `close`.

    Args:
        open_engine: makes the engine, in that thread; `opened` holds it, or what was raised.
        close_engine: frees it, in that thread.
        thread: shared with others; None = one of its own. RuntimeError if it is not open.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        close_engine: Callable[[Engine], None],
        thread: InferenceThread | None = None,
    ) -> None:
        self._thread = thread if thread is not None else InferenceThread()
        self._thread.acquire()
        self._close_engine = close_engine
        self._closed: Future[None] | None = None
        self.given_up = False
        self.opened: Future[Engine] = self._thread.call(open_engine)

    @property
    def busy_s(self) -> float | None:
        """Seconds for which the thread has been at its present job; None between two jobs."""
        return self._thread.busy_s

    def offer(self, job: Callable[[Engine], None]) -> bool:
        """Run `job` unless a newer one is offered before it begins; True if it replaced one.

        It is ignored after `close`.
        """
        if self._closed is not None:
            return False
        return self._thread.offer(self, lambda: job(self.opened.result()))

    def withdraw(self) -> bool:
        """Forget the offered job that has not begun; True if there was one."""
        return self._thread.withdraw(self)

    def call(self, job: Callable[[Engine], Result]) -> Future[Result]:
        """Run `job` before the next offered one, whatever comes; RuntimeError after `close`.

        `cancel` of the future withdraws a job that has not begun.
        """
        if self._closed is not None:
            raise RuntimeError("the engine is closed")
        return self._thread.call(lambda: job(self.opened.result()))

    def close(self) -> Future[None]:
        """Let the thread close the engine after the jobs so far, and end if it has no other user.

        Returns:
            Done when the engine is closed, with what closing raised; the same each time.
        """
        if self._closed is None:
            self.withdraw()
            self._closed = self._thread.call(self._finish)
            self._thread.release()
        return self._closed

    def end(self, limit_s: float | None) -> str:
        """Close the engine and wait for that, unless it was given up.

        Args:
            limit_s: the longest wait, and for the job that runs from its begin; None = no wait.

        Returns:
            Why the engine is not closed, "" if it is or was not waited for.
        """
        closed = self.close()
        if limit_s is None:
            closed.add_done_callback(_log_failure)
            return ""
        if not self.given_up:
            wait([closed], max(limit_s - (self.busy_s or 0.0), 0.0))
        if not closed.done():
            self.give_up()
            return f"busy for {self.busy_s or 0.0:.1f} s; it is closed when it returns"
        return "" if (error := closed.exception()) is None else f"{type(error).__name__}: {error}"

    def give_up(self) -> None:
        """Wait for the engine no longer: it is closed when the job that hangs returns, if ever."""
        if not self.given_up:
            self.given_up = True
            self._thread.give_up()
            self.close().add_done_callback(_log_failure)

    def _finish(self) -> None:
        if self.opened.exception() is None:
            self._close_engine(self.opened.result())


def _log_failure(closed: Future[None]) -> None:
    if error := closed.exception():
        _log.error("closing an engine failed: %s: %s", type(error).__name__, error)


def run_aside(job: Callable[[], Result], name: str) -> Future[Result]:
    """Run `job` in a daemon thread of its own."""
    future: Future[Result] = Future()
    threading.Thread(target=_resolve, args=(future, job), name=name, daemon=True).start()
    return future


def _resolve(future: Future[Result], compute: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(compute())
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # SystemExit of a library must not end whoever waits
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
