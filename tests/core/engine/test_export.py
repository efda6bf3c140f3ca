"""The exported graph computes what the network does, frame after frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import small_network

from synthetic_street import SyntheticStreet
from video_knet_core.engine.base import ModelError
from video_knet_core.engine.export import export_checkpoint, export_onnx
from video_knet_core.engine.model_file import FORMS, ModelFile, outputs_of
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import default_model_path
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.checkpoint import CheckpointError, load_model, sha256
from video_knet_core.model.precision import with_half_maps
from video_knet_core.types import NO_CLASS

MODELS = Path(__file__).parents[3] / "models"
STEPS = 30
FLIPS = 1e-3
"""Fraction of pixels that may differ: the hard mask threshold flips single ones."""


def compare(network, runtime: OnnxRuntime, steps: int) -> float:
    """Largest fraction of differing map pixels over a recurrent run on the synthetic street.

    Slots may have another order: seeds that are nearly as hot change places.
    """
    reference, info = TorchRuntime(network), runtime.info
    state = expected_state = None
    worst = 0.0
    street = SyntheticStreet(1001, info.height, info.width)
    for t in range(steps):
        image = street.frame(t).image
        segments, state = runtime.step(image, state)
        expected, expected_state = reference.step(image, expected_state)
        maps = [s.segment_map.astype(np.int64) for s in (expected, segments)]
        same = np.zeros((256, 256), np.int64)
        np.add.at(same, tuple(maps), 1)
        kept = min(same.max(axis).sum() for axis in (0, 1))  # none is split, none joined
        worst = max(worst, 1 - kept / maps[0].size)
        classes = [
            np.append(NO_CLASS, s.class_ids)[labels]
            for s, labels in zip((expected, segments), maps, strict=True)
        ]
        worst = max(worst, float((classes[0] != classes[1]).mean()))
    return worst


@pytest.fixture(scope="module")
def model(exported) -> Path:
    return exported("street_lite0")


def checkpoint_of(path: Path) -> Path:
    return path.with_name("street_lite0.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("shipped", [False, True])
def test_maps_are_resized_along_their_last_two_axes(model, shipped):
    """ONNX Runtime's CUDA backend takes any others without an error, and computes nonsense."""
    path = default_model_path() if shipped else model
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    assert resizes
    for node in resizes:
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        assert len(before) == 4 and before[:2] == after[:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["street_lite0", "street_instances_lite0", "street_pspnet_lite0"])
def test_no_place_of_a_maximum_is_searched_in_every_pixel(name, exported):
    """OpenVINO takes ten times as long for it as for the maximum."""
    path = exported(name)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    config = ModelFile.read(path).config
    for value in graph.value_info:
        if any(value.name in node.output for node in graph.node if node.op_type == "ArgMax"):
            size = np.prod([axis.dim_value for axis in value.type.tensor_type.shape.dim])
            assert size <= config.slots, value.name


@pytest.mark.slow
def test_a_fresh_export_agrees_with_torch(model):
    network = load_model(checkpoint_of(model))
    assert compare(network, OnnxRuntime(model, threads=1), steps=5) <= FLIPS


@pytest.mark.slow
def test_a_half_precision_export_agrees_with_torch_in_half_precision(exported):
    """Convolutions of the two round at other places, so more pixels are on an edge."""
    path = exported("street_lite0", "fp16")
    network = with_half_maps(load_model(checkpoint_of(path)))
    assert compare(network, OnnxRuntime(path, threads=1), steps=5) <= 10 * FLIPS


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "street_lite0",
        "street",
        "street_pspnet_lite0",
        "street_instances_lite0",
    ],
)
def test_the_raw_form_is_what_the_network_returns(name, exported):
    """On a second frame, to a thousandth of the largest number."""
    path = exported(name, "fp32", "raw")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network = load_model(path.with_name(f"{name}.safetensors"))
    config = network.config
    images = [SyntheticStreet(1001, config.height, config.width).frame(t).image for t in (0, 1)]
    first, second = (torch.from_numpy(i).float().permute(2, 0, 1)[None] for i in images)
    _, state = network(first)
    prediction, after = network(second, state)
    names = list(outputs_of("raw", config))
    inputs = {
        "image": images[1],
        "previous_kernels": state.kernels[0].numpy(),
        "has_previous": np.array([True]),
    }
    for name, array in zip(names, session.run(names, inputs), strict=True):
        expected = getattr(after if name == "kernels" else prediction, name)[0]
        assert array.dtype == np.float32, name
        error = np.abs(array - expected.numpy()).max()
        assert error <= 1e-3 * float(expected.abs().max()), name


@pytest.mark.slow
def test_a_runtime_rejects_the_raw_form_and_names_the_remedy(exported):
    with pytest.raises(ModelError, match=r"raw form, .*without --raw: video-knet export"):
        OnnxRuntime(exported("street_lite0", "fp32", "raw"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "form"), [("fp32", "deploy"), ("fp16", "deploy"), ("fp32", "raw")]
)
def test_a_model_file_describes_itself(precision, form, exported):
    path = exported("street_lite0", precision, form)
    file = ModelFile.read(path)
    assert (file.path, file.name) == (path, path.stem)
    assert (file.precision, file.form) == (precision, form)
    assert file.checkpoint_sha256 == sha256(checkpoint_of(path))
    assert file.config == load_model(checkpoint_of(path)).config
    assert file.state_shape == (18, 32)
    assert (file.info.name, file.info.height, file.info.width) == (path.stem, 75, 122)


@pytest.mark.parametrize("choice", [{"precision": "int8"}, {"form": "cooked"}])
def test_an_export_of_another_precision_or_form_is_an_error(choice, tmp_path):
    with pytest.raises(ValueError, match=r"expected one of .* got '(int8|cooked)'"):
        export_onnx(small_network(), tmp_path / "m.onnx", "m", **choice)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint .*none.safetensors"):
        export_checkpoint(tmp_path / "none.safetensors", tmp_path / "m.onnx")


@pytest.mark.slow
def test_the_shipped_model_agrees_with_its_checkpoint():
    """30 recurrent steps: label maps differ in at most 0.1 % of the pixels of any frame."""
    network = load_model(default_model_path().with_suffix(".safetensors"))
    assert compare(network, OnnxRuntime(default_model_path()), STEPS) <= FLIPS


@pytest.mark.slow
def test_metadata_classes_size_thresholds_preprocessing_and_checkpoint(model):
    properties = {p.key: p.value for p in onnx.load(model).metadata_props}
    facts = json.loads(properties["video_knet"])
    assert facts["checkpoint_sha256"] == sha256(checkpoint_of(model))
    assert (facts["precision"], facts["form"]) == ("fp32", "deploy")
    assert facts["preprocessing"] == {"layout": "HWC uint8 RGB", "normalised": "inside the graph"}
    assert [c["name"] for c in facts["config"]["classes"]][-1] == "vehicle"
    assert (facts["config"]["height"], facts["config"]["width"]) == (75, 122)
    assert facts["config"]["panoptic"]["score_threshold"] == 0.3


def test_the_shipped_model_was_exported_from_the_shipped_checkpoint():
    properties = {p.key: p.value for p in onnx.load(default_model_path()).metadata_props}
    facts = json.loads(properties["video_knet"])
    assert facts["checkpoint_sha256"] == sha256(default_model_path().with_suffix(".safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("form", list(FORMS))
def test_the_graph_is_static_and_of_opset_18(form, exported):
    path = exported("street_lite0", "fp32", form)
    model = onnx.load(path)
    assert {o.domain: o.version for o in model.opset_import}[""] == 18
    assert {o.name for o in model.graph.output} == set(ModelFile.read(path).outputs)
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim), value.name
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"NonZero", "ScatterND", "Loop", "If"}, operators


@pytest.mark.slow
def test_a_file_of_two_native_sizes_has_the_graph_of_each_and_the_weights_once(tmp_path):
    """The graphs are those of files of one size, tensor by tensor."""
    network, sizes = small_network(), ((64, 96), (32, 128))
    config = network.config
    network.config = replace(config, more_sizes=sizes[1:])
    export_onnx(network, tmp_path / "both.onnx", "both")
    alone = []
    for height, width in sizes:
        network.config = replace(config, height=height, width=width)
        alone.append(tmp_path / f"{height}.onnx")
        export_onnx(network, alone[-1], "alone")
    assert onnx.load(tmp_path / "both.onnx").graph == onnx.load(alone[0]).graph
    further = ModelFile.read(tmp_path / "both.onnx", size=sizes[1])
    assert onnx.load_from_string(further.content).graph == onnx.load(alone[1]).graph
    assert (tmp_path / "both.onnx").stat().st_size < 1.1 * alone[0].stat().st_size


@pytest.mark.slow
def test_the_file_names_no_folder_of_the_machine_that_wrote_it(model):
    for path in (model, default_model_path()):
        content = path.read_bytes()
        assert str(MODELS.parent).encode() not in content
        assert b"site-packages" not in content


@pytest.mark.slow
def test_a_network_without_video_exports_with_the_same_interface(tmp_path):
    network = small_network(fusion="none", linking="none", embedding=False)
    export_onnx(network, tmp_path / "image.onnx", "image")
    runtime = OnnxRuntime(tmp_path / "image.onnx", threads=1)
    image = np.full((64, 96, 3), 90, np.uint8)
    first, state = runtime.step(image, None)
    second, _ = runtime.step(image, state)
    assert (first.segment_map == second.segment_map).all()
    assert (first.embeddings == second.embeddings).all()
