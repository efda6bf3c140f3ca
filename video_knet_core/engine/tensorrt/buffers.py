"""The layout of the tensors of one camera in memory, the same on the host and on the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model_file import INPUTS, OUTPUTS

Array = NDArray[Any]

TENSORRT_TYPES = {"uint8": "UINT8", "float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}
"""NumPy's names of the types of tensors -> TensorRT's."""
ALIGNMENT = 256
"""Of a tensor's address in bytes, as TensorRT requires."""


class BufferPlan:
    """Where the tensors of a camera lie, on the host and on the device.

    In order: what goes in with each frame, one bank of kernels, the results, the other bank. So a
    step takes one copy in, and, whichever bank it writes, one copy out.

    Args:
        shapes: of the inputs and outputs of an engine.
        outputs: names of the outputs; `kernels` is one of them, and in a bank.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], outputs: Iterable[str]) -> None:
        self.outputs = tuple(outputs)
        self._results = [name for name in self.outputs if name != "kernels"]
        self.places: dict[str, tuple[int, np.dtype]] = {}
        """Offset in bytes of each tensor, and its type with its shape."""
        self.size = 0
        """Bytes of all."""
        for name in ("image", "has_previous", "bank 0", *self._results, "bank 1"):
            tensor = "kernels" if name.startswith("bank") else name
            dtype = np.dtype(((INPUTS | OUTPUTS)[tensor][0], tuple(shapes[tensor])))
            self.places[name] = self.size, dtype
            self.size += -(-dtype.itemsize // ALIGNMENT) * ALIGNMENT

    def view(self, memory: NDArray[np.uint8], name: str) -> Array:
        """A tensor as a view of the memory."""
        offset, dtype = self.places[name]
        return np.ndarray(dtype.shape, dtype.base, memory, offset)

    @property
    def inputs(self) -> slice:
        """The bytes that go to the device with each frame."""
        return self._span("image", "has_previous")

    def results(self, bank: int) -> slice:
        """The bytes that come back when a step has written its kernels to `bank`."""
        if bank == 0:
            return self._span("bank 0", self._results[-1])
        return self._span(self._results[0], "bank 1")

    def bank(self, bank: int) -> slice:
        """The bytes of a bank of kernels."""
        return self._span(f"bank {bank}", f"bank {bank}")

    def addresses(self, base: int, bank: int) -> dict[str, int]:
        """Address of each tensor for a step that reads the other bank and writes `bank`."""
        swapped = {"previous_kernels": f"bank {1 - bank}", "kernels": f"bank {bank}"}
        names = (*INPUTS, *self.outputs)
        return {name: base + self.places[swapped.get(name, name)][0] for name in names}

    def _span(self, first: str, last: str) -> slice:
        """The bytes from one tensor to another."""
        offset, dtype = self.places[last]
        return slice(self.places[first][0], offset + dtype.itemsize)
