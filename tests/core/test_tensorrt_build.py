"""TensorRT-RTX, the real library, builds every exported graph; it needs no GPU for that."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "config" / "models"
TARGETS = ("SM86", "SM89", "SM120")
GRAPHS = [
    *(("street_lite0", precision, "deploy") for precision in ("fp32", "fp16")),
    ("street_lite0", "fp32", "raw"),
    *(("kitti_step_r50", precision, "deploy") for precision in ("fp32", "fp16")),
    ("kitti_step_swin_b", "fp16", "deploy"),
]
"""Small versions that hold every operator of the full size. The other configurations are the
network of kitti_step_r50 with other classes; a float32 graph is its fp16 graph without casts.
`benchmarks/engine_builds.py` builds all of them at full size."""

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="tensorrt-rtx-cu13-libs has wheels for Linux on x86_64 alone",
)


@pytest.fixture(scope="module")
def trt():
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def parse(trt, path):
    """A builder, the network of a file in it, and the parser, which keeps its errors."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parser.parse_from_file(str(path))
    return builder, network, parser


def errors_of(parser):
    """Operator and reason of everything that the parser refused."""
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    return [(error.node_operator(), error.desc()) for error in errors]


@pytest.mark.parametrize("graph", GRAPHS, ids=" ".join)
def test_a_graph_builds_for_every_target_with_no_unsupported_operator(graph, exported, trt):
    builder, network, parser = parse(trt, exported(*graph))
    assert not errors_of(parser)
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(TARGETS)
    for i, target in enumerate(TARGETS):
        config.set_compute_capability(getattr(trt.ComputeCapability, target), i)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None and plan.nbytes > 100_000


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_sees_the_types_of_the_format(precision, exported, trt):
    from video_knet_core.engine.model_file import INPUTS, OUTPUTS

    _, network, _ = parse(trt, exported("street_lite0", precision))
    names = {"UINT8": "uint8", "FLOAT": "float", "BOOL": "bool", "INT64": "int64"}
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for tensors, wanted in ((inputs, INPUTS), (outputs, OUTPUTS)):
        found = {t.name: (f"tensor({names[t.dtype.name]})", len(t.shape)) for t in tensors}
        assert found == wanted


def test_the_parser_tells_an_operator_that_it_does_not_know(tmp_path, trt):
    """Or the tests above could not fail."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Unique", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(tmp_path / "unique.onnx"))
    _, _, parser = parse(trt, tmp_path / "unique.onnx")
    assert [operator for operator, _ in errors_of(parser)] == ["Unique"]


def test_every_configuration_is_one_of_the_graphs_or_of_the_same_network():
    import dataclasses

    from video_knet_core.config import ModelConfig, load_yaml

    def network(name):
        config = load_yaml(ModelConfig, CONFIGS / f"{name}.yaml")
        fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        return {k: v for k, v in fields.items() if k not in ("classes", "height", "width")}

    built = [network(name) for name in {graph[0] for graph in GRAPHS}]
    for path in CONFIGS.glob("*.yaml"):
        assert network(path.stem) in built, path.stem
