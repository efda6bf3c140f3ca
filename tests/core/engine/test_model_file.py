"""An exported file describes itself, without the package `onnx` and without a session."""

from __future__ import annotations

import copy
import json
import random

import onnx
import pytest
from onnx import TensorProto, helper
from tiny_onnx import metadata, write_model

from video_knet_core.engine.base import ModelError
from video_knet_core.engine.model_file import INPUTS, ModelFile
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
