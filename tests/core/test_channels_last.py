"""Resizing where channels come last: the same numbers, without the transpositions."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from video_knet_core.engine.channels_last import resize_channels_last

GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
turned (float[1,3,4,5] x) => (float[1,6,8,5] y{extra})
<int64[4] size = {{1, 5, 6, 8}}> {{
    first = Transpose<perm=[0,3,1,2]>(x)
    large = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(first, , , size)
    y = Transpose<perm=[0,2,3,1]>(large)
    {more}
}}"""


def graph(extra: str = "", more: str = "") -> onnx.ModelProto:
    return parser.parse_model(GRAPH.format(extra=extra, more=more))


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5), dtype=np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})


def test_the_transpositions_go_and_the_numbers_stay():
    model = graph()
    (before,) = run(model)
    assert resize_channels_last(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == ["Resize"]
    assert len(model.graph.initializer) == 1
    np.testing.assert_allclose(run(model)[0], before, rtol=1e-6, atol=1e-6)


def test_what_others_read_stays():
    model = graph(", float[1,5,3,4] z", "z = Identity(first)")
    before = run(model)
    assert resize_channels_last(model.graph) == 1
    for found, expected in zip(run(model), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "more"), [(", float[1,5,6,8] z", "z = Relu(large)"), (", float[1,5,6,8] large", "")]
)
def test_a_map_that_is_wanted_with_channels_first_too_is_left_alone(extra, more):
    model = graph(extra, more)
    before = model.SerializeToString()
    assert resize_channels_last(model.graph) == 0
    assert model.SerializeToString() == before
