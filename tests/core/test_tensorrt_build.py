"""TensorRT-RTX, the real library, builds every exported graph; it needs no GPU for that."""

from __future__ import annotations

import dataclasses
import platform
import sys
from pathlib import Path

import pytest

from video_knet_core.config import ModelConfig, load_yaml
from video_knet_core.engine.model_file import INPUTS, ModelFile, outputs_of
from video_knet_core.engine.tensorrt_build import build_plan

CONFIGS = Path(__file__).parents[2] / "config" / "models"
TARGETS = ("sm86", "sm89", "sm120")
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


@pytest.mark.parametrize("graph", GRAPHS, ids=" ".join)
def test_a_graph_builds_for_every_target_with_no_unsupported_operator(graph, exported):
    plan = build_plan(ModelFile.read(exported(*graph)), "tensorrt-rtx", TARGETS)
    assert len(plan) > 100_000


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_sees_the_types_of_the_format(precision, exported, trt):
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    assert trt.OnnxParser(network, logger).parse_from_file(str(exported("street_lite0", precision)))
    names = {"UINT8": "uint8", "FLOAT": "float", "BOOL": "bool", "INT64": "int64"}
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for tensors, wanted in ((inputs, INPUTS), (outputs, outputs_of("deploy", "panoptic"))):
        found = {t.name: (f"tensor({names[t.dtype.name]})", len(t.shape)) for t in tensors}
        assert found == wanted


def test_every_configuration_is_one_of_the_graphs_or_of_the_same_network():
    def network(name):
        config = load_yaml(ModelConfig, CONFIGS / f"{name}.yaml")
        fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        return {k: v for k, v in fields.items() if k not in ("classes", "height", "width")}

    built = [network(name) for name in {graph[0] for graph in GRAPHS}]
    for path in CONFIGS.glob("*.yaml"):
        assert network(path.stem) in built, path.stem
