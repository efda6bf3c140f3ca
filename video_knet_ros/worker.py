"""The one thread that owns the engine, and the one-slot mailbox in front of it.

A GPU context belongs to the thread that made it, so the engine is opened, used and closed here. The
executor's thread only leaves work: it never waits for a frame.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Engine = TypeVar("Engine")
Result = TypeVar("Result")
Item = TypeVar("Item")

_log = logging.getLogger(__name__)


class Mailbox(Generic[Item]):
    """Two trays: one slot that keeps only the newest item, and a queue whose items all arrive.

    `take` empties the queue first. All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._newest: Item | None = None
        self._closed = False

    def offer(self, item: Item) -> bool:
        """Leave `item` in the slot; True if an unread one had to make room for it."""
        with self._changed:
            replaced = self._newest is not None
            self._newest = item
            self._changed.notify()
            return replaced

    def send(self, item: Item) -> None:
        """Queue `item`; RuntimeError if the mailbox is closed."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the mailbox is closed")
            self._queue.append(item)
            self._changed.notify()

    def withdraw(self) -> None:
        """Empty the slot."""
        with self._changed:
            self._newest = None

    def take(self) -> Item | None:
        """Wait for an item; None once the mailbox is closed and its queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._newest is not None or self._closed)
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                return None
            item, self._newest = self._newest, None
            return item

    def close(self) -> None:
        """Let `take` return None; the slot is emptied, the queue is still delivered."""
        with self._changed:
            self._closed = True
            self._newest = None
            self._changed.notify_all()


class Worker(Generic[Engine]):
    """Runs jobs, functions of the engine, one after the other in a thread of its own."""

    def __init__(
        self, open_engine: Callable[[], Engine], close_engine: Callable[[Engine], None]
    ) -> None:
        """Open the engine in the new thread; raises here what `open_engine` raises there."""
        self._mailbox: Mailbox[Callable[[Engine], Any]] = Mailbox()
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(open_engine, close_engine, opened), name="inference"
        )
        self._thread.start()
        try:
            opened.result()
        except BaseException:  # Ctrl-C too: nobody will have this object to close it
            self._mailbox.close()
            raise

    def offer(self, job: Callable[[Engine], None]) -> bool:
        """Run `job` unless a newer one is offered before it begins; True if it replaced one."""
        return self._mailbox.offer(job)

    def withdraw(self) -> None:
        """Forget the offered job that has not begun."""
        self._mailbox.withdraw()

    def call(self, job: Callable[[Engine], Result]) -> Future[Result]:
        """Run `job` before the next offered one, whatever comes; RuntimeError after `close`."""
        future: Future[Result] = Future()
        self._mailbox.send(lambda engine: _resolve(future, lambda: job(engine)))
        return future

    def close(self) -> None:
        """Finish the job that runs, close the engine, end the thread."""
        self._mailbox.close()
        self._thread.join()

    def _run(
        self,
        open_engine: Callable[[], Engine],
        close_engine: Callable[[Engine], None],
        opened: Future[None],
    ) -> None:
        try:
            engine = open_engine()
        except BaseException as error:  # whatever it is, the waiting thread has to hear of it
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._mailbox.take()) is not None:
            try:
                job(engine)
            except Exception:
                _log.exception("a job of the inference thread failed")
        close_engine(engine)


def _resolve(future: Future[Result], compute: Callable[[], Result]) -> None:
    try:
        future.set_result(compute())
    except Exception as error:
        future.set_exception(error)
