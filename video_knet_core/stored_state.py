"""Small trees of plain objects as bytes and back, without pickle: nothing in them can run.

They hold None, bool, int, float, str, tuple, list, dict, deque, numpy arrays and scalars, and
objects of the classes that the reader allows by name. Numbers come back bit by bit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TREE = "tree"
_PLAIN = (bool, int, float, str, type(None))


class StateError(ValueError):
    """A tree that holds something else, or bytes that are no tree."""


def pack(tree: Any, classes: Iterable[type] = ()) -> bytes:
    """Bytes of a tree, the same for the same tree.

    Raises:
        StateError: it holds an object of another class than `classes`.
    """
    arrays: list[NDArray] = []
    names = {kind.__name__: kind for kind in classes}
    text = json.dumps(_flatten(tree, arrays, names))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # np.savez would store the time of day
        archive.writestr(zipfile.ZipInfo(_TREE), text)
        for number, array in enumerate(arrays):
            data = io.BytesIO()
            np.save(data, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(str(number)), data.getvalue())
    return file.getvalue()


def unpack(data: bytes, classes: Iterable[type] = ()) -> Any:
    """The tree again.

    Raises:
        StateError: the bytes are damaged, or hold an object of another class than `classes`.
    """
    names = {kind.__name__: kind for kind in classes}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            count = len(archive.namelist()) - 1
            arrays = [
                np.load(io.BytesIO(archive.read(str(number))), allow_pickle=False)
                for number in range(count)
            ]
            return _build(json.loads(archive.read(_TREE)), arrays, names)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError) as error:
        raise StateError(f"no stored state: {error!r}") from None


def _flatten(tree: Any, arrays: list[NDArray], names: dict[str, type]) -> Any:
    """The tree for JSON: plain values as they are, all else as {kind: content}."""
    kind = type(tree)
    if kind in _PLAIN:
        return tree
    if isinstance(tree, (np.ndarray, np.generic)):
        arrays.append(np.asarray(tree))
        return {"array" if isinstance(tree, np.ndarray) else "scalar": len(arrays) - 1}
    if kind is dict:
        return {"dict": [[_flatten(v, arrays, names) for v in pair] for pair in tree.items()]}
    if kind in (tuple, list, deque):
        items = [_flatten(item, arrays, names) for item in tree]
        return {kind.__name__: items}
    if names.get(kind.__name__) is kind:
        fields = _flatten(dict(vars(tree)), arrays, names)
        return {"object": [kind.__name__, fields]}
    raise StateError(f"an object of {kind.__module__}.{kind.__qualname__} cannot be stored")


def _build(flat: Any, arrays: list[NDArray], names: dict[str, type]) -> Any:
    if not isinstance(flat, dict):
        return flat
    ((kind, content),) = flat.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "object":
        name, fields = content
        found: Any = object.__new__(names[name])
        found.__dict__.update(_build(fields, arrays, names))
        return found
    if kind == "dict":
        return {_build(key, arrays, names): _build(value, arrays, names) for key, value in content}
    items = (_build(item, arrays, names) for item in content)
    return {"tuple": tuple, "list": list, "deque": deque}[kind](items)
