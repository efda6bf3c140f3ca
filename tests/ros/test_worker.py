"""The mailbox and the thread that owns the engine."""

from __future__ import annotations

import threading

import pytest
from harness import TIMEOUT_S

from video_knet_ros.worker import InferenceThread, Mailbox, Worker


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
    (one, its), (two, others) = (future.result(TIMEOUT_S) for future in names)
    assert (one, two) == ("first", "second") and its is others
    first.close()
    assert closed == ["first"] and second.call(str.upper).result(TIMEOUT_S) == "SECOND"
    second.close()
    thread.close()
    assert closed == ["first", "second"] and not its.is_alive()


def test_the_engine_lives_in_one_thread_from_open_to_close():
    threads = []

    def note(*_):
        threads.append(threading.current_thread())
        return "engine"

    worker = Worker(note, note)
    assert worker.call(lambda engine: note() and engine).result(TIMEOUT_S) == "engine"
    worker.close()
    assert len(threads) == 3 and len(set(threads)) == 1
    assert threads[0] is not threading.current_thread() and not threads[0].is_alive()


def test_an_engine_that_does_not_open_raises_in_the_callers_thread():
    def fail():
        raise ValueError("no such model")

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="no such model"):
        Worker(fail, lambda engine: None)
    for thread in set(threading.enumerate()) - before:  # it ends by itself
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_only_the_newest_offered_job_runs_after_a_slow_one():
    worker: Worker[list] = Worker(list, lambda engine: None)
    running, gate, ended = (threading.Event() for _ in range(3))

    def slow(done):
        running.set()
        gate.wait(TIMEOUT_S)

    def last(done):
        done.append("last")
        ended.set()

    worker.offer(slow)
    assert running.wait(TIMEOUT_S)
    jobs = [lambda done, i=i: done.append(i) for i in range(3)] + [last]
    assert [worker.offer(job) for job in jobs] == [False, True, True, True]
    gate.set()
    assert ended.wait(TIMEOUT_S)
    assert worker.call(list).result(TIMEOUT_S) == ["last"]
    worker.close()


def test_a_job_that_fails_does_not_end_the_thread(caplog):
    worker = Worker(lambda: "engine", lambda engine: None)
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda engine: 1 / 0).result(TIMEOUT_S)
    failed = threading.Event()

    def fail(engine):
        failed.set()
        raise KeyError("lost")

    worker.offer(fail)
    assert failed.wait(TIMEOUT_S)
    assert worker.call(str.upper).result(TIMEOUT_S) == "ENGINE"
    worker.close()
    assert "a job of the inference thread failed" in caplog.text
