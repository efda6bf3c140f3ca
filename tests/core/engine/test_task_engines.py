"""Every engine computes for every task what torch does, on consecutive frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from synthetic_street import SyntheticStreet
from video_knet_core.engine.model_file import INPUTS, ModelFile, outputs_of
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime

pytestmark = pytest.mark.slow

FLIPS = 1e-3
"""Fraction of pixels that may differ: the hard mask threshold flips single ones."""
MODELS = {
    "semantic": ("street_pspnet_lite0", {}),
    "plain decoder": ("street_deeplabv3plus_lite0", {"plain": True}),
    "instance": ("street_instances_lite0", {}),
}
"""The plain decoder looks at no previous frame."""


@pytest.fixture(params=MODELS)
def model(request, exported):
    name, options = MODELS[request.param]
    return exported(name, **options)


def checkpoint_of(path):
    return path.with_name(path.name.removesuffix("_fp32_deploy.onnx") + ".safetensors")


def frames(info, count):
    street = SyntheticStreet(1001, info.height, info.width)
    return [street.frame(t).image for t in range(count)]


def assert_similar(found, expected):
    """The same but for single pixels."""
    assert (found.segment_map != expected.segment_map).mean() <= FLIPS
    assert np.abs(found.areas - expected.areas).max() <= FLIPS * expected.segment_map.size
    seen = expected.areas > 0
    np.testing.assert_array_equal(found.class_ids[seen], expected.class_ids[seen])
    for name in ("scores", "kernels", "embeddings"):
        assert_close(getattr(found, name), getattr(expected, name))
    if expected.masks is not None:
        assert (found.masks != expected.masks).mean() <= FLIPS


def assert_close(found, expected):
    """Where a pixel of a mask has flipped, its kernel and what comes of that move a little."""
    error = np.abs(found - expected)
    assert (error > 1e-3).sum() <= 0.1 * error.size
    assert error.max(initial=0) <= 2e-2


def test_an_engine_computes_what_torch_computes_frame_after_frame(open_engine, model):
    """Each with the state that it made itself."""
    runtime = open_engine(model)
    reference = TorchRuntime.open(checkpoint_of(model), threads=1)
    assert runtime.info.task == reference.info.task != "panoptic"
    state = reference_state = None
    for image in frames(runtime.info, 3):
        found, state = runtime.step(image, state)
        expected, reference_state = reference.step(image, reference_state)
        assert_similar(found, expected)
        for name in (
            "segment_map",
            "class_ids",
            "scores",
            "areas",
            "embeddings",
            "kernels",
            "masks",
        ):
            one, other = getattr(found, name), getattr(expected, name)
            assert (one is None) == (other is None), name
            assert one is None or (one.dtype, one.shape) == (other.dtype, other.shape), name
    runtime.close()


def test_the_models_of_these_tests_distinguish_pixels(model):
    """Or the test above would show little."""
    runtime = OnnxRuntime(model, threads=1)
    first, state = runtime.step(frames(runtime.info, 2)[0], None)
    second, _ = runtime.step(frames(runtime.info, 2)[1], state)
    assert (first.areas > 0).sum() >= 3
    assert 0 < (second.areas > 0).sum() < len(second.areas)
    if first.masks is not None:
        assert first.masks.sum() > (first.segment_map > 0).sum()  # they overlap


@pytest.mark.parametrize("name", ["semantic", "instance"])
def test_the_state_changes_what_is_seen_next(name, exported):
    runtime = OnnxRuntime(exported(MODELS[name][0]), threads=1)
    images = frames(runtime.info, 2)
    _, state = runtime.step(images[0], None)
    with_state, without = (runtime.step(images[1], given)[0] for given in (state, None))
    assert (with_state.segment_map != without.segment_map).mean() > 0.01


def test_a_plain_decoder_takes_a_state_and_does_not_look_at_it(exported):
    name, options = MODELS["plain decoder"]
    runtime = OnnxRuntime(exported(name, **options), threads=1)
    (image,) = frames(runtime.info, 1)
    first, state = runtime.step(image, None)
    second, _ = runtime.step(image, state)
    np.testing.assert_array_equal(first.segment_map, second.segment_map)


def test_the_file_has_the_tensors_of_its_task(model):
    file = ModelFile.read(model, form="deploy")
    graph = onnx.load(model).graph
    assert {node.name for node in graph.input} == set(INPUTS)
    outputs = [node.name for node in graph.output]
    assert outputs == list(outputs_of("deploy", file.config)) == list(file.outputs)
    operators = {node.op_type for node in graph.node}
    assert not operators & {"NonZero", "ScatterND", "ScatterElements", "Loop", "If"}, operators
