"""A better engine takes over in mid-stream: nothing is lost, whatever goes wrong on the way."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from core_trackers import CORE_TRACKERS
from tiny_onnx import HEIGHT, WIDE, WIDTH

from synthetic_street import SyntheticStreet
from video_knet_core.engine import selector
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.hot_swap import BuildCancelled, HotSwapRuntime, NativeSizesRuntime
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import (
    Backend,
    default_model_path,
    open_runtime,
)
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import tracker_settings

TIMEOUT_S = 30.0


class Engine(OnnxRuntime):
    """An engine that a test can look into: its steps wait for `gate`, and raise `failure`."""

    def __init__(self, path, name="onnxruntime-cpu"):
        super().__init__(path, threads=1)
        self.name = name
        self.steps = 0
        self.failure = self.close_failure = None
        self.closed = False
        self.stepping, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def step(self, image, state):
        assert not self.closed
        self.stepping.set()
        assert self.gate.wait(TIMEOUT_S)
        if self.failure:
            raise self.failure
        self.steps += 1
        return super().step(image, state)

    def close(self):
        assert not self.closed
        self.closed = True
        if self.close_failure:
            raise self.close_failure
        super().close()


class Build:
    """Opens the better engine once `finish` is called; `fail` lets it raise instead."""

    def __init__(self, path):
        self.path = path
        self.failure = self.close_failure = None
        self.built: Engine | None = None
        self.ask = threading.Event()
        self.progress = None

    def __call__(self, progress):
        self.progress = progress
        progress("building", 0.25)
        assert self.ask.wait(TIMEOUT_S)
        if self.failure:
            raise self.failure
        progress("building", 0.75)
        self.built = Engine(self.path, "tensorrt")
        self.built.close_failure = self.close_failure
        return self.built


def wait(condition, what="condition"):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"waited {TIMEOUT_S:g} s for {what}"
        time.sleep(0.001)


def join(runtime):
    assert runtime._executor.close(TIMEOUT_S), "the thread that builds has not ended"


class Swap:
    """A swapping runtime, its parts, and what its progress callback got."""

    def __init__(self, path):
        self.present, self.build, self.reported = Engine(path), Build(path), []
        self.runtime = HotSwapRuntime(
            self.present, self.build, lambda *what: self.reported.append(what)
        )
        wait(lambda: self.reported, "the build to begin")

    def finish_build(self):
        """Let the build end, and wait until what came of it is known to the runtime."""
        self.build.ask.set()
        wait(lambda: self.runtime._better or self.reported[-1][1] == 1, "the build")


@pytest.fixture
def swap(model):
    swap = Swap(model)
    yield swap
    swap.build.ask.set()


def picture(red=255):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = red
    return image


def count(state):
    """The frames since the start of the stream, which are the first number of the kernels."""
    return float(state[0, 0])


# --- the stream continues


@pytest.mark.slow
def test_ids_and_label_maps_continue_over_the_swap(monkeypatch):
    """The shipped model on a street: the same, pixel by pixel, as without a swap."""
    path = default_model_path()
    images = [SyntheticStreet(5, 288, 480).frame(t).image for t in range(10)]
    build = Build(path)
    slow = ModuleType("slow")
    slow.engine_is_cached = lambda path, backend, size: False
    slow.open_model = lambda backend, path, threads, progress, size: build(progress)
    monkeypatch.setitem(sys.modules, "slow", slow)
    quick = selector.BACKENDS["onnxruntime-cpu"]
    backends = {"tensorrt": Backend("slow", "", builds=True), "onnxruntime-cpu": quick}
    monkeypatch.setattr(selector, "BACKENDS", backends)
    runtime = open_runtime(path, background=True)
    alone, swapped = VideoPredictor(OnnxRuntime(path)), VideoPredictor(runtime)
    names = []
    for t, image in enumerate(images):
        if t == 5:
            build.ask.set()
            wait(lambda: runtime._better, "the build")
        expected, found = (p.step(image, t * 100_000_000) for p in (alone, swapped))
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert repr(found.tracks) == repr(expected.tracks)  # a NaN equals no NaN
        assert (found.born, found.ended, found.epoch) == (expected.born, expected.ended, 0)
        names.append(runtime.name)
    assert names == ["onnxruntime-cpu"] * 5 + ["tensorrt"] * 5
    assert sum(t.track_id > 0 and t.first_seen < 400_000_000 for t in found.tracks) >= 2
    runtime.close()


def test_the_kernels_are_carried_over(swap):
    runtime, state = swap.runtime, None
    for _ in range(3):
        _, state = runtime.step(picture(), state)
    swap.finish_build()
    assert runtime.name == "onnxruntime-cpu"
    for _ in range(2):
        _, state = runtime.step(picture(), state)
    assert (runtime.name, swap.build.built.steps, count(state)) == ("tensorrt", 2, 5)


def test_every_camera_is_carried_over_when_its_next_frame_comes(swap):
    runtime = swap.runtime
    _, left = runtime.step(picture(), None)
    _, right = runtime.step(picture(), None)
    _, right = runtime.step(picture(), right)
    swap.finish_build()
    _, left = runtime.step(picture(), left)
    wait(lambda: swap.present.closed, "the close, although a camera has a state of it")
    assert count(right) == 2
    _, right = runtime.step(picture(), right)
    assert (count(left), count(right)) == (2, 3)


def test_a_step_that_runs_is_finished_by_the_engine_that_began_it(swap):
    runtime = swap.runtime
    _, state = runtime.step(picture(), None)
    swap.present.gate.clear(), swap.present.stepping.clear()
    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(runtime.step, picture(), state)
        assert swap.present.stepping.wait(TIMEOUT_S)
        swap.finish_build()
        other = threads.submit(runtime.step, picture(), None)
        assert runtime.name == "onnxruntime-cpu" and not swap.present.closed
        swap.present.gate.set()
        (_, state), _ = late.result(TIMEOUT_S), other.result(TIMEOUT_S)
    assert runtime.name == "tensorrt"
    assert count(state) == 2
    assert count(runtime.step(picture(), state)[1]) == 3


def test_cameras_step_from_threads_of_their_own(swap):
    swapped = threading.Event()

    def camera():
        state, steps = None, 0
        while not swapped.is_set() or steps < 200:
            _, state = swap.runtime.step(picture(), state)
            steps += 1
        return steps, count(state)

    with ThreadPoolExecutor(4) as threads:
        cameras = [threads.submit(camera) for _ in range(4)]
        wait(swap.present.stepping.is_set)
        swap.finish_build()
        wait(lambda: swap.present.closed, "the swap")
        swapped.set()
        results = [camera.result(TIMEOUT_S) for camera in cameras]
    assert all(steps == count for steps, count in results)
    assert swap.runtime.name == "tensorrt" and swap.build.built.steps > 0


# --- what is reported


def test_progress_and_the_swap_are_reported(swap, caplog):
    with caplog.at_level(logging.INFO):
        swap.runtime.step(picture(), None)
        swap.finish_build()
        swap.runtime.step(picture(), None)
    assert swap.reported == [("building", 0.25), ("building", 0.75), ("tensorrt serves", 1.0)]
    assert "tensorrt takes over from onnxruntime-cpu" in caplog.text


# --- what goes wrong


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendError("tensorrt: out of memory"), "tensorrt: out of memory"),
        (SystemExit("no licence"), "no licence"),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_build_that_fails_is_reported_once_and_the_present_engine_stays(
    swap, caplog, error, reason
):
    swap.build.failure = error
    swap.finish_build()
    state = None
    for _ in range(3):
        _, state = swap.runtime.step(picture(), state)
    assert (swap.runtime.name, count(state)) == ("onnxruntime-cpu", 3)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == f"onnxruntime-cpu stays: no better engine: {reason}"
    assert swap.reported[-1] == (f"no better engine: {reason}", 1.0)
    join(swap.runtime)


def test_a_first_step_that_fails_is_done_by_the_present_engine(swap, caplog):
    _, state = swap.runtime.step(picture(), None)
    swap.finish_build()
    swap.build.built.failure = FloatingPointError("kernels that are not finite")
    for _ in range(2):
        _, state = swap.runtime.step(picture(), state)
    assert (swap.runtime.name, count(state)) == ("onnxruntime-cpu", 3)
    wait(lambda: swap.build.built.closed, "the close of the engine that failed")
    assert not swap.present.closed
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == (
        "onnxruntime-cpu stays: the first step of tensorrt failed: kernels that are not finite"
    )


def test_a_frame_that_no_engine_can_do_does_not_count_against_the_new_one(swap, monkeypatch):
    swap.finish_build()
    bad = swap.build.built.failure = RuntimeError("both broke")
    with monkeypatch.context() as context:
        context.setattr(OnnxRuntime, "step", lambda *a: (_ for _ in ()).throw(bad))
        with pytest.raises(RuntimeError, match="both broke"):
            swap.runtime.step(picture(), None)
    with pytest.raises(ValueError, match="image: expected uint8"):
        swap.runtime.step(picture()[:4], None)
    swap.build.built.failure = None
    swap.runtime.step(picture(), None)
    assert swap.runtime.name == "tensorrt"


def test_an_error_of_the_new_engine_after_its_first_step_is_the_callers(swap):
    swap.finish_build()
    _, state = swap.runtime.step(picture(), None)
    swap.build.built.failure = FloatingPointError("not finite")
    with pytest.raises(FloatingPointError, match="not finite"):
        swap.runtime.step(picture(), state)
    swap.build.built.failure = None
    assert count(swap.runtime.step(picture(), state)[1]) == 2


def test_closing_during_a_build_cancels_it_without_a_wait(swap):
    swap.runtime.close()
    assert swap.present.closed and swap.build.built is None
    with pytest.raises(BuildCancelled):
        swap.build.progress("building", 0.5)
    swap.build.ask.set()
    join(swap.runtime)
    assert swap.reported == [("building", 0.25)]


@pytest.mark.parametrize("failure", [None, RuntimeError("the GPU is gone")])
def test_an_engine_that_comes_after_the_close_is_closed(model, caplog, failure):
    build = Build(model)
    build.close_failure = failure
    runtime = HotSwapRuntime(Engine(model), lambda progress: build(lambda *what: None))
    wait(lambda: build.progress, "the build to begin")
    runtime.close()
    build.ask.set()
    join(runtime)
    assert build.built.closed and ("the GPU is gone" in caplog.text) == bool(failure)


@pytest.mark.parametrize("failure", [None, RuntimeError("the first step broke")])
def test_a_progress_callback_that_fails_costs_no_frame(model, caplog, failure):
    def progress(phase, fraction):
        if fraction == 1:
            raise ValueError("no subscriber")

    build = Build(model)
    runtime = HotSwapRuntime(Engine(model), build, progress)
    build.ask.set()
    wait(lambda: runtime._better, "the build")
    build.built.failure = failure
    segments, state = runtime.step(picture(), None)
    assert count(state) == 1
    assert runtime.name == ("onnxruntime-cpu" if failure else "tensorrt")
    assert "a progress callback failed" in caplog.text
    runtime.close()


def test_an_engine_that_hangs_in_its_close_costs_no_frame(swap):
    go_on = threading.Event()
    close = swap.present.close
    swap.present.close = lambda: (go_on.wait(TIMEOUT_S), close())
    swap.finish_build()
    _, state = swap.runtime.step(picture(), None)
    assert count(swap.runtime.step(picture(), state)[1]) == 2
    assert swap.runtime.name == "tensorrt" and not swap.present.closed
    go_on.set()
    wait(lambda: swap.present.closed, "the close")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_close_ends_both_engines_and_the_thread(swap, steps):
    swap.finish_build()
    for _ in range(steps):
        swap.runtime.step(picture(), None)
    swap.runtime.close()
    assert swap.present.closed and swap.build.built.closed
    join(swap.runtime)


# --- nothing is left behind


def handles():
    """Threads, those of libraries included, and file descriptors of this process."""
    return {(kind, name) for kind in ("task", "fd") for name in os.listdir(f"/proc/self/{kind}")}


def swapping(path):
    swap = Swap(path)
    _, state = swap.runtime.step(picture(), None)
    swap.finish_build()
    swap.runtime.step(picture(), state)
    assert swap.runtime.name == "tensorrt"
    swap.runtime.close()


def closed_during_the_build(path):
    swap = Swap(path)
    swap.runtime.step(picture(), None)
    swap.runtime.close()
    swap.build.ask.set()
    join(swap.runtime)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
@pytest.mark.parametrize("use", [swapping, closed_during_the_build])
def test_200_runtimes_leave_no_threads_and_no_files_open(model, use):
    for _ in range(3):
        use(model)
    gc.collect()
    before = handles()
    for _ in range(200):
        use(model)
    gc.collect()
    wait(lambda: handles() <= before, "the end of all threads and files that were opened")


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [False, True])
def test_10_000_steps_need_no_more_memory(model, swapped):
    """Counted in blocks of Python objects; benchmarks/soak.py measures the memory of a process."""
    runtime = OnnxRuntime(model, threads=1)
    if swapped:
        runtime = HotSwapRuntime(runtime, lambda progress: Engine(model, "tensorrt"))
        wait(lambda: runtime._better, "the build")
    predictor, images = VideoPredictor(runtime), [picture(red) for red in (0, 255, 255, 255)]

    def steps(numbers):
        for t in numbers:
            predictor.step(images[t % 4], t * 30_000_000)
        gc.collect()
        return sys.getallocatedblocks()

    before = steps(range(1000))
    assert steps(range(1000, 11_000)) - before < 1000  # of which one step makes many
    runtime.close()


# --- an engine for each native size


class Sizes:
    """A runtime of two native sizes in the background; that of `WIDE` opens by `build`."""

    def __init__(self, path):
        self.path, self.reported, self.opened, self.builds = path, [], [], False
        self.first, self.ask, self.failure = Engine(path), threading.Event(), None
        self.runtime = NativeSizesRuntime(
            self.first,
            ((HEIGHT, WIDTH), WIDE),
            self._open,
            True,
            lambda *what: self.reported.append(what),
        )

    def _open(self, size, progress):
        assert size == WIDE
        assert self.ask.wait(TIMEOUT_S)
        if self.failure:
            raise self.failure
        if self.builds:
            progress("building", 0.5)
        self.opened.append(OnnxRuntime(self.path, threads=1, size=size))
        return self.opened[-1]


@pytest.fixture
def sizes(two_sizes):
    sizes = Sizes(two_sizes)
    yield sizes
    sizes.ask.set()


def wide_picture(red=255):
    return np.full((*WIDE, 3), red, np.uint8)


def test_an_image_of_another_size_is_served_at_once_and_by_its_own_engine_when_that_is_open(sizes):
    shapes, state = [], None
    for number in range(4):
        if number == 2:
            sizes.ask.set()
            wait(lambda: sizes.runtime._others[WIDE].done(), "the second engine")
        detections, state = sizes.runtime.step(wide_picture(), state)
        shapes.append(detections.segment_map.shape)
        assert detections.segment_map.max() == 2, "both see the vehicle"
    assert shapes == [(HEIGHT // 2, WIDTH // 2)] * 2 + [(WIDE[0] // 2, WIDE[1] // 2)] * 2
    assert count(state) == 4, "the stream continues"
    sizes.runtime.step(picture(), None)
    assert sizes.first.steps == 3, "another camera has the first engine again"


def test_a_size_whose_engine_cannot_be_opened_is_served_by_the_first(sizes, caplog):
    sizes.failure = BackendError("out of memory")
    sizes.ask.set()
    assert WIDE in sizes.runtime.info.sizes
    sizes.runtime.step(wide_picture(), None)
    wait(lambda: sizes.runtime._others[WIDE].done(), "the failure")
    sizes.runtime.step(wide_picture(), None)
    assert sizes.first.steps == 2
    assert sizes.runtime.info.sizes == ((HEIGHT, WIDTH),)
    assert sizes.reported[-1] == ("no engine of 32 x 160: out of memory", 1.0)
    assert "no engine of 32 x 160: out of memory" in caplog.text


@pytest.mark.parametrize("builds", [False, True])
def test_an_engine_that_opens_after_the_end_is_closed_or_not_built(sizes, builds):
    sizes.builds = builds
    sizes.runtime.step(wide_picture(), None)
    opening = sizes.runtime._others[WIDE]
    sizes.runtime.close()
    assert sizes.first.closed
    with pytest.raises(RuntimeError, match="closed"):
        sizes.runtime.step(wide_picture(), None)
    sizes.ask.set()
    if builds:
        assert isinstance(opening.exception(TIMEOUT_S), BuildCancelled) and not sizes.opened
    else:
        engine = opening.result(TIMEOUT_S)
        wait(lambda: engine._session is None, "the engine to be closed")


def test_all_engines_are_closed(sizes):
    sizes.ask.set()
    sizes.runtime.step(wide_picture(), None)
    wait(lambda: sizes.runtime._others[WIDE].done(), "the second engine")
    sizes.runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        sizes.opened[0].step(wide_picture(), None)


def test_an_image_of_no_native_size_is_an_error_that_names_all(sizes):
    with pytest.raises(
        ValueError, match=r"\(64, 96, 3\) or \(32, 160, 3\), got uint8 \(32, 96, 3\)"
    ):
        sizes.runtime.step(np.zeros((32, 96, 3), np.uint8), None)


def test_a_program_that_waits_gets_the_engine_of_its_images_from_the_first_on(two_sizes):
    runtime = open_runtime(two_sizes, "onnxruntime-cpu", threads=1)
    predictor = VideoPredictor(runtime)
    frames = [predictor.step(np.full((90, 460, 3), 255, np.uint8), t * 10**8) for t in range(2)]
    assert frames[0].labels.shape == (90, 460)
    assert runtime.step(wide_picture(), None)[0].segment_map.shape == (WIDE[0] // 2, WIDE[1] // 2)
    only = open_runtime(two_sizes, "onnxruntime-cpu", threads=1, size=WIDE)
    assert only.info.sizes == (WIDE,)
    runtime.close()


@pytest.mark.parametrize("tracker", CORE_TRACKERS)
def test_ids_continue_when_the_engine_of_the_images_size_takes_over(sizes, tracker):
    predictor = VideoPredictor(sizes.runtime, tracker_settings(tracker))
    image = np.full((90, 460, 3), 255, np.uint8)
    frames = []
    for number in range(6):
        if number == 3:
            sizes.ask.set()
            wait(lambda: sizes.runtime._others[WIDE].done(), "the second engine")
        frames.append(predictor.step(image, number * 10**8))
    assert len(sizes.opened) == 1 and sizes.first.steps == 3
    ids = {frame.tracks[-1].track_id for frame in frames}
    assert len(ids) == 1 and ids != {0}
    assert [frame.epoch for frame in frames] == [0] * 6


@pytest.mark.parametrize("tracker", ["embedding", "iou", "mask_propagation"])
@pytest.mark.parametrize("failure", [BackendError("out of memory"), SystemExit("of a library")])
def test_ids_continue_when_the_engine_of_the_images_size_cannot_be_opened(sizes, tracker, failure):
    sizes.failure = failure
    predictor, ids = VideoPredictor(sizes.runtime, tracker_settings(tracker)), set()
    for number in range(4):
        if number == 2:
            sizes.ask.set()
            wait(lambda: sizes.runtime._others[WIDE].done(), "the failure")
        ids.add(predictor.step(wide_picture(), number * 10**8).tracks[-1].track_id)
    assert len(ids) == 1
    assert sizes.runtime.info.sizes == ((HEIGHT, WIDTH),)
