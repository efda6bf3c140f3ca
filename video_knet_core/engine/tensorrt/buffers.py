"""The layout of the tensors of one camera in memory, the same on the host and on the GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model_file import INPUTS, OUTPUTS

Array = NDArray[Any]

TENSORRT_TYPES = {"uint8": "UINT8", "float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}
"""NumPy's names of the types of tensors -> TensorRT's."""
ALIGNMENT = 256
"""Of a tensor's address in bytes, as TensorRT demands."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the memory of a camera."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def of(self, memory: NDArray[np.uint8]) -> Array:
        """The tensor as a view of the memory."""
        return memory[self.offset : self.end].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class BufferPlan:
    """The memory of a camera, laid out equally on the host and on the device.

    In order: what goes in with each frame, one bank of kernels, the results, the other bank. So a
    step takes one copy in, and, whichever bank it writes, one copy out.
    """

    places: Mapping[str, Place]
    outputs: tuple[str, ...]
    """Names of the outputs of the model; `kernels` is one of them, and in a bank."""

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], outputs: Iterable[str]) -> BufferPlan:
        """Lay out the tensors of an engine with these outputs."""
        outputs = tuple(outputs)
        results = [name for name in outputs if name != "kernels"]
        order = ["image", "has_previous", "bank 0", *results, "bank 1"]
        types = INPUTS | OUTPUTS
        places, offset = {}, 0
        for name in order:
            tensor = "kernels" if name.startswith("bank") else name
            dtype = np.dtype(types[tensor][0])
            places[name] = Place(offset, tuple(shapes[tensor]), dtype)
            offset = _aligned(places[name].end)
        return cls(places, outputs)

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
        results = [self.places[name] for name in self.outputs if name != "kernels"]
        if bank == 0:
            return slice(self.places["bank 0"].offset, results[-1].end)
        return slice(results[0].offset, self.places["bank 1"].end)

    def bank(self, bank: int) -> slice:
        """The bytes of a bank of kernels."""
        place = self.places[f"bank {bank}"]
        return slice(place.offset, place.end)

    def addresses(self, base: int, bank: int) -> dict[str, int]:
        """Address of each tensor for a step that reads the other bank and writes `bank`."""
        swapped = {"previous_kernels": f"bank {1 - bank}", "kernels": f"bank {bank}"}
        names = (*INPUTS, *self.outputs)
        return {name: base + self.places[swapped.get(name, name)].offset for name in names}


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
