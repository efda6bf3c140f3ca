"""What an ONNX file contains besides its network: metadata, and the inputs and outputs.

Read from the protobuf encoding itself (onnx.proto3 of ONNX, protobuf.dev/programming-guides/
encoding), so that a robot needs neither the package `onnx` nor a session, and the weights are
skipped. Numbers are those of the fields in onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DTYPES = {1: "float32", 2: "uint8", 7: "int64", 9: "bool", 10: "float16"}
"""TensorProto.DataType -> NumPy's name."""
_FIXED_SIZES = {1: 8, 5: 4}
"""Wire type -> bytes of a value without a length."""
_EMPTY = memoryview(b"")


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a graph."""

    dtype: str
    """NumPy's name; "type N" for others."""
    shape: tuple[int, ...]
    """-1 where the size is not fixed."""


@dataclass(frozen=True)
class OnnxHeader:
    """The parts of a model that name its interface."""

    metadata: dict[str, str]
    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]

    @classmethod
    def read(cls, path: Path) -> OnnxHeader:
        """Read a file; ValueError if it is not an ONNX model, or cut short."""
        header, graphs = cls({}, {}, {}), 0
        try:
            for number, value in _fields(memoryview(path.read_bytes())):
                if number == 7:  # graph
                    graphs += 1
                    for part, tensor in _fields(value):
                        if part in (11, 12):
                            tensors = header.inputs if part == 11 else header.outputs
                            tensors.update([_value_info(tensor)])
                elif number == 14:  # metadata_props
                    entry = {part: bytes(text).decode() for part, text in _fields(value)}
                    header.metadata[entry[1]] = entry.get(2, "")
            if not graphs:
                raise IndexError("it has no graph")
        except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"not an ONNX model, or cut short ({error})") from None
        return header


def _value_info(message: memoryview) -> tuple[str, TensorInfo]:
    """Name and facts of a ValueInfoProto."""
    fields = dict(_fields(message))
    tensor = dict(_fields(dict(_fields(fields[2]))[1]))  # type, tensor_type
    dims = [dict(_fields(dim)) for part, dim in _fields(tensor.get(2, _EMPTY)) if part == 1]
    dtype = _DTYPES.get(tensor[1], f"type {tensor[1]}")
    return bytes(fields[1]).decode(), TensorInfo(dtype, tuple(dim.get(1, -1) for dim in dims))


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an integer, or the bytes of a text or nested message.

    IndexError if the bytes are no message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
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
