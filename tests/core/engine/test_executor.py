"""The thread that owns an engine, its queue and its slots."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from video_knet_core.engine.executor import EngineExecutor, busy_executors, run_in_thread

TIMEOUT_S = 90.0


class Held:
    """An executor in a job that ends when `gate` is set; `done` lists what ran after it."""

    def __init__(self) -> None:
        self.executor, self.done = EngineExecutor("test"), []
        self.gate, running = threading.Event(), threading.Event()
        self.executor.submit(lambda: running.set() or self.gate.wait(TIMEOUT_S))
        assert running.wait(TIMEOUT_S)

    def offer(self, slot, job):
        return self.executor.offer(slot, lambda: self.done.append(job))

    def submit(self, job):
        return self.executor.submit(lambda: self.done.append(job))

    def finish(self) -> list:
        """Let all run that came so far."""
        self.gate.set()
        last = threading.Event()
        self.executor.offer("last", last.set)
        assert last.wait(TIMEOUT_S) and self.executor.close(TIMEOUT_S)
        return self.done


@pytest.fixture
def held():
    held = Held()
    yield held
    held.gate.set()
    held.executor.close(TIMEOUT_S)


def test_jobs_run_in_one_thread_in_order(held):
    threads = [held.executor.submit(threading.current_thread) for _ in range(2)]
    for number in range(5):
        held.submit(number)
    assert held.finish() == [0, 1, 2, 3, 4]
    first, second = (thread.result() for thread in threads)
    assert first is second is not threading.current_thread() and not first.is_alive()


def test_a_slot_keeps_the_newest_job_and_reports_replacements(held):
    assert [held.offer("a", n) for n in range(3)] == [False, True, True]
    assert held.offer("b", 10) is False
    assert held.finish() == [2, 10]


def test_the_queue_goes_before_the_slots_and_loses_nothing(held):
    held.offer("a", "slot")
    held.submit(1)
    held.submit(2)
    assert held.finish() == [1, 2, "slot"]


def test_a_slot_that_is_filled_again_and_again_waits_for_its_turn(held):
    ended = threading.Event()

    def fast(number):
        held.done.append(f"fast {number}")
        if number == 3:
            return ended.set()
        held.executor.offer("fast", lambda: fast(number + 1))
        held.offer("slow", f"slow {number}")

    held.executor.offer("fast", lambda: fast(0))
    held.offer("slow", "slow")
    held.gate.set()
    assert ended.wait(TIMEOUT_S)
    assert held.done == ["fast 0", "slow 0", "fast 1", "fast 2", "slow 2", "fast 3"]


def test_a_withdrawn_job_does_not_run(held):
    held.offer("a", 1)
    assert held.executor.withdraw("a") and not held.executor.withdraw("a")
    assert held.submit(2) and held.offer("a", 3) is False
    cancelled = held.submit(4)
    assert cancelled.cancel()
    assert held.finish() == [2, 3]


def test_a_closed_executor_runs_what_was_submitted_and_nothing_else(held):
    held.offer("a", "slot")
    held.submit("queued")
    assert not held.executor.close(0), "its job has not ended"
    assert not held.executor.is_open
    with pytest.raises(RuntimeError, match="closed"):
        held.submit("late")
    assert held.offer("a", "late") is False
    held.gate.set()
    assert held.executor.close(TIMEOUT_S)
    assert held.done == ["queued"]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit("x"), KeyboardInterrupt("x")])
def test_what_a_job_raises_is_in_its_future_and_the_thread_continues(held, error, caplog):
    def fail():
        raise error

    failed = held.executor.submit(fail)
    held.executor.offer("a", fail)
    held.submit("next")
    assert held.finish() == ["next"]
    raised = failed.exception()
    assert isinstance(raised, Exception) and "x" in str(raised)
    assert caplog.text.count("a job of test failed") == 1


def test_how_long_it_has_been_busy(held):
    assert held.executor.busy_s >= 0 and held.executor in busy_executors()
    held.finish()
    assert held.executor.busy_s is None and held.executor not in busy_executors()


def test_no_reference_to_a_job_or_its_result_is_kept(held):
    class Frame:
        pass

    frame, result = Frame(), Frame()
    references = [weakref.ref(frame), weakref.ref(result)]
    gc.collect()
    gc.disable()
    try:
        held.executor.offer("a", lambda frame=frame: None)
        future = held.executor.submit(lambda result=result: result)
        del frame, result
        held.gate.set()
        future.result(TIMEOUT_S)
        del future
        done = threading.Event()
        held.executor.offer("b", done.set)
        assert done.wait(TIMEOUT_S)
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_a_process_ends_while_a_job_hangs():
    code = """
import threading
from video_knet_core.engine.executor import EngineExecutor
running = threading.Event()
EngineExecutor("test").submit(lambda: running.set() or threading.Event().wait())
assert running.wait(60)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_job_in_a_thread_of_its_own():
    assert run_in_thread(threading.current_thread, "disk").result(TIMEOUT_S).name == "disk"
    with pytest.raises(OSError, match="full"):
        run_in_thread(lambda: (_ for _ in ()).throw(OSError("full")), "disk").result(TIMEOUT_S)
