"""Metadata and tensors of an ONNX file, read without the package `onnx`."""

from __future__ import annotations

import random

import onnx
import pytest
from onnx import TensorProto, helper
from tiny_onnx import write_tiny_model

from video_knet_core.engine.model_file import OnnxHeader, TensorInfo
from video_knet_core.engine.selector import default_model_path


@pytest.mark.parametrize("which", ["tiny", "shipped"])
def test_it_reads_what_the_package_onnx_reads(tmp_path, which):
    path = default_model_path() if which == "shipped" else write_tiny_model(tmp_path / "tiny.onnx")
    model, header = onnx.load(str(path)), OnnxHeader.read(path)
    assert header.metadata == {entry.key: entry.value for entry in model.metadata_props}
    for got, values in ((header.inputs, model.graph.input), (header.outputs, model.graph.output)):
        assert list(got) == [value.name for value in values]
        for value in values:
            tensor = value.type.tensor_type
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            shape = tuple(dim.dim_value for dim in tensor.shape.dim)
            assert got[value.name] == TensorInfo(dtype, shape)


def test_open_sizes_and_other_types(tmp_path):
    tensors = [
        helper.make_tensor_value_info("a", TensorProto.DOUBLE, ["batch", 3]),
        helper.make_tensor_value_info("b", TensorProto.FLOAT16, []),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "empty", tensors, [])), str(path))
    header = OnnxHeader.read(path)
    expected = {"a": TensorInfo("type 11", (-1, 3)), "b": TensorInfo("float16", ())}
    assert (header.inputs, header.outputs, header.metadata) == (expected, {}, {})


@pytest.mark.parametrize("content", [b"", b"\0", b"PK\3\4 not this", b"\x3a\xff", b"\xff" * 20])
def test_other_files(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an ONNX model"):
        OnnxHeader.read(path)


def test_a_damaged_file_is_read_or_rejected(tmp_path):
    whole = write_tiny_model(tmp_path / "tiny.onnx").read_bytes()
    path = tmp_path / "damaged.onnx"
    damage = random.Random(0)
    rejected = 0
    for number in range(300):
        content = bytearray(whole)
        content[damage.randrange(len(whole))] = damage.randrange(256)
        path.write_bytes(content[: damage.randrange(1, len(whole))] if number % 2 else content)
        try:
            OnnxHeader.read(path)
        except ValueError:
            rejected += 1
    assert 150 < rejected < 300
