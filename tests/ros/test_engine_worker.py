"""The jobs of a camera in the thread of its engine."""

from __future__ import annotations

import threading

import pytest
from harness import TIMEOUT_S

from video_knet_core.engine.executor import EngineExecutor
from video_knet_ros.engine_worker import EngineWorker


def test_two_workers_share_an_executor_and_each_closes_its_own_engine():
    executor = EngineExecutor("inference")
    closed = []
    first, second = (
        EngineWorker(lambda n=n: n, closed.append, executor) for n in ("first", "second")
    )
    names = [w.call(lambda engine: (engine, threading.current_thread())) for w in (first, second)]
    (one, its), (two, others) = (future.result(TIMEOUT_S) for future in names)
    assert (one, two) == ("first", "second") and its is others
    first.close().result(TIMEOUT_S)
    assert closed == ["first"] and second.call(str.upper).result(TIMEOUT_S) == "SECOND"
    second.close().result(TIMEOUT_S)
    assert closed == ["first", "second"]
    its.join(TIMEOUT_S)
    assert not its.is_alive() and not executor.is_open, "it ends with its last user"


def test_the_engine_lives_in_one_thread_from_open_to_close():
    threads = []

    def note(*_):
        threads.append(threading.current_thread())
        return "engine"

    worker = EngineWorker(note, note)
    assert worker.call(lambda engine: note() and engine).result(TIMEOUT_S) == "engine"
    worker.close().result(TIMEOUT_S)
    threads[0].join(TIMEOUT_S)
    assert len(threads) == 3 and len(set(threads)) == 1
    assert threads[0] is not threading.current_thread() and not threads[0].is_alive()


@pytest.mark.parametrize("error", [ValueError("no such model"), SystemExit("no such model")])
def test_what_opening_raises_is_handed_over_and_its_thread_ends(error):
    opened_in = []

    def fail():
        opened_in.append(threading.current_thread())
        raise error

    worker = EngineWorker(fail, lambda engine: pytest.fail("there is no engine to close"))
    raised = worker.opened.exception(TIMEOUT_S)
    assert isinstance(raised, Exception) and "no such model" in str(raised)
    assert worker.end(TIMEOUT_S) == ""
    opened_in[0].join(TIMEOUT_S)
    assert not opened_in[0].is_alive()


class Hung:
    """A worker whose engine is in a job that ends when `gate` is set."""

    def __init__(self, close=lambda engine: None):
        self.gate, self.running = threading.Event(), threading.Event()
        self.worker = EngineWorker(lambda: "engine", close)
        self.worker.offer(self._job)
        assert self.running.wait(TIMEOUT_S)

    def _job(self, engine):
        self.running.set()
        self.gate.wait(TIMEOUT_S)


def test_nothing_waits_for_an_engine_that_hangs():
    closed = []
    hung = Hung(closed.append)
    waiting = hung.worker.call(str.upper)
    assert waiting.cancel(), "what has not begun can be withdrawn"
    assert hung.worker.busy_s > 0
    reason = hung.worker.end(0.0)
    assert reason.startswith("busy for ") and hung.worker.given_up and not closed
    assert hung.worker.end(TIMEOUT_S).startswith("busy for "), "it is not waited for again"
    hung.gate.set()
    hung.worker.close().result(TIMEOUT_S)
    assert closed == ["engine"], "closed when the job returned"


def test_a_close_that_raises_is_reported_and_closing_twice_closes_once():
    closed = []

    def close(engine):
        closed.append(engine)
        raise RuntimeError("the GPU is gone")

    worker = EngineWorker(lambda: "engine", close)
    assert worker.close() is worker.close()
    assert worker.end(TIMEOUT_S) == worker.end(TIMEOUT_S) == "RuntimeError: the GPU is gone"
    assert closed == ["engine"]
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(str.upper)
    assert worker.offer(lambda engine: pytest.fail("its engine is closed")) is False
