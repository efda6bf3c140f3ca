"""What holds for every engine of exported models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from recurrent_onnx import WHITE, write_recurrent_model
from tiny_onnx import CHANNELS, HEIGHT, SLOTS, WIDE, WIDTH, metadata, write_model

from synthetic_street import SyntheticStreet
from video_knet_core.engine.base import BackendError, ModelError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.openvino_runtime import OpenVINORuntime
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.types import NO_CLASS

OUTPUTS = ("segment_map", "class_ids", "scores", "areas", "embeddings", "kernels")
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="needs the extra `openvino`")


@pytest.fixture
def engine(open_engine, model):
    engine = open_engine(model)
    yield engine
    engine.close()


def image(red=0):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = red
    return picture


def test_the_model_has_its_name_size_and_classes(engine):
    assert (engine.info.name, engine.info.height, engine.info.width) == ("tiny", HEIGHT, WIDTH)
    assert [c.name for c in engine.info.classes] == ["road", "vehicle"]


def test_a_step_gives_the_segments_of_the_file(engine, model):
    segments, state = engine.step(image(red=255), None)
    half = HEIGHT // 4
    assert (segments.segment_map[:half] == 1).all() and (segments.segment_map[half:] == 2).all()
    assert segments.areas.tolist() == [half * WIDTH // 2, half * WIDTH // 2, 0]
    assert segments.class_ids.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(segments.kernels, state)
    expected, _ = OnnxRuntime(model).step(image(red=255), None)
    for name in OUTPUTS:
        ours, theirs = getattr(segments, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), WIDE])
def test_each_native_size_of_a_file_is_run(open_engine, two_sizes, size):
    engine = open_engine(two_sizes, size=size)
    segments, state = engine.step(np.full((*size, 3), 255, np.uint8), None)
    height, width = size
    assert segments.segment_map.shape == (height // 2, width // 2)
    assert segments.areas.tolist() == [height * width // 8, height * width // 8, 0]
    assert engine.step(np.zeros((*size, 3), np.uint8), state)[1][0, 0] == 2
    engine.close()


def test_an_image_that_is_not_contiguous(engine):
    picture = image()
    picture[:, : WIDTH // 2, 0] = 255
    mirrored, expected = picture[:, ::-1], picture[:, ::-1].copy()
    np.testing.assert_array_equal(
        engine.step(mirrored, None)[0].segment_map, engine.step(expected, None)[0].segment_map
    )


def test_the_state_goes_out_and_comes_back_in(engine):
    state, counts = None, []
    for _ in range(3):
        _, state = engine.step(image(), state)
        counts.append(float(state[0, 0]))
    _, fresh = engine.step(image(), None)
    assert counts == [1, 2, 3] and fresh[0, 0] == 1


def test_another_engine_continues_from_its_state(engine, model):
    other = OnnxRuntime(model)
    _, state = other.step(image(), engine.step(image(), None)[1])
    assert engine.step(image(), state)[1][0, 0] == 3


def test_a_result_is_not_overwritten_by_the_next_step(engine):
    first, state = engine.step(image(red=255), None)
    kept = first.segment_map.copy()
    engine.step(image(red=0), state)
    np.testing.assert_array_equal(first.segment_map, kept)
    assert state[0, 0] == 1


@pytest.mark.parametrize(
    "bad", [np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.float32)]
)
def test_another_image_is_rejected(engine, bad):
    with pytest.raises(ValueError, match=rf"uint8 \({HEIGHT}, {WIDTH}, 3\), got {bad.dtype}"):
        engine.step(bad, None)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (np.zeros((SLOTS, CHANNELS)), "float64"),
        (np.zeros((SLOTS, 1), np.float32), r"\(3, 1\)"),
        ("kernels", "str"),
    ],
)
def test_what_is_no_state_is_rejected(engine, state, found):
    with pytest.raises(ValueError, match=rf"float32 \({SLOTS}, {CHANNELS}\), got .*{found}"):
        engine.step(image(), state)


def test_kernels_that_are_not_finite_leave_the_state(open_engine, tmp_path):
    path = write_recurrent_model(tmp_path / "nan.onnx", nan_at_white=True)
    engine, reference = open_engine(path), open_engine(path)
    state = expected = None
    for red in (50, 100, 150):
        with pytest.raises(FloatingPointError, match="recurrent returned kernels"):
            engine.step(WHITE, state)
        _, state = engine.step(image(red), state)
        _, expected = reference.step(image(red), expected)
        np.testing.assert_array_equal(state, expected)
    engine.close()
    reference.close()


def test_a_missing_or_foreign_file(open_engine, tmp_path):
    with pytest.raises(ModelError, match=r"no model file .*none\.onnx"):
        open_engine(tmp_path / "none.onnx")
    path = write_model(tmp_path / "raw.onnx", json.dumps(metadata(form="raw")))
    with pytest.raises(ModelError, match=r"raw\.onnx: expected the outputs .*class_logits"):
        open_engine(path)


def test_closing_twice_is_harmless_and_a_step_after_it_raises(engine):
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.step(image(), None)


def test_the_shipped_model_runs_on_the_oldest_runtime_that_is_allowed():
    """In `make test-lowest`; here on the one that is installed."""
    runtime = OnnxRuntime(default_model_path(), threads=1)
    image = np.full((runtime.info.height, runtime.info.width, 3), 90, np.uint8)
    segments, _ = runtime.step(image, None)
    assert segments.segment_map.shape[0] >= runtime.info.height // 2 and len(segments.class_ids)
    runtime.close()


@needs_openvino
@pytest.mark.slow
def test_openvino_agrees_with_onnx_runtime_frame_after_frame():
    """20 recurrent steps of the shipped model, each engine with the state that it made itself.

    Of two seeds that find the same few cells either may go to the slot of the object, and the other
    one then follows it. So slots are compared after a step from one state, small ones by the map.
    """
    ours, reference = OpenVINORuntime(default_model_path()), OnnxRuntime(default_model_path())
    street = SyntheticStreet(1001, ours.info.height, ours.info.width)

    def classes(detections):
        return np.append(NO_CLASS, detections.class_ids)[detections.segment_map]

    state = expected_state = None
    for t in range(20):
        picture = street.frame(t).image
        segments, state = ours.step(picture, state)
        one_step, next_state = ours.step(picture, expected_state)
        expected, expected_state = reference.step(picture, expected_state)
        # the hard mask threshold flips single pixels
        assert (classes(segments) != classes(expected)).mean() <= 1e-3
        assert (one_step.segment_map != expected.segment_map).mean() <= 1e-3
        seen = expected.areas > 100
        assert seen.sum() >= 8
        assert (one_step.class_ids[seen] == expected.class_ids[seen]).all()
        np.testing.assert_allclose(one_step.scores[seen], expected.scores[seen], atol=1e-3)
        np.testing.assert_allclose(next_state[seen], expected_state[seen], atol=1e-2)


@needs_openvino
def test_a_signal_is_handled_after_two_openvino_engines_were_closed_in_the_order_of_opening(model):
    """OpenVINO changes the stack on which a thread handles signals."""
    code = (
        "import signal, sys\n"
        "from video_knet_core.engine.openvino_runtime import OpenVINORuntime\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "first, second = OpenVINORuntime(sys.argv[1]), OpenVINORuntime(sys.argv[1])\n"
        "first.close(), second.close()\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
    )
    command = [sys.executable, "-c", code, str(model)]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"handled\n"


@needs_openvino
def test_bfloat16_runs_on_a_cpu_that_has_it(model, monkeypatch):
    import openvino

    # on one that has not, OpenVINO computes in float32
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    runtime = open_runtime(model, "openvino-bf16", threads=1)
    assert runtime.name == "openvino-bf16"
    segments, _ = runtime.step(np.zeros((HEIGHT, WIDTH, 3), np.uint8), None)
    assert len(segments.class_ids) == SLOTS


@needs_openvino
def test_bfloat16_is_rejected_by_a_cpu_without_it(model, monkeypatch):
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendError, match="openvino-bf16: .* BF16, got .*FP32"):
        open_runtime(model, "openvino-bf16", threads=1)


def test_without_openvino_the_error_names_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"video_knet_ros\[openvino\]"):
        OpenVINORuntime(model)


@pytest.mark.parametrize(
    "backend", ["onnxruntime-cpu", pytest.param("openvino", marks=needs_openvino)]
)
def test_opening_a_model_uses_no_network_and_leaves_nothing_in_the_home_folder(
    model, tmp_path, backend
):
    """Both libraries by themselves write an identifier there and send usage events."""
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): sys.exit('the network was used')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from video_knet_core.engine.selector import open_runtime\n"
        f"open_runtime({str(model)!r}, {backend!r})\n"
        "loaded = [n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m]\n"
        "assert not loaded, loaded\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())
