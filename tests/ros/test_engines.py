"""The jobs of a camera in the thread of its engine, which other cameras may use too."""

from __future__ import annotations

import threading

import pytest
from harness import TIMEOUT_S, PaintedRuntime

from video_knet_core.tracking import tracker_settings
from video_knet_ros.engines import EnginePool, EngineWorker

SETTINGS = {"model": "painted.onnx", "backend": "auto", "threads": 2}


def worker_of(engines: EnginePool, **settings) -> EngineWorker:
    engine = engines.engine(SETTINGS | settings)
    return EngineWorker(engine, tracker_settings(), 1, lambda *progress: None)


class Engines(EnginePool):
    """Painted engines, all of which are kept."""

    def __init__(self) -> None:
        self.made: list[PaintedRuntime] = []
        super().__init__(self._open)

    def _open(self, path, **options) -> PaintedRuntime:
        self.made.append(PaintedRuntime())
        return self.made[-1]


@pytest.fixture
def engines() -> Engines:
    return Engines()


def test_two_cameras_share_an_engine_in_one_thread_and_the_last_one_closes_it(engines):
    first, second = worker_of(engines), worker_of(engines)
    one, two = (worker.opened.result(TIMEOUT_S) for worker in (first, second))
    (engine,) = engines.made
    assert one is not two and one.runtime is two.runtime is engine
    threads = [
        worker.call(lambda _: threading.current_thread()).result(TIMEOUT_S)
        for worker in (first, second)
    ]
    assert first.end(TIMEOUT_S) == "" and not engine.closed
    assert second.end(TIMEOUT_S) == "" and engine.closed
    threads[0].join(TIMEOUT_S)
    assert threads[0] is threads[1] is not threading.current_thread()
    assert len(engine.threads) == 1 and not threads[0].is_alive()


@pytest.mark.parametrize("error", [ValueError("no such model"), SystemExit("no such model")])
def test_what_opening_raises_is_handed_over_and_its_thread_ends(error):
    opened_in = []

    def fail(path, **options):
        opened_in.append(threading.current_thread())
        raise error

    worker = worker_of(EnginePool(fail))
    raised = worker.opened.exception(TIMEOUT_S)
    assert isinstance(raised, Exception) and "no such model" in str(raised)
    assert worker.end(TIMEOUT_S) == ""
    opened_in[0].join(TIMEOUT_S)
    assert not opened_in[0].is_alive()


def test_nothing_waits_for_an_engine_that_hangs_and_no_camera_gets_it(engines):
    gate, running = threading.Event(), threading.Event()
    worker = worker_of(engines)
    worker.offer(lambda _: running.set() or gate.wait(TIMEOUT_S))
    assert running.wait(TIMEOUT_S)
    assert worker.call(lambda _: None).cancel(), "what has not begun can be withdrawn"
    assert worker.busy_s > 0
    reason = worker.end(0.0)
    (engine,) = engines.made
    assert reason.startswith("busy for ") and worker.given_up and not engine.closed
    assert worker.end(TIMEOUT_S).startswith("busy for "), "it is not waited for again"
    other = worker_of(engines)
    assert other.opened.result(TIMEOUT_S).runtime is not engine
    gate.set()
    worker.close().result(TIMEOUT_S)
    assert engine.closed, "closed when the job returned"
    assert other.end(TIMEOUT_S) == ""


def test_a_close_that_raises_is_reported_and_closing_twice_closes_once(engines):
    worker, closed = worker_of(engines), []
    runtime = worker.opened.result(TIMEOUT_S).runtime

    def close():
        closed.append(runtime)
        raise RuntimeError("the GPU is gone")

    runtime.close = close
    assert worker.close() is worker.close()
    assert worker.end(TIMEOUT_S) == worker.end(TIMEOUT_S) == "RuntimeError: the GPU is gone"
    assert closed == [runtime]
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(lambda _: None)
    assert worker.offer(lambda _: pytest.fail("its engine is closed")) is False


def test_a_camera_whose_tracker_cannot_be_made_gives_up_its_share(engines, monkeypatch):
    first = worker_of(engines)
    first.opened.result(TIMEOUT_S)

    def fail(*arguments):
        raise RuntimeError("no more of these")

    monkeypatch.setattr("video_knet_ros.engines.VideoPredictor", fail)
    second = worker_of(engines)
    assert "no more of these" in str(second.opened.exception(TIMEOUT_S))
    (engine,) = engines.made
    assert second.end(TIMEOUT_S) == "" and not engine.closed
    assert first.end(TIMEOUT_S) == "" and engine.closed
