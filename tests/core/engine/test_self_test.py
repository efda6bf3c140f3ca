"""An engine that computes something else than the CPU is not used."""

from __future__ import annotations

import dataclasses
import logging
import sys
from types import ModuleType

import numpy as np
import onnx
import pytest
from tiny_onnx import HEIGHT, WIDE, WIDTH

from video_knet_core.engine import self_test
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.engine.self_test import FRAMES
from video_knet_core.types import NO_CLASS


class Engine(OnnxRuntime):
    """The CPU's, which spoils its results from frame `wrong` on."""

    opened: list[Engine] = []
    wrong: int | None = None

    def __init__(self, path, flavour="tensorrt", progress=None, size=None):
        super().__init__(path, size=size)
        self.name, self.steps, self.closed = flavour, 0, False
        self.opened.append(self)

    def step(self, image, state):
        segments, state = super().step(image, state)
        self.steps += 1
        if self.wrong is not None and self.steps > self.wrong:
            segments = self.spoil(segments)
        return segments, state

    def spoil(self, segments):
        return dataclasses.replace(segments, segment_map=np.zeros_like(segments.segment_map))

    def close(self):
        super().close()
        self.closed = True


@pytest.fixture
def engine(monkeypatch):
    """The class that TensorRT opens."""
    fake = ModuleType("video_knet_core.engine.tensorrt.runtime")
    fake.TensorRTRuntime = type("Fresh", (Engine,), {"opened": []})
    fake.open_model = lambda backend, path, _, *more: fake.TensorRTRuntime(path, backend, *more)
    fake.engine_is_cached = lambda path, backend, size: True
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return fake.TensorRTRuntime


def test_an_engine_that_agrees_is_taken(model, engine, caplog):
    with caplog.at_level(logging.DEBUG):
        runtime = open_runtime(model, "tensorrt")
    assert runtime is engine.opened[0] and not runtime.closed
    assert runtime.steps == FRAMES
    assert "tensorrt: 0.00 % of the pixels differ" in caplog.text


@pytest.mark.parametrize("wrong", [0, 1, FRAMES - 1])
def test_an_engine_that_is_wrong_is_closed_and_the_next_one_taken(model, engine, wrong, caplog):
    engine.wrong = wrong
    with caplog.at_level(logging.INFO):
        runtime = open_runtime(model)
    assert runtime.name not in ("tensorrt", "tensorrt-rtx")
    assert [e.closed for e in engine.opened] == [True, True]
    assert "not tensorrt: its results are not those of the CPU" in caplog.text


def test_a_wrong_engine_that_was_requested_is_rejected(model, engine):
    engine.wrong = 0
    engine.spoil = lambda _, s: dataclasses.replace(s, class_ids=s.class_ids + 1)
    with pytest.raises(BackendError, match=r"tensorrt: .* \d+% of the pixels .* at most 20%"):
        open_runtime(model, "tensorrt")


def test_each_native_size_is_tested(two_sizes, engine):
    runtime = open_runtime(two_sizes, "tensorrt")
    assert runtime.info.sizes == ((HEIGHT, WIDTH), WIDE)
    engine.wrong = 0
    with pytest.raises(BackendError, match="its results are not those of the CPU"):
        runtime.step(np.zeros((*WIDE, 3), np.uint8), None)
    assert [e.closed for e in engine.opened] == [False, True]


def test_the_same_segments_in_other_slots_do_not_count(model, engine):
    def turn(_, segments):
        slots = len(segments.class_ids)
        turned = np.where(segments.segment_map > 0, slots + 1 - segments.segment_map.astype(int), 0)
        return dataclasses.replace(
            segments, segment_map=turned.astype(np.uint8), class_ids=segments.class_ids[::-1]
        )

    engine.wrong, engine.spoil = 0, turn
    assert open_runtime(model, "tensorrt") is engine.opened[0]


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (BackendError("cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS"), "tensorrt: cuLaunchKernel"),
        (FloatingPointError("kernels are not finite"), "a step failed: kernels are not finite"),
        (RuntimeError("no kernel image"), "a step failed: no kernel image"),
        (MemoryError(), "a step failed: MemoryError"),
    ],
)
def test_a_step_that_fails_is_a_reason_too(model, engine, error, reported):
    def fail(_, segments):
        raise error

    engine.wrong, engine.spoil = FRAMES - 1, fail
    with pytest.raises(BackendError, match=reported):
        open_runtime(model, "tensorrt")
    assert engine.opened[0].closed


def test_slots_that_do_not_exist_are_a_reason_too(model, engine):
    engine.wrong = 0
    engine.spoil = lambda _, s: dataclasses.replace(s, segment_map=np.full_like(s.segment_map, 255))
    with pytest.raises(BackendError, match="a step failed: index"):
        open_runtime(model, "tensorrt")


def frame_of(covered, other=NO_CLASS):
    """[1, 100, 100] with class 1 on `covered` of the pixels, and class `other` on as many more."""
    flat = np.full(10_000, NO_CLASS)
    half = int(10_000 * covered)
    flat[:half], flat[half : 2 * half] = 1, other
    return flat.reshape(1, 100, 100)


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        (frame_of(0.1), frame_of(0.1), 0),
        (frame_of(0.0), frame_of(0.1), 1),  # an engine that finds nothing, and
        (frame_of(0.1), frame_of(0.1, 2), 0.5),  # one that misses a thing, in a large background
        (frame_of(0.0), frame_of(0.001), 0.05),
        (frame_of(0.0), frame_of(0.0), 0),
    ],
)
def test_the_difference_is_that_of_the_segments(found, expected, difference):
    assert self_test._difference(found, expected) == pytest.approx(difference)


def test_the_worst_frame_counts():
    right, wrong = frame_of(0.1), frame_of(0.1, 2)
    found, expected = np.concatenate([right] * 4), np.concatenate([right] * 3 + [wrong])
    assert self_test._difference(found, expected) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def shipped():
    path = default_model_path()
    runtime = OnnxRuntime(path)
    return path, runtime, self_test.synthetic_frames(runtime.info.height, runtime.info.width)


def test_the_shipped_model_segments_much_of_the_synthetic_frames(shipped):
    # an image without segments would agree with anything
    path, runtime, frames = shipped
    classes = self_test._classes(runtime, frames)
    assert len(np.unique(classes)) >= 6 and (classes == NO_CLASS).mean() < 0.2
    self_test.check_agreement(runtime, self_test.expected_classes(path, 1))


def test_a_resize_that_exchanges_channels_first_and_last_is_caught(shipped, tmp_path):
    """As ONNX Runtime's CUDA backend once computed the last resize of the shipped model."""
    path, _, _ = shipped
    model = onnx.load(str(path))
    nodes = model.graph.node
    index, resize = [(i, node) for i, node in enumerate(nodes) if node.op_type == "Resize"][-1]
    values = {value.name: value.type.tensor_type.shape for value in model.graph.value_info}
    shape = np.array([dim.dim_value for dim in values[resize.input[0]].dim])
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "first_shape"))
    last = onnx.helper.make_node("Transpose", [resize.input[0]], ["last"], perm=[0, 2, 3, 1])
    nodes.insert(index, onnx.helper.make_node("Reshape", ["last", "first_shape"], ["exchanged"]))
    nodes.insert(index, last)
    resize.input[0] = "exchanged"
    broken = tmp_path / "broken.onnx"
    onnx.save(model, str(broken))
    with pytest.raises(BackendError, match=r"9\d% of the pixels"):
        self_test.check_agreement(OnnxRuntime(broken), self_test.expected_classes(path, 1))


def test_synthetic_frames_are_the_same_each_time_and_move():
    first, again = (self_test.synthetic_frames(72, 96) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert {frame.shape for frame in first} == {(72, 96, 3)} and first[0].dtype == np.uint8
    assert (first[0] != first[1]).any()
