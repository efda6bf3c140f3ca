"""An exported model: its metadata, its tensors, and the steps of an engine that runs it.

The first two are read from the protobuf encoding of the ONNX file itself (onnx.proto3 of ONNX,
protobuf.dev/programming-guides/encoding), so that a robot needs neither the package `onnx` nor a
session.

A file is the ONNX model of the first native size. That of each further one is in the metadata, as
`size_key` and `pack` have it, without the tensors that are equal in both: `ModelFile.content` puts
them back. So the weights are there once, and every engine gets a static graph.
"""

from __future__ import annotations

import base64
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ExternalConfig, ModelConfig, NetworkConfig
from ..config_io import ConfigError, from_dict
from ..tasks import TASKS
from ..types import Detections, check_image
from .base import ModelError, ModelInfo, Size, State

FORMAT = 1
"""The version of the file format."""
METADATA_KEY = "video_knet"
PRECISIONS = ("fp32", "fp16")
"""What maps are computed in; inputs and outputs are the same in both."""
INPUTS = {
    "image": ("uint8", 3),
    "previous_kernels": ("float32", 2),
    "has_previous": ("bool", 1),
}
"""NumPy type and number of dimensions of each tensor, the same in all forms and tasks. A network
without temporal modules takes the kernels too, and ignores them."""
OUTPUTS = {
    "segment_map": ("uint8", 2),
    "class_ids": ("int64", 1),
    "scores": ("float32", 1),
    "areas": ("int64", 1),
    "class_logits": ("float32", 2),
    "mask_logits": ("float32", 3),
    "embeddings": ("float32", 2),
    "kernels": ("float32", 2),
    "masks": ("uint8", 3),
    "depth": ("float32", 2),
}
FORMS = ("deploy", "raw")
"""Runtimes run the deploy form; the raw one, for evaluation, has the predictions before the merge
of the masks. In task semantic those are the class logits of each pixel."""


def outputs_of(form: str, config: NetworkConfig) -> dict[str, tuple[str, int]]:
    """Type and number of dimensions of each output of a form, in order."""
    facts = TASKS[config.task]
    names = facts.deploy_tensors if form == "deploy" else facts.raw_tensors
    if form == "deploy" and isinstance(config, ExternalConfig):
        names += ("depth",) * config.depth
    return {name: OUTPUTS[name] for name in names}


@dataclass(frozen=True)
class ModelFile:
    """An exported model of this project whose tensors are those of its form."""

    path: Path
    name: str
    config: NetworkConfig
    """An `ExternalConfig` if the network is none of this package."""
    precision: str
    """One of `PRECISIONS`."""
    form: str
    """One of `FORMS`."""
    checkpoint_sha256: str
    """Hex digest of the checkpoint that it was exported from; empty if it came from none."""
    size: Size
    """The one of the native sizes that is to be run."""
    content: bytes | None = field(default=None, repr=False)
    """The ONNX model of `size`; None if that is the file's own, of the first size."""

    @classmethod
    def read(cls, path: str | Path, form: str | None = None, size: Size | None = None) -> ModelFile:
        """Read and check a file, without making it ready to run.

        Args:
            form: the one of `FORMS` that the caller needs; None takes any.
            size: one of the model's native sizes; None is the first.

        Raises:
            ModelError: the file is missing, corrupt, not of this project, of another form, or not
                of this size.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"no model file {path}")
        try:
            file = memoryview(path.read_bytes())
            metadata, inputs, outputs = _read_interface(file)
            model = cls(path, **_read_metadata(metadata.get(METADATA_KEY)))
            size = size or model.size
            if size not in model.config.sizes:
                raise ValueError(f"size: expected one of {list(model.config.sizes)}, got {size}")
            if lacking := {size_key(other) for other in model.config.more_sizes} - metadata.keys():
                raise ValueError(f"expected metadata {sorted(lacking)}, got none")
            if size != model.size:
                content = _unpacked(metadata[size_key(size)], file)
                model = replace(model, size=size, content=content)
                _, inputs, outputs = _read_interface(memoryview(content))
            model._check_tensors(inputs, outputs)
            if form not in (None, model.form):
                raise ValueError(_wrong_form(model.form))
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        return model

    @property
    def info(self) -> ModelInfo:
        """See `ModelInfo`; of `size` alone."""
        config, digest = self.config, self.checkpoint_sha256
        return ModelInfo(self.name, config.classes, *self.size, config.task, digest)

    @property
    def outputs(self) -> dict[str, tuple[str, int]]:
        """Type and number of dimensions of each output, in order."""
        return outputs_of(self.form, self.config)

    @property
    def state_shape(self) -> tuple[int, int]:
        """See `ModelConfig.state_shape`."""
        return self.config.state_shape(self.size)

    def _check_tensors(self, inputs: _Tensors, outputs: _Tensors) -> None:
        """Names, types and dimensions of every input and output are those of the form."""
        for kind, expected, tensors in (
            ("inputs", INPUTS, inputs),
            ("outputs", self.outputs, outputs),
        ):
            got = {name: (dtype, len(shape)) for name, (dtype, shape) in tensors.items()}
            if got != expected:
                raise ValueError(f"expected the {kind} {expected}, got {got}")
        image = (*self.size, 3)
        for name, expected_shape in (("image", image), ("previous_kernels", self.state_shape)):
            _, shape = inputs[name]
            if shape != expected_shape:
                raise ValueError(f"{name}: expected {expected_shape}, got {shape}")


def _read_metadata(text: str | None) -> dict[str, Any]:
    """The fields of `ModelFile` but its path, as the exporter wrote them."""
    if text is None:
        raise ValueError("not a model of this project: expected metadata 'video_knet', got none")
    try:
        data = json.loads(text)
        version, name, config = data["format"], data["name"], data["config"]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the metadata 'video_knet' is damaged ({error!r})") from None
    if version != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {version}")
    # older files say nothing of these two
    precision, form = data.get("precision", PRECISIONS[0]), data.get("form", "deploy")
    for key, value, known in (("precision", precision, PRECISIONS), ("form", form, FORMS)):
        if value not in known:
            raise ValueError(f"expected {key} to be one of {known}, got {value!r}")
    digest = data.get("checkpoint_sha256", "")
    for key, value in (("name", name), ("checkpoint_sha256", digest)):
        if not isinstance(value, str):
            raise ValueError(f"expected {key} to be a text, got {value!r}")
    try:
        kind = ExternalConfig if "network" in config else ModelConfig
        model_config: NetworkConfig = from_dict(kind, config)
    except (ConfigError, TypeError) as error:
        raise ValueError(f"the configuration does not fit this version: {error}") from None
    return {
        "name": name,
        "config": model_config,
        "precision": precision,
        "form": form,
        "checkpoint_sha256": digest,
        "size": model_config.sizes[0],
    }


def _wrong_form(form: str) -> str:
    option, flag = ("with", " --raw") if form == "deploy" else ("without", "")
    return (
        f"it is of the {form} form, which cannot be used here; export its checkpoint again "
        f"{option} --raw: video-knet export CHECKPOINT.safetensors MODEL.onnx{flag}"
    )


class ExportedModelRuntime(ABC):
    """What all engines of exported models share; see `Runtime`."""

    def __init__(self, name: str, model: ModelFile) -> None:
        self.name = name
        self.info = model.info
        self._no_kernels = np.zeros(model.state_shape, np.float32)

    def step(self, image: NDArray[np.uint8], state: State | None) -> tuple[Detections, State]:
        """Segment one frame; see `Runtime.step`."""
        check_image(image, *self.info.sizes)
        kernels = self._no_kernels if state is None else state
        shape, got = self._no_kernels.shape, getattr(kernels, "dtype", type(kernels).__name__)
        if (got, np.shape(kernels)) != (np.float32, shape):
            raise ValueError(f"state: expected float32 {shape}, got {got} {np.shape(kernels)}")
        has_previous = np.array([state is not None])
        results = self._infer(
            {"image": image, "previous_kernels": kernels, "has_previous": has_previous}
        )
        return Detections.from_outputs(results, self.info.name), results["kernels"]

    @abstractmethod
    def _infer(self, inputs: dict[str, NDArray]) -> dict[str, NDArray]:
        """Run the model: `INPUTS` -> the outputs of its task, which belong to the caller."""

    @abstractmethod
    def close(self) -> None:
        """See `Runtime.close`."""


# --- the ONNX file

_DTYPES = {1: "float32", 2: "uint8", 7: "int64", 9: "bool", 10: "float16"}
"""TensorProto.DataType -> NumPy's name."""
_FIXED_SIZES = {1: 8, 5: 4}
"""Wire type -> bytes of a value without a length."""
_GRAPH, _INITIALIZER, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 7, 5, 2, 8, 13, 14
"""Numbers of fields: ModelProto.graph, GraphProto.initializer, TensorProto.data_type, name,
external_data and data_location."""
_FUNCTION, _NODE, _NODE_OF_FUNCTION, _SPARSE_INITIALIZER, _ATTRIBUTE, _DEFAULT = 25, 1, 7, 15, 5, 11
"""ModelProto.functions, GraphProto.node, FunctionProto.node, GraphProto.sparse_initializer,
NodeProto.attribute and FunctionProto.attribute_proto."""
_TENSORS, _GRAPHS, _SPARSE = (5, 10), (6, 11), (22, 23)
"""Of AttributeProto: t and tensors, g and graphs, sparse_tensor and sparse_tensors."""
_EMPTY = memoryview(b"")
_MAX_PART = 1 << 28
"""Bytes of the graph of a further size, without the tensors that it shares."""
_Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> NumPy's name of the type, "type N" for others, and the shape: -1 where it is open."""


def size_key(size: Size) -> str:
    """The key of the metadata that has the model of a further size."""
    return f"{METADATA_KEY}.{size[0]}x{size[1]}"


def pack(part: bytes) -> str:
    """The value there: of an ONNX model in which tensors that the file's own has too, under the
    same name, are left with their name alone. ValueError if it has over 256 MiB."""
    if len(part) > _MAX_PART:
        raise ValueError(f"expected a graph of up to {_MAX_PART} bytes, got {len(part)}")
    return base64.b64encode(zlib.compress(part, 9)).decode()


def _unpacked(packed: str, file: memoryview) -> bytes:
    """The ONNX model of a further size, made of `pack`'s text and the file's tensors; ValueError
    if one of them is damaged."""
    try:
        unpacking = zlib.decompressobj()
        part = unpacking.decompress(base64.b64decode(packed, validate=True), _MAX_PART)
        if not unpacking.eof:
            raise ValueError(f"expected up to {_MAX_PART} bytes, got more, or it is cut short")
        own = {str(dict(_fields(value))[_NAME], "utf-8"): value for value in _tensors_in(file)}
        return b"".join(
            _encoded(number, _with_tensors(value, own) if number == _GRAPH else value)
            for number, value in _fields(memoryview(part))
        )
    except (ValueError, zlib.error, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"its part of a further size is damaged ({error!r})") from None


def _with_tensors(graph: memoryview, own: dict[str, memoryview]) -> bytes:
    """A GraphProto whose initializers that are a name alone are replaced by those of `own`, each of
    which is taken out, so that no file grows by more than its own tensors."""
    parts = []
    for number, value in _fields(graph):
        if number == _INITIALIZER and _DATA_TYPE not in (tensor := dict(_fields(value))):
            value = own.pop(str(tensor[_NAME], "utf-8"))
        parts.append(_encoded(number, value))
    return b"".join(parts)


def _tensors_in(file: memoryview) -> Iterator[memoryview]:
    """The initializers of a model."""
    for number, graph in _fields(file):
        if number == _GRAPH:
            yield from (value for part, value in _fields(graph) if part == _INITIALIZER)


def _all_tensors(graph: memoryview) -> Iterator[memoryview]:
    """The tensors of a graph, those of its nodes and of the graphs in them too."""
    for number, value in _fields(graph):
        if number == _INITIALIZER:
            yield value
        elif number == _SPARSE_INITIALIZER:
            yield from _dense_parts(value)
        elif number == _NODE:
            yield from _tensors_of(value)


def _tensors_of(node: memoryview) -> Iterator[memoryview]:
    """The tensors of a node."""
    for attribute in (value for number, value in _fields(node) if number == _ATTRIBUTE):
        yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: memoryview) -> Iterator[memoryview]:
    for number, value in _fields(attribute):
        if number in _TENSORS:
            yield value
        elif number in _GRAPHS:
            yield from _all_tensors(value)
        elif number in _SPARSE:
            yield from _dense_parts(value)


_OF_FUNCTION = {_NODE_OF_FUNCTION: _tensors_of, _DEFAULT: _tensors_of_attribute}


def _dense_parts(sparse: memoryview) -> Iterator[memoryview]:
    """Values and indices of a SparseTensorProto."""
    return (value for number, value in _fields(sparse) if number in (1, 2))


def _check_own_weights(tensor: memoryview) -> None:
    """ValueError if they are in another file, which may be any of this machine, and which the hash
    of the model does not cover."""
    for number, value in _fields(tensor):  # of a field that is there twice protobuf may take either
        if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
            name = str(dict(_fields(tensor)).get(_NAME, b""), "utf-8")
            raise ValueError(f"expected all weights in this file, got {name} in another one")


def _encoded(number: int, value: int | bytes | memoryview) -> bytes:
    """A field: the inverse of `_fields` but for numbers of fixed size."""
    if isinstance(value, int):
        return _varint_of(number << 3) + _varint_of(value)
    return _varint_of(number << 3 | 2) + _varint_of(len(value)) + value


def _varint_of(value: int) -> bytes:
    """The inverse of `_varint`."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def _read_interface(file: memoryview) -> tuple[dict[str, str], _Tensors, _Tensors]:
    """Metadata, inputs and outputs; ValueError if it is not an ONNX model, cut short or without its
    weights."""
    metadata: dict[str, str] = {}
    graph: dict[int, _Tensors] = {}
    try:
        for number, value in _fields(file):
            if number == _GRAPH:
                graph = {11: {}, 12: {}}  # input, output
                for part, tensor in _fields(value):
                    if part in graph:
                        graph[part].update([_value_info(tensor)])
                for tensor in _all_tensors(value):
                    _check_own_weights(tensor)
            elif number == _FUNCTION:
                for part, content in _fields(value):
                    if part in _OF_FUNCTION:
                        for tensor in _OF_FUNCTION[part](content):
                            _check_own_weights(tensor)
            elif number == 14:  # metadata_props
                entry = {part: str(text, "utf-8") for part, text in _fields(value)}
                metadata[entry[1]] = entry.get(2, "")
        if not graph:
            raise IndexError("it has no graph")
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an ONNX model, or cut short ({error})") from None
    return metadata, graph[11], graph[12]


def _value_info(message: memoryview) -> tuple[str, tuple[str, tuple[int, ...]]]:
    """Name, and type and shape, of a ValueInfoProto."""
    fields = dict(_fields(message))
    tensor = dict(_fields(dict(_fields(fields[2]))[1]))  # type, tensor_type
    dims = [dict(_fields(dim)) for part, dim in _fields(tensor.get(2, _EMPTY)) if part == 1]
    dtype = _DTYPES.get(tensor[1], f"type {tensor[1]}")
    return str(fields[1], "utf-8"), (dtype, tuple(dim.get(1, -1) for dim in dims))


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an integer, or the bytes of a text or nested message.

    IndexError if the bytes are no message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 1 << 29:  # which protobuf would cut
            raise IndexError(f"field {number}")
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in _FIXED_SIZES:
            length = _FIXED_SIZES[wire_type]
        else:
            raise IndexError(f"wire type {wire_type}")
        if position + length > len(message):
            raise IndexError(f"a field of {length} bytes at {position} of {len(message)}")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = message[position + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + shift // 7 + 1
    raise IndexError("a number of more than 64 bits")
