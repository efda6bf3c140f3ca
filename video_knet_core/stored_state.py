"""Small trees of plain values as bytes and back, without pickle: nothing in them can run.

They hold None, bool, int, float, str, tuple, list, dict, numpy arrays and scalars. Numbers come
back bit by bit.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TREE = "tree"
_PLAIN = (bool, int, float, str, type(None))


class StateError(ValueError):
    """A tree that holds something else, or bytes that are no tree."""


def pack(tree: Any) -> bytes:
    """Bytes of a tree, the same for the same tree.

    Raises:
        StateError: it holds an object of another class.
    """
    arrays: list[NDArray] = []
    text = json.dumps(_flatten(tree, arrays))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # np.savez would store the time of day
        archive.writestr(zipfile.ZipInfo(_TREE), text)
        for number, array in enumerate(arrays):
            data = io.BytesIO()
            np.save(data, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(str(number)), data.getvalue())
    return file.getvalue()


def unpack(data: bytes) -> Any:
    """The tree again.

    Raises:
        StateError: the bytes are damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            count = len(archive.namelist()) - 1
            arrays = [
                np.load(io.BytesIO(archive.read(str(number))), allow_pickle=False)
                for number in range(count)
            ]
            return _build(json.loads(archive.read(_TREE)), arrays)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError) as error:
        raise StateError(f"no stored state: {error!r}") from None


def _flatten(tree: Any, arrays: list[NDArray]) -> Any:
    """The tree for JSON: plain values as they are, all else as {kind: content}."""
    kind = type(tree)
    if kind in _PLAIN:
        return tree
    if isinstance(tree, (np.ndarray, np.generic)):
        arrays.append(np.asarray(tree))
        return {"array" if isinstance(tree, np.ndarray) else "scalar": len(arrays) - 1}
    if kind is dict:
        return {"dict": [[_flatten(v, arrays) for v in pair] for pair in tree.items()]}
    if kind in (tuple, list):
        return {kind.__name__: [_flatten(item, arrays) for item in tree]}
    raise StateError(f"an object of {kind.__module__}.{kind.__qualname__} cannot be stored")


def _build(flat: Any, arrays: list[NDArray]) -> Any:
    if not isinstance(flat, dict):
        return flat
    ((kind, content),) = flat.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "dict":
        return {_build(key, arrays): _build(value, arrays) for key, value in content}
    return {"tuple": tuple, "list": list}[kind](_build(item, arrays) for item in content)
