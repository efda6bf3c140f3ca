"""An exported file describes itself, without the package `onnx` and without a session."""

from __future__ import annotations

import copy
import json
import random

import onnx
import pytest
from onnx import (
    FunctionProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    external_data_helper,
    helper,
)
from tiny_onnx import HEIGHT, WIDE, WIDTH, metadata, write_model, write_two_sizes

from video_knet_core.engine import model_file
from video_knet_core.engine.base import ModelError
from video_knet_core.engine.model_file import INPUTS, ModelFile, pack, size_key
from video_knet_core.engine.selector import default_model_path


@pytest.mark.parametrize("which", ["tiny", "shipped"])
def test_it_reads_what_the_package_onnx_reads(model, which):
    path = default_model_path() if which == "shipped" else model
    file, proto = ModelFile.read(path, form="deploy"), onnx.load(str(path))
    facts = json.loads(proto.metadata_props[0].value)
    assert (file.name, file.checkpoint_sha256) == (facts["name"], facts["checkpoint_sha256"])
    assert (file.info.height, file.info.width) == (facts["config"]["height"], file.config.width)
    for tensors, values in ((INPUTS, proto.graph.input), (file.outputs, proto.graph.output)):
        types = {value.name: value.type.tensor_type for value in values}
        assert tensors == {
            name: (helper.tensor_dtype_to_np_dtype(kind.elem_type).name, len(kind.shape.dim))
            for name, kind in types.items()
        }


def test_an_older_file_is_of_the_deploy_form_in_fp32(model):
    file = ModelFile.read(model, form="deploy")
    assert (file.precision, file.form, file.checkpoint_sha256) == ("fp32", "deploy", "0")


def test_class_names_of_any_script_come_back_from_the_file(tmp_path):
    data = copy.deepcopy(metadata())
    names = ["汽车", "سيارة"]
    for row, name in zip(data["config"]["classes"], names, strict=True):
        row["name"] = name
    for ascii_only in (True, False):
        path = write_model(tmp_path / "named.onnx", json.dumps(data, ensure_ascii=ascii_only))
        assert [info.name for info in ModelFile.read(path).info.classes] == names


@pytest.mark.parametrize("content", [b"", b"\0", b"PK\3\4 not this", b"\x3a\xff", b"\xff" * 20])
def test_other_files(tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"other\.onnx: not an ONNX model, or cut short"):
        ModelFile.read(path)


def test_a_damaged_file_is_read_or_rejected(model, tmp_path):
    whole = model.read_bytes()
    path = tmp_path / "damaged.onnx"
    damage = random.Random(0)
    rejected = 0
    for number in range(300):
        content = bytearray(whole)
        content[damage.randrange(len(whole))] = damage.randrange(256)
        path.write_bytes(content[: damage.randrange(1, len(whole))] if number % 2 else content)
        try:
            ModelFile.read(path)
        except ModelError:
            rejected += 1
    assert 150 < rejected < 300


def test_the_required_form_is_named(model):
    with pytest.raises(ModelError, match=r"tiny\.onnx: it is of the deploy form, .*with --raw"):
        ModelFile.read(model, form="raw")


CONFIG = metadata()["config"]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "expected metadata 'video_knet'"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        (metadata(name=3), "name to be a text, got 3"),
        (metadata(checkpoint_sha256=[]), r"checkpoint_sha256 to be a text, got \[\]"),
        ({"format": 1, "name": "x"}, "damaged .*config"),
        (metadata(format=7), "expected format 1, got 7"),
        (metadata(precision="int8"), r"precision .*fp16.*got 'int8'"),
        (metadata(form="cooked"), r"form .*raw.*got 'cooked'"),
        (metadata(form="raw"), r"outputs .*class_logits.* got .*segment_map"),
        (metadata(config=CONFIG | {"high": 3}), "'high'.*'height'"),
        (metadata(config=CONFIG | {"height": 128}), r"image: expected \(128, .*got \(64, 96, 3\)"),
        (
            metadata(config=CONFIG | {"kernels": {"things": 7}}),
            r"previous_kernels: expected \(8, 4\), got \(3, 4\)",
        ),
    ],
)
def test_foreign_metadata(tmp_path, meta, message):
    text = meta if meta is None or isinstance(meta, str) else json.dumps(meta)
    path = write_model(tmp_path / "foreign.onnx", text)
    with pytest.raises(ModelError, match=rf"foreign\.onnx: .*{message}"):
        ModelFile.read(path)


def test_foreign_tensors(model, tmp_path):
    path = write_model(tmp_path / "m.onnx", json.dumps(metadata()), rename=("kernels", "queries"))
    with pytest.raises(ModelError, match=r"m\.onnx: .*outputs .*kernels.* got .*queries"):
        ModelFile.read(path)
    proto = onnx.load(str(model))
    open_size = helper.make_tensor_value_info("image", TensorProto.DOUBLE, ["batch", 3])
    proto.graph.input[0].CopyFrom(open_size)
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match=r"inputs .* got .*'image': \('type 11', 2\)"):
        ModelFile.read(path)


def test_the_model_of_a_further_size_is_the_one_that_was_packed(tmp_path):
    path = write_two_sizes(tmp_path / "two.onnx")
    expected = onnx.load(str(write_model(tmp_path / "wide.onnx", size=WIDE)))
    first, wide = ModelFile.read(path), ModelFile.read(path, size=WIDE)
    assert onnx.load_from_string(wide.content) == expected
    assert first.content is None and first.info.sizes == ((HEIGHT, WIDTH),)
    assert wide.info.sizes == (WIDE,) and wide.config == first.config


def test_a_size_that_the_model_has_not_is_an_error(model):
    with pytest.raises(ModelError, match=r"size: expected one of \[\(64, 96\)\], got \(32, 160\)"):
        ModelFile.read(model, size=WIDE)


@pytest.mark.parametrize("part", [None, "no base64", "AAAA", "eJwDAAAAAAE="])
def test_a_further_size_that_is_missing_or_damaged_is_an_error(part, tmp_path):
    path = write_two_sizes(tmp_path / "two.onnx")
    proto = onnx.load(str(path))
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    del texts[size_key(WIDE)]
    helper.set_model_props(proto, texts if part is None else texts | {size_key(WIDE): part})
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match=r"two\.onnx: .*(32x160|damaged|not an ONNX model)"):
        ModelFile.read(path, size=WIDE)


def test_a_further_size_cannot_be_larger_than_a_graph_and_the_files_own_tensors(
    tmp_path, monkeypatch
):
    path = write_two_sizes(tmp_path / "two.onnx")
    proto = onnx.load(str(path))
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    name = onnx.TensorProto(name="scores").SerializeToString()
    twice = b"".join(b"\x2a" + bytes([len(name)]) + name for _ in range(2))  # in GraphProto
    for part in (bytes(1 << 20), b"\x3a" + bytes([len(twice)]) + twice):
        helper.set_model_props(proto, texts | {size_key(WIDE): pack(part)})
        onnx.save(proto, str(path))
        with monkeypatch.context() as patch, pytest.raises(ModelError, match="size is damaged"):
            patch.setattr(model_file, "_MAX_PART", 1 << 16)
            ModelFile.read(path, size=WIDE)
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="up to 9 bytes"):
            patch.setattr(model_file, "_MAX_PART", 9)
            pack(part)


def test_a_number_in_place_of_a_text_is_no_length(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x72\x08\x0a\x01k\x10" + b"\xff\xff\xff\x1f" + b"\x3a\x00")
    with pytest.raises(ModelError, match="not an ONNX model"):
        ModelFile.read(path)


def test_a_further_size_without_its_weights_is_an_error(tmp_path):
    path = write_two_sizes(tmp_path / "two.onnx")
    proto = onnx.load(str(path))
    names = [tensor.name for tensor in proto.graph.initializer]
    del proto.graph.initializer[names.index("scores")]
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match="further size is damaged .*scores"):
        ModelFile.read(path, size=WIDE)


def constant_of(tensor: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], ["extra"], value=tensor)


def in_initializer(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_node(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(constant_of(tensor))


def in_branch(model: ModelProto, tensor: TensorProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def in_sparse_initializer(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(SparseTensorProto(values=tensor, dims=[1]))


def in_function(model: ModelProto, tensor: TensorProto) -> None:
    model.functions.append(FunctionProto(name="f", node=[constant_of(tensor)]))


def in_default_of_function(model: ModelProto, tensor: TensorProto) -> None:
    default = helper.make_attribute("value", tensor)
    model.functions.append(FunctionProto(name="f", attribute_proto=[default]))


@pytest.mark.parametrize(
    "place",
    [
        *(in_initializer, in_node, in_branch, in_sparse_initializer),
        *(in_function, in_default_of_function),
    ],
)
def test_weights_in_another_file_are_rejected(tmp_path, place):
    path = write_two_sizes(tmp_path / "two.onnx")
    proto = onnx.load(str(path))
    tensor = helper.make_tensor("extra", TensorProto.FLOAT, [1], bytes(4), raw=True)
    external_data_helper.set_external_data(tensor, "other.bin")
    tensor.ClearField("raw_data")
    place(proto, tensor)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="all weights in this file, got extra"):
        ModelFile.read(path)


@pytest.mark.parametrize("trick", ["the place twice", "a number that is cut"])
def test_what_protobuf_reads_in_another_way_hides_no_weights(tmp_path, trick):
    tensor = helper.make_tensor("extra", TensorProto.FLOAT, [1], bytes(4), raw=True)
    external_data_helper.set_external_data(tensor, "other.bin")
    tensor.ClearField("raw_data")
    content, key = tensor.SerializeToString(), bytes([5 << 3 | 2])
    if trick == "the place twice":
        content += bytes([14 << 3 | 2, 0])  # bytes, which is no kind of this field
    else:
        key = encoded_length((5 << 3 | 2) + (1 << 32))
    field = key + encoded_length(len(content)) + content
    path = write_two_sizes(tmp_path / "two.onnx")
    graph = bytes([7 << 3 | 2]) + encoded_length(len(field)) + field  # merged with the other one
    path.write_bytes(path.read_bytes() + graph)
    if trick == "the place twice":  # the other one is read by some versions of protobuf alone
        assert onnx.load(str(path), load_external_data=False).graph.initializer[-1].name == "extra"
    with pytest.raises(ModelError, match="all weights in this file, got extra|not an ONNX model"):
        ModelFile.read(path)


def test_graphs_in_graphs_without_end_are_no_model(tmp_path):
    content = b""
    for _ in range(3000):
        for number in (6, 5, 1):  # attribute of a node of a graph
            content = bytes([number << 3 | 2]) + encoded_length(len(content)) + content
    (tmp_path / "deep.onnx").write_bytes(b"\x3a" + encoded_length(len(content)) + content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        ModelFile.read(tmp_path / "deep.onnx")


def encoded_length(number: int) -> bytes:
    """A varint."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
