"""The thread that owns the engines, and the mailbox in front of it.

A GPU context belongs to the thread that made it, so engines are opened, used and closed in one
thread, which any number of cameras share. The executor's thread only leaves work: it never waits
for a frame.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

Engine = TypeVar("Engine")
Result = TypeVar("Result")
Item = TypeVar("Item")

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
    """One thread that runs the jobs of all cameras, one after the other."""

    def __init__(self) -> None:
        self._mailbox: Mailbox[Callable[[], Any]] = Mailbox()
        self._thread = threading.Thread(target=self._run, name="inference")
        self._thread.start()

    def offer(self, slot: Hashable, job: Callable[[], None]) -> bool:
        """Run `job` unless a newer one comes into its slot before; True if it replaced one."""
        return self._mailbox.offer(slot, job)

    def withdraw(self, slot: Hashable) -> bool:
        """Forget the job in a slot that has not begun; True if there was one."""
        return self._mailbox.withdraw(slot)

    def call(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` before the next offered one, whatever comes; RuntimeError after `close`."""
        future: Future[Result] = Future()
        self._mailbox.send(lambda: _resolve(future, job))
        return future

    def close(self) -> None:
        """Finish what was called, end the thread."""
        self._mailbox.close()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._mailbox.take()) is not None:
            try:
                job()
            except Exception:
                _log.exception("a job of the inference thread failed")


class Worker(Generic[Engine]):
    """Runs the jobs of one camera, functions of its engine, in the inference thread.

    Args:
        open_engine: makes the engine, in that thread; what it raises is raised here.
        close_engine: frees it, in that thread.
        thread: shared with others; None = one of its own.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        close_engine: Callable[[Engine], None],
        thread: InferenceThread | None = None,
    ) -> None:
        self._own_thread = thread is None
        self._thread = thread if thread is not None else InferenceThread()
        self._close_engine = close_engine
        opened = self._thread.call(open_engine)
        try:
            self._engine = opened.result()
        except BaseException:  # Ctrl-C too: nobody will have this object to close it
            opened.add_done_callback(partial(_close_late, close_engine))
            self._end_thread()
            raise

    def offer(self, job: Callable[[Engine], None]) -> bool:
        """Run `job` unless a newer one is offered before it begins; True if it replaced one."""
        return self._thread.offer(self, partial(job, self._engine))

    def withdraw(self) -> bool:
        """Forget the offered job that has not begun; True if there was one."""
        return self._thread.withdraw(self)

    def call(self, job: Callable[[Engine], Result]) -> Future[Result]:
        """Run `job` before the next offered one, whatever comes; RuntimeError after `close`."""
        return self._thread.call(partial(job, self._engine))

    def close(self) -> None:
        """Finish the job that runs, close the engine, end the thread if it is its own."""
        self.withdraw()
        self._thread.call(partial(self._close_engine, self._engine)).result()
        self._end_thread()

    def _end_thread(self) -> None:
        if self._own_thread:
            self._thread.close()


def _close_late(close_engine: Callable[[Engine], None], opened: Future[Engine]) -> None:
    """Close an engine whose opener was not waited for, if it was opened."""
    if opened.exception() is None:
        close_engine(opened.result())


def _resolve(future: Future[Result], compute: Callable[[], Result]) -> None:
    try:
        future.set_result(compute())
    except BaseException as error:  # whatever it is, the waiting thread has to hear of it
        future.set_exception(error)
