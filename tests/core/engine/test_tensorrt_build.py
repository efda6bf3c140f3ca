"""TensorRT-RTX, the real library, builds every exported graph; it needs no GPU for that."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.engine.model_file import INPUTS, ModelFile
from video_knet_core.engine.tensorrt.build import TensorRTLibrary

CONFIGS = Path(__file__).parents[3] / "config" / "models"
TARGETS = ("sm86", "sm89", "sm120")
GRAPHS = [
    *(("street_lite0", precision, "deploy") for precision in ("fp32", "fp16")),
    ("street_lite0", "fp32", "raw"),
    ("kitti_step_r50", "fp16", "deploy"),
    ("kitti_step_fusion_r50", "fp16", "deploy"),
    ("kitti_step_swin_b", "fp16", "deploy"),
    ("street", "fp16", "deploy"),
    ("street_pspnet_lite0", "fp32", "deploy"),
    ("vspw_deeplabv3plus_r101", "fp16", "deploy"),
    ("street_instances_lite0", "fp32", "deploy"),
    ("youtube_vis_r50", "fp16", "deploy"),
]
"""Small versions that hold every operator of the full size. Every part of the other configurations
is in one of these; a float32 graph is its fp16 graph without casts. `video-knet build-engine`
builds all of them at full size."""
PLAIN = ("street_deeplabv3plus_lite0", "fp32", "deploy", True)
"""The decoder alone, which looks at no previous frame."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="tensorrt-rtx-cu13-libs has wheels for Linux on x86_64 alone",
    ),
]


@pytest.fixture(scope="module")
def trt():
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


@pytest.mark.parametrize("graph", [*GRAPHS, PLAIN], ids=lambda graph: " ".join(map(str, graph)))
def test_a_graph_builds_for_every_target_with_no_unsupported_operator(graph, exported):
    """And keeps its tensors, also inputs that are not read: the run path gives each an address."""
    file = ModelFile.read(exported(*graph))
    plan = TensorRTLibrary("tensorrt-rtx").build_plan(file.name, file.path.read_bytes(), TARGETS)
    assert len(plan) > 100_000
    assert all(name.encode() in plan for name in (*INPUTS, *file.outputs))


@pytest.mark.parametrize(
    "graph", [*GRAPHS[:2], ("street_pspnet_lite0",), ("street_instances_lite0",), PLAIN]
)
def test_tensorrt_gets_the_types_of_the_format(graph, exported, trt):
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    path = exported(*graph)
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    names = {"UINT8": "uint8", "FLOAT": "float32", "BOOL": "bool", "INT64": "int64"}
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for tensors, expected in ((inputs, INPUTS), (outputs, ModelFile.read(path).outputs)):
        found = {t.name: (names[t.dtype.name], len(t.shape)) for t in tensors}
        assert found == expected


def parts(name):
    """What a network is made of, without the sizes that a small version has its own of."""
    config = load_yaml(ModelConfig, CONFIGS / f"{name}.yaml")
    sizes = {"things": 0, "stages": 0, "attention_heads": 1, "feedforward": 1}
    return {
        ("backbone", replace(config.backbone, width=1)),
        ("neck", config.neck.name, config.neck.stride),
        ("kernels", config.task, replace(config.kernels, **sizes)),
        ("merge", config.task, config.panoptic.merge),
    }


def test_every_part_of_every_configuration_is_in_one_of_the_graphs():
    built = set.union(*(parts(graph[0]) for graph in GRAPHS))
    for path in CONFIGS.glob("*.yaml"):
        assert parts(path.stem) <= built, path.stem
