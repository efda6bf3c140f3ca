"""The exported graph says what the network says, frame after frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import small_network

from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_core.engine.export import FrameGraph, export_checkpoint, export_onnx
from video_knet_core.engine.onnx_runtime import OUTPUTS, OnnxRuntime
from video_knet_core.model.checkpoint import load_model, save_model, sha256

MODELS = Path(__file__).parents[2] / "models"
STEPS = 30
FLIPS = 1e-3
"""Share of pixels that may differ: the hard mask threshold flips single pixels between backends."""


@torch.no_grad()
def compare(graph: FrameGraph, runtime: OnnxRuntime, steps: int) -> float:
    """Largest share of differing map pixels over a recurrent run on the synthetic street."""
    info, slots = runtime.info, graph.model.config.kernels.things + 8
    kernels = torch.zeros(slots, graph.model.config.neck.channels)
    state, worst = None, 0.0
    street = SyntheticStreet(1001, info.height, info.width)
    for t in range(steps):
        image = street.frame(t).image
        segments, state = runtime.step(image, state)
        torch_map, classes, *_, kernels = graph(
            torch.from_numpy(image), kernels, torch.tensor([t > 0])
        )
        worst = max(worst, float((torch_map.numpy() != segments.map).mean()))
        seen = segments.areas > 0
        assert (classes.numpy()[seen] == segments.class_ids[seen]).all()
    return worst


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_model(small_network(), folder / "small.safetensors")
    export_checkpoint(folder / "small.safetensors", folder / "small.onnx")
    return folder / "small.onnx"


def test_a_fresh_export_agrees_with_torch(exported):
    graph = FrameGraph(load_model(exported.with_suffix(".safetensors")))
    assert compare(graph, OnnxRuntime(exported, threads=1), steps=5) <= FLIPS


def test_the_shipped_model_agrees_with_its_checkpoint():
    """30 recurrent steps: label maps differ in at most 0.1 % of the pixels of any frame."""
    torch.set_num_threads(2)
    graph = FrameGraph(load_model(MODELS / "street_lite0.safetensors"))
    assert compare(graph, OnnxRuntime(MODELS / "street_lite0.onnx"), STEPS) <= FLIPS


def test_metadata_name_classes_size_and_checkpoint(exported):
    properties = {p.key: p.value for p in onnx.load(exported).metadata_props}
    facts = json.loads(properties["video_knet"])
    assert facts["checkpoint_sha256"] == sha256(exported.with_suffix(".safetensors"))
    assert facts["name"] == "small"
    assert [c["name"] for c in facts["config"]["classes"]][-1] == "vehicle"
    assert OnnxRuntime(exported, threads=1).info.height == facts["config"]["height"] == 64


def test_the_shipped_model_was_exported_from_the_shipped_checkpoint():
    properties = {p.key: p.value for p in onnx.load(MODELS / "street_lite0.onnx").metadata_props}
    facts = json.loads(properties["video_knet"])
    assert facts["checkpoint_sha256"] == sha256(MODELS / "street_lite0.safetensors")


def test_the_graph_is_static_and_of_opset_18(exported):
    model = onnx.load(exported)
    assert {o.domain: o.version for o in model.opset_import}[""] == 18
    assert {o.name for o in model.graph.output} == set(OUTPUTS)
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim), value.name
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"NonZero", "ScatterND", "Loop", "If"}, operators


def test_the_file_names_no_folder_of_the_machine_that_wrote_it(exported):
    for path in (exported, MODELS / "street_lite0.onnx"):
        content = path.read_bytes()
        assert str(MODELS.parent).encode() not in content
        assert b"site-packages" not in content


def test_a_network_without_video_exports_with_the_same_face(tmp_path):
    network = small_network(fusion="none", linking="none", embedding=False)
    export_onnx(network, tmp_path / "image.onnx", "image")
    runtime = OnnxRuntime(tmp_path / "image.onnx", threads=1)
    image = np.full((64, 96, 3), 90, np.uint8)
    first, state = runtime.step(image, None)
    second, _ = runtime.step(image, state)
    assert (first.map == second.map).all()
    assert (first.embeddings == second.embeddings).all()
