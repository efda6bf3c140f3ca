"""The self-test of an engine: are its results those of the CPU? Wrong ones look like any other.

Measured with the shipped model, as the fraction of pixels of another class in the worst frame:
OpenVINO and torch against ONNX Runtime 0.000, half precision 0.002, OpenVINO in bfloat16 0.04; with
channels first and last exchanged in the last resize 0.92 (so ONNX Runtime's CUDA backend once
computed it), in the one before 0.20 to 0.29, with a softmax over another axis 0.99.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS, Detections
from .base import BackendError, Runtime, Size

FRAMES = 4
"""TensorRT runs the first directly and the others by a CUDA graph."""
MAX_DIFFERENCE = 0.2
"""Fraction of the pixels with a segment that may be of another class: no more than an engine that
is right ever has, and less than one that is broken."""
SAME_SEGMENTS = 0.01
"""The same for an engine of lower precision that "auto" may take: half precision, which costs
nothing (0.002), passes; bfloat16 does not where it costs track ids, as with street_lite0."""
_MIN_COVERAGE = 0.02
"""Fraction of an image that counts as having segments, though fewer pixels have: a few of them at
the border of one small object mean nothing."""

_log = logging.getLogger(__name__)


def expected_classes(path: Path, threads: int, size: Size | None = None) -> NDArray[np.int64]:
    """What ONNX Runtime finds on the CPU on `synthetic_frames`: [F,h,w] class of each pixel.

    Args:
        path: an exported model.
        threads: of the CPU.
        size: one of the model's native sizes; None is the first.

    Raises:
        BackendError: there is no ONNX Runtime.
    """
    try:
        from .onnx_runtime import OnnxRuntime
    except ImportError as error:
        raise BackendError(f"no ONNX Runtime to compare results with: {error}") from None
    reference = OnnxRuntime(path, threads, size=size)
    info = reference.info
    try:
        return _classes(reference, synthetic_frames(info.height, info.width))
    finally:
        reference.close()


def check_agreement(
    runtime: Runtime, expected: NDArray[np.int64], limit: float = MAX_DIFFERENCE
) -> None:
    """Compare `runtime` with ONNX Runtime on the CPU, on `synthetic_frames`.

    Classes are compared, of every pixel; scores, embeddings and masks that overlap are not. It
    takes as long as `FRAMES` steps, and somewhat more.

    Args:
        expected: `expected_classes` of the exported model that `runtime` runs.
        limit: fraction of the pixels with a segment that may be of another class.

    Raises:
        BackendError: a step failed, or too many pixels are of another class.
    """
    images = synthetic_frames(runtime.info.height, runtime.info.width)
    try:
        difference = _difference(_classes(runtime, images), expected)
    except BackendError:
        raise
    except Exception as error:  # of many libraries, or results that are no segments
        raise BackendError(f"a step failed: {str(error) or type(error).__name__}") from None
    _log.debug("%s: %.2f %% of the pixels differ from the CPU's", runtime.name, 100 * difference)
    if difference > limit:
        raise BackendError(
            f"its results are not those of the CPU: on a synthetic frame {difference:.0%} of the "
            f"pixels with a segment are of another class, expected at most {limit:.0%}"
        )


def synthetic_frames(height: int, width: int, count: int = FRAMES) -> list[NDArray[np.uint8]]:
    """Images [height, width, 3] of a plain street whose objects move; always the same pixels."""
    random = np.random.default_rng(0)
    y = ((np.arange(height) + 0.5) / height)[:, None, None]
    x = ((np.arange(width) + 0.5) / width)[None, :, None]
    scene = np.where(y < 0.5, (150, 190, 235) + y * (75, 40, 0), 80 + y * (25, 25, 28))
    scene = np.where((y > 0.52) & (np.abs(x - 0.5) > y - 0.42), (165, 160, 155), scene)  # pavement
    for left in np.arange(0, 1, 0.17):  # houses
        house = (x > left) & (x < left + 0.16) & (y > random.uniform(0.12, 0.3)) & (y < 0.52)
        scene = np.where(house, random.uniform(110, 200) + random.uniform(-20, 20, 3), scene)
        windows = ((x - left) % 0.04 > 0.02) & (y % 0.08 > 0.04)
        scene = np.where(house & windows, (60, 70, 80), scene)
    leaves = (60, 100, 45) + random.normal(0, 22, (height, width, 1))
    for centre in (0.08, 0.93):
        tree = ((x - centre) / 0.09) ** 2 + ((y - 0.35) / 0.17) ** 2 < 1
        scene = np.where(tree, leaves, scene)
    scene += random.normal(0, 5, (height, width, 1))
    return [_with_objects(scene, 0.02 * number) for number in range(count)]


def _with_objects(scene: NDArray[np.float64], shift: float) -> NDArray[np.uint8]:
    """Two cars and a person, moved by `shift` widths."""
    image = np.clip(scene, 0, 255).astype(np.uint8)
    height, width = image.shape[:2]

    def fill(left: float, top: float, w: float, h: float, color: tuple[int, int, int]) -> None:
        rows = slice(round(top * height), round((top + h) * height))
        image[rows, max(round(left * width), 0) : max(round((left + w) * width), 0)] = color

    cars = ((0.3 + shift, 0.56, 1.0, (170, 30, 30)), (0.62 - shift, 0.55, 0.6, (40, 60, 150)))
    for left, top, size, color in cars:
        fill(left + 0.03 * size, top - 0.065 * size, 0.1 * size, 0.07 * size, (35, 40, 50))
        fill(left, top, 0.16 * size, 0.11 * size, color)
        for wheel in (0.02, 0.11):
            fill(left + wheel * size, top + 0.09 * size, 0.03 * size, 0.04 * size, (15, 15, 15))
    left = 0.83 - shift
    fill(left + 0.007, 0.45, 0.016, 0.05, (200, 160, 130))
    fill(left, 0.5, 0.03, 0.14, (50, 60, 120))
    for leg in (0, 0.018):
        fill(left + leg, 0.64, 0.012, 0.12, (30, 30, 40))
    return image


def _difference(got: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Fraction of the pixels with a segment whose class is another, of the worst of F frames."""
    covered = ((got != NO_CLASS) | (expected != NO_CLASS)).mean((1, 2))
    wrong = (got != expected).mean((1, 2))
    return float((wrong / np.maximum(covered, _MIN_COVERAGE)).max())


def _classes(runtime: Runtime, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """[F,h,w] class of each pixel of each frame, in a stream of their own."""
    maps, state = [], None
    for image in images:
        detections, state = runtime.step(image, state)
        maps.append(_class_map(detections))
    return np.stack(maps)


def _class_map(detections: Detections) -> NDArray[np.int64]:
    """[h,w] class ids, `NO_CLASS` where no segment is."""
    return np.concatenate(([NO_CLASS], detections.class_ids))[detections.segment_map]
