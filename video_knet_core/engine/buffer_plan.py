"""Where the tensors of one camera lie in memory, on the host and on the GPU alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INPUTS: dict[str, str] = {"image": "UINT8", "previous_kernels": "FLOAT", "has_previous": "BOOL"}
OUTPUTS: dict[str, str] = {
    "segment_map": "UINT8",
    "class_ids": "INT64",
    "scores": "FLOAT",
    "areas": "INT64",
    "embeddings": "FLOAT",
    "kernels": "FLOAT",
}
"""Tensors of a model and their types, by TensorRT's names for them."""
NUMPY_TYPES = {"UINT8": np.uint8, "FLOAT": np.float32, "BOOL": np.bool_, "INT64": np.int64}
ALIGNMENT = 256
"""Of a tensor's address in bytes, as TensorRT demands."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the memory of a camera."""

    offset: int
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def of(self, memory: NDArray[np.uint8]) -> Array:
        """The tensor as a view of the memory."""
        return memory[self.offset : self.end].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class BufferPlan:
    """The memory of a camera, laid out alike on the host and on the device.

    In order: what goes in with each frame, one bank of kernels, the results, the other bank. So a
    step takes one copy in, and, whichever bank it writes, one copy out.
    """

    places: Mapping[str, Place]

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> BufferPlan:
        """Lay out the tensors of an engine."""
        results = [name for name in OUTPUTS if name != "kernels"]
        order = ["image", "has_previous", "bank 0", *results, "bank 1"]
        places, offset = {}, 0
        for name in order:
            tensor = "kernels" if name.startswith("bank") else name
            dtype = NUMPY_TYPES[(INPUTS | OUTPUTS)[tensor]]
            places[name] = Place(offset, tuple(shapes[tensor]), dtype)
            offset = _aligned(places[name].end)
        return cls(places)

    @property
    def size(self) -> int:
        """Bytes."""
        return _aligned(self.places["bank 1"].end)

    @property
    def inputs(self) -> slice:
        """The bytes that go to the device with each frame."""
        return slice(self.places["image"].offset, self.places["has_previous"].end)

    def results(self, bank: int) -> slice:
        """The bytes that come back when a step has written its kernels to `bank`."""
        if bank == 0:
            return slice(self.places["bank 0"].offset, self.places["embeddings"].end)
        return slice(self.places["segment_map"].offset, self.places["bank 1"].end)

    def bank(self, bank: int) -> slice:
        """The bytes of a bank of kernels."""
        place = self.places[f"bank {bank}"]
        return slice(place.offset, place.end)

    def addresses(self, base: int, bank: int) -> dict[str, int]:
        """Address of each tensor for a step that reads the other bank and writes `bank`."""
        swapped = {"previous_kernels": f"bank {1 - bank}", "kernels": f"bank {bank}"}
        return {
            name: base + self.places[swapped.get(name, name)].offset for name in INPUTS | OUTPUTS
        }


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
