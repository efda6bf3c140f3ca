""" "auto" measures the engines that work, takes the fastest and caches what it measured."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from video_knet_core.engine import selector, speed
from video_knet_core.engine.base import BackendError, ModelError
from video_knet_core.engine.hot_swap import HotSwapRuntime
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import Backend, open_runtime

FACTS = {"date": "today", "cpu": "a CPU", "cores": 2, "gpu": [], "versions": {"openvino": "1"}}


class Machine:
    """Backends on a clock that only their steps move; they compute what the CPU does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.facts = FACTS
        self.ms: dict[str, float] = {}
        """Time of a step by the name of each backend, the order of preference."""
        self.failing: dict[str, Exception] = {}
        self.wrong: dict[str, float] = {}
        """Fraction of the pixels that are lost."""
        self.engines: list[Engine] = []

    def set(self, gpu: tuple[str, ...] = (), bfloat16: tuple[str, ...] = (), **ms: float) -> None:
        self.ms = ms
        selector.BACKENDS.clear()
        for name in ms:
            selector.BACKENDS[name] = Backend(
                "fake_engines",
                "",
                on_gpu=name in gpu,
                bfloat16=name in bfloat16,
                builds=name == "built",
            )

    def open_model(self, name, path, threads, progress, size):
        if name in self.failing:
            raise self.failing[name]
        self.engines.append(Engine(self, name, path))
        return self.engines[-1]

    @property
    def opened(self) -> list[str]:
        return [engine.name for engine in self.engines]

    @property
    def open_now(self) -> list[str]:
        return [engine.name for engine in self.engines if not engine.closed]


class Engine(OnnxRuntime):
    def __init__(self, machine: Machine, name: str, path) -> None:
        super().__init__(path, threads=1)
        self.name, self.machine, self.steps, self.closed = name, machine, 0, False

    def step(self, image, state):
        segments, state = super().step(image, state)
        self.steps += 1
        self.machine.now += self.machine.ms[self.name] / 1e3
        if wrong := self.machine.wrong.get(self.name):
            lost = np.array(segments.segment_map)
            lost[: round(wrong * len(lost))] = 0
            segments = dataclasses.replace(segments, segment_map=lost)
        return segments, state

    def close(self):
        super().close()
        self.closed = True


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    fake = ModuleType("fake_engines")
    fake.open_model = machine.open_model
    fake.engine_is_cached = lambda path, backend, size: False
    monkeypatch.setitem(sys.modules, "fake_engines", fake)
    monkeypatch.setattr(selector, "BACKENDS", {})
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(speed, "machine_facts", lambda: dict(machine.facts))
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    return machine


def times_file(tmp_path):
    (path,) = (tmp_path / "cache").glob("*.json")
    return path


# --- the choice


def test_the_fastest_is_taken_and_the_others_are_closed(model, machine, caplog):
    machine.set(first=30, second=10, third=20)
    with caplog.at_level(logging.INFO):
        assert open_runtime(model).name == "second"
    assert machine.opened == ["first", "second", "third"] and machine.open_now == ["second"]
    assert "second (first 30.0 ms, second 10.0 ms, third 20.0 ms)" in caplog.text


@pytest.mark.parametrize(("ms", "expected"), [(9.5, "first"), (8.5, "second")])
def test_a_later_one_has_to_be_clearly_faster(model, machine, ms, expected):
    machine.set(first=10, second=ms)
    assert open_runtime(model).name == expected


def test_one_that_is_fast_and_wrong_is_not_taken(model, machine, caplog):
    machine.set(right=30, wrong=1)
    machine.wrong = {"wrong": 0.9}
    with caplog.at_level(logging.INFO):
        assert open_runtime(model).name == "right"
    assert machine.open_now == ["right"]
    assert "not wrong: its results are not those of the CPU" in caplog.text


@pytest.mark.parametrize(("wrong", "expected"), [(0, "half"), (0.1, "full")])
def test_lower_precision_is_taken_only_for_the_same_segments(model, machine, wrong, expected):
    machine.set(bfloat16=("half",), full=30, half=10)
    machine.wrong = {"half": wrong}
    assert open_runtime(model).name == expected
    assert open_runtime(model, "half").name == "half"


def test_if_only_one_works_nothing_is_measured(model, machine, tmp_path):
    machine.set(absent=1, works=5)
    machine.failing["absent"] = BackendError("no driver")
    assert open_runtime(model).name == "works"
    assert not (tmp_path / "cache").exists()


def test_one_that_is_much_slower_is_not_measured_for_long(model, machine):
    machine.set(slow=40, fast=10)
    open_runtime(model)
    slow, fast = (engine.steps for engine in machine.engines)
    assert fast - slow == speed._ROUNDS - 2


def test_slow_engines_are_measured_by_a_few_steps(model, machine):
    machine.set(slow=4000, faster=3000)
    assert open_runtime(model).name == "faster"
    assert {engine.steps for engine in machine.engines} == {4 + 3}  # after the self-test's


def test_one_whose_step_fails_is_not_taken(model, machine, monkeypatch):
    machine.set(good=30, lost=10)
    measure = speed.measure

    def lose(engines):
        OnnxRuntime.close(engines["lost"])
        return measure(engines)

    monkeypatch.setattr(speed, "measure", lose)
    assert open_runtime(model).name == "good"


def test_all_are_closed_if_the_file_is_at_fault(model, machine):
    machine.set(first=30, second=10)
    machine.failing["second"] = ModelError("cannot be loaded")
    with pytest.raises(ModelError):
        open_runtime(model)
    assert machine.opened == ["first"] and machine.open_now == []


# --- the cache


def test_the_choice_is_cached(model, machine, tmp_path, caplog):
    machine.set(first=30, second=10)
    open_runtime(model)
    stored = json.loads(times_file(tmp_path).read_text())
    assert stored["milliseconds"] == pytest.approx({"first": 30, "second": 10})
    assert stored["versions"] == {"openvino": "1"}
    machine.ms = {"first": 1, "second": 10}
    machine.engines.clear()
    machine.facts = machine.facts | {"date": "tomorrow"}
    with caplog.at_level(logging.INFO):
        assert open_runtime(model).name == "second"
    assert machine.opened == ["second"] and machine.engines[0].steps == 4  # the self-test
    assert "second (cached choice: first 30.0 ms, second 10.0 ms)" in caplog.text


@pytest.mark.parametrize("changed", ["version", "cores", "threads", "model", "backends"])
def test_it_is_measured_again_when_something_changes(model, machine, tmp_path, changed):
    machine.set(first=30, second=10)
    open_runtime(model)
    ms, threads = {"first": 1, "second": 10}, 2
    if changed == "version":
        machine.facts = FACTS | {"versions": {"openvino": "2"}}
    elif changed == "cores":
        machine.facts = FACTS | {"cores": 4}
    elif changed == "threads":
        threads = 1
    elif changed == "model":
        other = tmp_path / "other.onnx"
        other.write_bytes(model.read_bytes() + b"\x2a\x00")  # a field that is not read
        model = other
    else:
        ms["third"] = 20
    machine.set(**ms)
    assert open_runtime(model, threads=threads).name == "first"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"milliseconds": {}}', b'{"milliseconds": {"tpu": 1}}', b"\xff"]
)
def test_a_broken_file_is_measured_again(model, machine, tmp_path, caplog, content):
    machine.set(first=30, second=10)
    open_runtime(model)
    times_file(tmp_path).write_bytes(content)
    machine.ms = {"first": 1, "second": 10}
    assert open_runtime(model).name == "first"
    assert "cannot be used" in caplog.text
    assert "first" in times_file(tmp_path).read_text()


def test_a_file_that_others_can_write_is_not_read(model, machine, tmp_path, caplog):
    machine.set(first=30, second=10)
    open_runtime(model)
    os.chmod(times_file(tmp_path), 0o666)
    machine.ms = {"first": 1, "second": 10}
    assert open_runtime(model).name == "first"
    assert "is not trusted" in caplog.text


def test_without_a_cache_it_is_measured_each_time(model, machine, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "file" / "cache"))
    machine.set(first=30, second=10)
    assert open_runtime(model).name == "second"
    assert "cannot be cached" in caplog.text


def test_what_another_process_has_measured_meanwhile_counts(model, machine, monkeypatch):
    machine.set(first=10, second=30)
    measure = speed.measure

    def measure_beside_another(engines):
        speed.MeasuredTimes(model, 2, ["first", "second"]).write({"first": 30.0, "second": 10.0})
        return measure(engines)

    monkeypatch.setattr(speed, "measure", measure_beside_another)
    assert open_runtime(model).name == "second"
    assert open_runtime(model).name == "second"


def test_if_the_cached_choice_fails_the_others_are_measured(model, machine):
    machine.set(first=30, second=10, third=20)
    open_runtime(model)
    machine.failing["second"] = BackendError("no memory")
    assert open_runtime(model).name == "third"
    machine.failing.clear()
    assert open_runtime(model).name == "second"


def test_a_gpu_that_did_not_work_is_tried_again(model, machine):
    machine.set(gpu=("fast_gpu",), fast_gpu=1, first=30, second=10)
    machine.failing["fast_gpu"] = BackendError("CUDA_ERROR_OUT_OF_MEMORY")
    assert open_runtime(model).name == "second"
    machine.failing.clear()
    assert open_runtime(model).name == "fast_gpu"
    machine.engines.clear()
    assert open_runtime(model).name == "fast_gpu" and machine.opened == ["fast_gpu"]


# --- engines that must be built


def test_the_fastest_serves_until_an_engine_is_built(model, machine):
    machine.set(built=1, first=30, second=10)
    for _ in range(2):  # measured, and cached
        runtime = open_runtime(model, background=True)
        assert isinstance(runtime, HotSwapRuntime) and runtime.name == "second"
        runtime._built.result(60)
        image = np.zeros((runtime.info.height, runtime.info.width, 3), np.uint8)
        runtime.step(image, None)
        assert runtime.name == "built"
        runtime.close()


def test_in_the_foreground_it_is_built_and_measured(model, machine):
    machine.set(built=20, first=30, second=10)
    assert open_runtime(model).name == "second"
    assert machine.opened[0] == "built"
