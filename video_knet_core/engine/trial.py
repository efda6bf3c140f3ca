"""Whether an engine sees what the CPU sees. A wrong result of a GPU looks like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.synthetic_street import SyntheticStreet
from ..types import NO_CLASS, Segments
from .onnx_runtime import OnnxRuntime
from .runtime import BackendError, Runtime

FRAMES = 4
"""With TensorRT, each bank of kernels is written by a direct step and by a launched graph."""
MOST_DIFFERENT = 0.2
"""Share of the pixels that may be of another class. Half precision changes less than 0.001; what
made this check necessary, a resize that ONNX Runtime's CUDA backend got wrong, 0.77."""

_log = logging.getLogger(__name__)


def check_agreement(runtime: Runtime, path: Path, threads: int) -> None:
    """Compare `runtime` with ONNX Runtime on the CPU, on some frames of a drawn street.

    It takes about a second, most of it for the steps on the CPU.

    Args:
        path: the exported model that `runtime` runs.
        threads: of the CPU.

    Raises:
        BackendError: a step failed, or too many pixels are of another class.
    """
    images = _images(runtime.info.height, runtime.info.width)
    reference = OnnxRuntime(path, threads)
    try:
        expected = _classes(reference, images)
    finally:
        reference.close()
    differ = float((_classes(runtime, images) != expected).mean())
    _log.debug("%s: %.2f %% of the pixels are not as on the CPU", runtime.name, 100 * differ)
    if differ > MOST_DIFFERENT:
        raise BackendError(
            f"it computes something else than the CPU: on a test image {differ:.0%} of the pixels "
            f"are of another class, at most {MOST_DIFFERENT:.0%} may be"
        )


def _images(height: int, width: int) -> list[NDArray[np.uint8]]:
    street = SyntheticStreet(0)
    frames = (street.frame(number).image for number in range(FRAMES))
    return [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in frames]


def _classes(runtime: Runtime, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """[F,h,w] class of each pixel of each frame, in a stream of their own."""
    found, state = [], None
    for image in images:
        segments, state = runtime.step(image, state)
        found.append(_class_map(segments))
    return np.stack(found)


def _class_map(segments: Segments) -> NDArray[np.int64]:
    """[h,w] class ids, `NO_CLASS` where no segment is."""
    return np.concatenate(([NO_CLASS], segments.class_ids))[segments.map]
