"""A checkpoint runs as it is, without an export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import small_network

from video_knet_core.engine.base import ModelError
from video_knet_core.engine.export import export_checkpoint
from video_knet_core.engine.selector import open_runtime
from video_knet_core.model.checkpoint import save_model
from video_knet_core.predictor import VideoPredictor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "small.safetensors"
    save_model(small_network(), path)
    return path


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(count)]


@pytest.mark.slow
def test_a_checkpoint_gives_what_its_export_gives(checkpoint):
    export_checkpoint(checkpoint, checkpoint.with_suffix(".onnx"))
    torch_runtime, onnx_runtime = (
        open_runtime(checkpoint),
        open_runtime(checkpoint.with_suffix(".onnx"), backend="onnxruntime-cpu"),
    )
    assert torch_runtime.name == "torch"
    assert torch_runtime.info == onnx_runtime.info, "the hash of the checkpoint, too"
    first, *rest = images(3)
    _, state = onnx_runtime.step(first, None)
    other = state
    for image in rest:
        ours, state = torch_runtime.step(image, state)
        theirs, other = onnx_runtime.step(image, other)
        assert (ours.segment_map != theirs.segment_map).mean() <= 1e-3
        np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=1e-3)
        np.testing.assert_allclose(ours.kernels, theirs.kernels, atol=1e-3)
        assert (ours.class_ids == theirs.class_ids).all()


def test_the_predictor_takes_it_as_any_engine(checkpoint):
    predictor = VideoPredictor(open_runtime(checkpoint))
    frame = predictor.step(np.zeros((48, 80, 3), np.uint8), 0)
    assert frame.labels.shape == (48, 80)


def test_kernels_that_are_not_finite_are_an_error(checkpoint):
    runtime = open_runtime(checkpoint)
    (image,) = images(1)
    _, state = runtime.step(image, None)
    with pytest.raises(FloatingPointError, match="small returned kernels that are not finite"):
        runtime.step(image, state * float("nan"))


def test_a_wrong_image_a_missing_file_and_the_wrong_backend_are_named(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"image: expected uint8 \(64, 96, 3\), got uint8 \(3, 3"):
        open_runtime(checkpoint).step(np.zeros((3, 3, 3), np.uint8), None)
    with pytest.raises(ModelError, match="no checkpoint"):
        open_runtime(tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match="small.safetensors: not an ONNX model"):
        open_runtime(checkpoint, backend="onnxruntime-cpu")


def test_one_of_several_native_sizes_can_be_run_alone(tmp_path):
    network = small_network()
    network.config = replace(network.config, more_sizes=((64, 192),))
    save_model(network, path := tmp_path / "two.safetensors")
    assert open_runtime(path).info.sizes == ((64, 96), (64, 192))
    wide = open_runtime(path, size=(64, 192))
    assert wide.info.sizes == ((64, 192),) and (wide.info.height, wide.info.width) == (64, 192)
    with pytest.raises(ValueError, match="64"):
        wide.step(images(1)[0], None)
    with pytest.raises(ModelError, match=r"size: expected one of .*, got \(32, 32\)"):
        open_runtime(path, size=(32, 32))


def test_closing_twice_is_harmless_and_a_step_after_it_raises(checkpoint):
    runtime = open_runtime(checkpoint)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime.step(np.zeros((runtime.info.height, runtime.info.width, 3), np.uint8), None)
