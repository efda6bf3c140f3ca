"""What an ONNX file contains besides its network: metadata, and the inputs and outputs.

Read from the protobuf encoding itself (onnx.proto3 of ONNX, protobuf.dev/programming-guides/
encoding), so that a robot needs neither the package `onnx` nor a session, and the weights are
skipped. Numbers are those of the fields in onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_DTYPES = {1: "float32", 2: "uint8", 7: "int64", 9: "bool", 10: "float16"}
"""TensorProto.DataType -> NumPy's name."""
_FIXED_SIZES = {1: 8, 5: 4}
"""Wire type -> bytes of a value without a length."""


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
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ValueError("not an ONNX model: it is empty")
            with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
                try:
                    return cls._parse(content)
                except (IndexError, UnicodeDecodeError) as error:
                    raise ValueError(f"not an ONNX model, or cut short ({error})") from None

    @classmethod
    def _parse(cls, content: mmap.mmap) -> OnnxHeader:
        header = cls({}, {}, {})
        graphs = 0
        for number, start, end in _fields(content, 0, len(content)):
            if number == 7:  # graph
                graphs += 1
                for part, first, last in _fields(content, start, end):
                    if part in (11, 12):
                        name, info = _value_info(content, first, last)
                        (header.inputs if part == 11 else header.outputs)[name] = info
            elif number == 14:  # metadata_props
                entry = {n: content[a:b].decode() for n, a, b in _fields(content, start, end)}
                header.metadata[entry.get(1, "")] = entry.get(2, "")
        if not graphs:
            raise IndexError("no graph")
        return header


def _value_info(content: mmap.mmap, start: int, end: int) -> tuple[str, TensorInfo]:
    """Name and facts of a ValueInfoProto."""
    name, dtype, shape = "", "", []
    for number, first, last in _fields(content, start, end):
        if number == 1:
            name = content[first:last].decode()
        elif number == 2:  # type
            for tensor in _nested(content, first, last, 1):  # tensor_type
                for part, a, b in _fields(content, *tensor):
                    if part == 1:  # elem_type
                        dtype = _DTYPES.get(a, f"type {a}")
                    elif part == 2:  # shape
                        shape = [_dimension(content, *dim) for dim in _nested(content, a, b, 1)]
    return name, TensorInfo(dtype, tuple(shape))


def _dimension(content: mmap.mmap, start: int, end: int) -> int:
    """dim_value of a Dimension."""
    return next((value for number, value, _ in _fields(content, start, end) if number == 1), -1)


def _nested(content: mmap.mmap, start: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Where the messages of one field lie."""
    return ((first, last) for found, first, last in _fields(content, start, end) if found == number)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number of each field of a message with begin and end of its bytes, or its integer twice.

    IndexError if the bytes are no message.
    """
    while start < end:
        key, start = _varint(content, start)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, start = _varint(content, start)
            yield number, value, value
            continue
        if wire_type == 2:
            length, start = _varint(content, start)
        elif wire_type in _FIXED_SIZES:
            length = _FIXED_SIZES[wire_type]
        else:
            raise IndexError(f"wire type {wire_type}")
        if start + length > end:
            raise IndexError(f"a field of {length} bytes at {start} of {end}")
        yield number, start, start + length
        start += length


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the position behind it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")
