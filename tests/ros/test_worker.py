"""The mailbox and the thread that owns the engine."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from video_knet_ros.worker import InferenceThread, Mailbox, Worker, busy_threads


def test_the_slot_keeps_the_newest_item_and_tells_of_replacements():
    box: Mailbox[int] = Mailbox()
    assert [box.offer("a", i) for i in (1, 2, 3)] == [False, True, True]
    assert box.take() == 3
    assert box.offer("a", 4) is False


def test_the_queue_goes_first_and_loses_nothing():
    box: Mailbox[int] = Mailbox()
    box.offer("a", 9)
    box.send(1)
    box.send(2)
    assert [box.take() for _ in range(3)] == [1, 2, 9]


def test_a_closed_mailbox_still_delivers_its_queue_but_not_its_slot():
    box: Mailbox[int] = Mailbox()
    box.offer("a", 9)
    box.send(1)
    box.close()
    assert [box.take(), box.take()] == [1, None]
    with pytest.raises(RuntimeError, match="closed"):
        box.send(2)


def test_a_withdrawn_item_is_gone():
    box: Mailbox[int] = Mailbox()
    box.offer("a", 1)
    assert box.withdraw("a") and not box.withdraw("a")
    box.send(2)
    assert box.take() == 2
    assert box.offer("a", 3) is False


def test_a_slot_that_is_filled_again_and_again_waits_for_its_turn():
    box: Mailbox[str] = Mailbox()
    box.offer("fast", "fast 1")
    taken = []
    for i in range(4):
        taken.append(box.take())
        for n in range(20):
            box.offer("fast", f"fast {i} {n}")
        box.offer("slow", f"slow {i}")
    assert taken == ["fast 1", "fast 0 19", "slow 1", "fast 2 19"]


def test_two_workers_share_a_thread_and_each_closes_its_own_engine():
    thread = InferenceThread()
    closed = []
    first, second = (Worker(lambda n=n: n, closed.append, thread) for n in ("first", "second"))
    names = [w.call(lambda engine: (engine, threading.current_thread())) for w in (first, second)]
    (one, its), (two, others) = (future.result(5) for future in names)
    assert (one, two) == ("first", "second") and its is others
    first.close().result(5)
    assert closed == ["first"] and second.call(str.upper).result(5) == "SECOND"
    second.close().result(5)
    its.join(5)
    assert closed == ["first", "second"]
    assert not its.is_alive() and not thread.is_open, "its last user has gone"


def test_the_engine_lives_in_one_thread_from_open_to_close():
    threads = []

    def note(*_):
        threads.append(threading.current_thread())
        return "engine"

    worker = Worker(note, note)
    assert worker.call(lambda engine: note() and engine).result(5) == "engine"
    worker.close().result(5)
    threads[0].join(5)
    assert len(threads) == 3 and len(set(threads)) == 1
    assert threads[0] is not threading.current_thread() and not threads[0].is_alive()


@pytest.mark.parametrize("error", [ValueError("no such model"), SystemExit("no such model")])
def test_what_opening_raises_is_handed_over_and_its_thread_ends(error):
    opened_in = []

    def fail():
        opened_in.append(threading.current_thread())
        raise error

    worker = Worker(fail, lambda engine: pytest.fail("there is no engine to close"))
    raised = worker.opened.exception(5)
    assert isinstance(raised, Exception) and "no such model" in str(raised)
    assert worker.end(5) == ""
    opened_in[0].join(5)
    assert not opened_in[0].is_alive()


class Hung:
    """A worker whose engine is in a job that ends when `gate` is set."""

    def __init__(self, close=lambda engine: None):
        self.gate, self.running = threading.Event(), threading.Event()
        self.worker = Worker(lambda: "engine", close)
        self.worker.offer(self._job)
        assert self.running.wait(5)

    def _job(self, engine):
        self.running.set()
        self.gate.wait(20)


def test_nothing_waits_for_an_engine_that_hangs():
    closed = []
    hung = Hung(closed.append)
    waiting = hung.worker.call(str.upper)
    assert waiting.cancel(), "what has not begun can be withdrawn"
    assert hung.worker.busy_s > 0 and busy_threads()
    reason = hung.worker.end(0.0)
    assert reason.startswith("busy for ") and hung.worker.given_up and not closed
    assert hung.worker.end(20).startswith("busy for "), "it is not waited for again"
    hung.gate.set()
    hung.worker.close().result(5)
    assert closed == ["engine"], "closed when the job returned"


def test_an_inference_thread_whose_engine_hangs_takes_no_new_users():
    hung = Hung()
    thread = hung.worker._thread
    assert not thread.close(0.0), "it has not ended"
    with pytest.raises(RuntimeError, match="closed"):
        Worker(lambda: "engine", lambda engine: None, thread)
    hung.gate.set()


def test_a_close_that_raises_is_reported_and_closing_twice_closes_once():
    closed = []

    def close(engine):
        closed.append(engine)
        raise RuntimeError("the GPU is gone")

    worker = Worker(lambda: "engine", close)
    assert worker.close() is worker.close()
    assert worker.end(5) == worker.end(5) == "RuntimeError: the GPU is gone"
    assert closed == ["engine"]
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(str.upper)
    assert worker.offer(lambda engine: pytest.fail("its engine is closed")) is False


def test_a_process_ends_while_an_engine_hangs():
    code = """
import threading
from video_knet_ros.worker import Worker
running = threading.Event()
worker = Worker(lambda: "engine", print)
worker.offer(lambda engine: running.set() or threading.Event().wait())
assert running.wait(20)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_only_the_newest_offered_job_runs_after_a_slow_one():
    worker: Worker[list] = Worker(list, lambda engine: None)
    running, gate, ended = (threading.Event() for _ in range(3))

    def slow(done):
        running.set()
        gate.wait(5)

    def last(done):
        done.append("last")
        ended.set()

    worker.offer(slow)
    assert running.wait(5)
    jobs = [lambda done, i=i: done.append(i) for i in range(3)] + [last]
    assert [worker.offer(job) for job in jobs] == [False, True, True, True]
    gate.set()
    assert ended.wait(5)
    assert worker.call(list).result(5) == ["last"]
    worker.close().result(5)


def test_a_job_that_fails_does_not_end_the_thread(caplog):
    worker = Worker(lambda: "engine", lambda engine: None)
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda engine: 1 / 0).result(5)
    failed = threading.Event()

    def fail(engine):
        failed.set()
        raise KeyError("lost")

    worker.offer(fail)
    assert failed.wait(5)
    assert worker.call(str.upper).result(5) == "ENGINE"
    worker.close().result(5)
    assert "a job of the inference thread failed" in caplog.text
