"""Whether an engine sees what the CPU sees. A wrong result of a GPU looks like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..types import NO_CLASS, Detections
from .base import BackendError, Runtime
from .onnx_runtime import OnnxRuntime

FRAMES = 4
"""With TensorRT, each bank of kernels is written by a direct step and by a launched graph."""
MOST_DIFFERENT = 0.2
"""Share of the pixels with a segment that may be of another class. Half precision changes less than
0.001; what made this check necessary, a resize that ONNX Runtime's CUDA backend got wrong, 0.77."""
LEAST_COVERED = 0.02
"""Share of an image that counts as having segments, though fewer pixels have: a few of them at the
border of one small object say nothing."""

_log = logging.getLogger(__name__)


def check_agreement(runtime: Runtime, path: Path, threads: int) -> None:
    """Compare `runtime` with ONNX Runtime on the CPU, on some frames of a drawn street.

    Classes are compared, of every pixel; scores, embeddings and masks that overlap are not. It
    takes as long as `FRAMES` steps on the CPU, and somewhat more.

    Args:
        path: the exported model that `runtime` runs.
        threads: of the CPU.

    Raises:
        BackendError: a step failed, or too many pixels are of another class.
    """
    images = _images(runtime.info.height, runtime.info.width)
    try:
        found = _classes(runtime, images)
    except BackendError:
        raise
    except Exception as error:  # of many libraries, or results that are no segments
        raise BackendError(f"a step failed: {str(error) or type(error).__name__}") from None
    reference = OnnxRuntime(path, threads)
    try:
        differ = _difference(found, _classes(reference, images))
    finally:
        reference.close()
    _log.debug("%s: %.2f %% of the segments are not as on the CPU", runtime.name, 100 * differ)
    if differ > MOST_DIFFERENT:
        raise BackendError(
            f"it computes something else than the CPU: on a test image {differ:.0%} of the pixels "
            f"with a segment are of another class, at most {MOST_DIFFERENT:.0%} may be"
        )


def _difference(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Share of the pixels with a segment whose class is another, of the worst of F frames."""
    covered = ((found != NO_CLASS) | (expected != NO_CLASS)).mean((1, 2))
    wrong = (found != expected).mean((1, 2))
    return float((wrong / np.maximum(covered, LEAST_COVERED)).max())


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


def _class_map(segments: Detections) -> NDArray[np.int64]:
    """[h,w] class ids, `NO_CLASS` where no segment is."""
    return np.concatenate(([NO_CLASS], segments.class_ids))[segments.segment_map]
