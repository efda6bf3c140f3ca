"""Trackers to compare ours with, by raw kernels and by masks; see also `sort`.

All have the life of an id of `LifecycleTracker`. With the same births, coasting, class votes and
greedy matching, a difference in the results is a difference of what the segments were recognised
by. So none is its authors' whole tracker.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError, settings_class
from ..geometry import mask_overlap
from ..types import Detections
from .embedding import Expected, LifecycleSettings, LifecycleTracker, Ranking, running_mean
from .quasi_dense import bi_softmax
from .tracker import register

KERNEL_MATCH = 0.5
"""Bi-softmax above which kernels are of one object, as the authors have it. It must be above: a
detection most similar to a track that another detection matches better has 0.5."""
KERNEL_MOMENTUM = 0.8
"""Weight of the new kernel in the memory of a track, as the authors have it."""
MIN_MASK_OVERLAP = 0.3
"""Minimum intersection over union of two masks of one object; the gate of SORT is the same."""

_Mask = NDArray[np.bool_]
_Floats = NDArray[np.floating]


def image_of(detections: Detections, tracker: str) -> NDArray[np.uint8]:
    """The image; ConfigError that names the tracker if there is none."""
    if detections.image is None:
        raise ConfigError(f"tracker {tracker!r}: expected an image in Detections.image, got none")
    return detections.image


@register
class _KernelTracker(LifecycleTracker):
    """Raw kernels instead of embeddings: the toy experiment of the paper, "K-Net alone tracks".

    Similarity is the bi-softmax of dot products, nothing else, as in the authors' code
    (knet_quansi_dense_embed_fc_toy_exp.py). There is no threshold on the cosine as for our
    embeddings: nothing trained the cosine of kernels towards 1 or 0. Dot products need none: a
    normalised kernel has length sqrt(C), so they differ by tens and the softmax is nearly one-hot.
    A pair matches if each is the other's nearest, and a new object alone with one track takes its
    id: that is the weakness of the original too. For the original, in the authors' tracker, run a
    model without `kernels.embedding` with tracker `quasi_dense`.
    """

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "kernels"

    def describe(self, detections: Detections) -> _Floats:
        """The kernels; ConfigError if the engine returns none."""
        if detections.kernels is None:
            raise ConfigError(
                "tracker 'kernels': expected kernels of the network in Detections.kernels, got none"
            )
        return detections.kernels

    def blend(self, previous: _Floats, cue: _Floats) -> _Floats:
        """A running mean."""
        return running_mean(previous, cue, KERNEL_MOMENTUM)

    def compare(self, detections: Detections, cues: _Floats, expected: Expected) -> Ranking:
        """The place of a track plays no part."""
        remembered = np.stack(expected.cues).astype(np.float64)
        similarity = bi_softmax(cues.astype(np.float64) @ remembered.T)
        return similarity, similarity > KERNEL_MATCH


@register
class _IouTracker(LifecycleTracker):
    """Intersection over union with the last mask of a track, on the engine's map. No motion."""

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "iou"

    def describe(self, detections: Detections) -> list[_Mask]:
        """The masks. Those of tracks are fitted to the map: another engine may have another."""
        size = detections.segment_map.shape
        self.cues = {i: _fitted(mask, size) for i, mask in self.cues.items()}
        return [mask.copy() for mask in detections.row_masks]

    def compare(self, detections: Detections, cues: list[_Mask], expected: Expected) -> Ranking:
        """Boxes play no part."""
        overlap = mask_overlap(detections.row_masks, np.stack(expected.cues))
        return overlap, overlap >= MIN_MASK_OVERLAP


@register
class _MaskPropagationTracker(_IouTracker):
    """Masks are carried into the next frame by dense optical flow, and then compared.

    A track without pixels keeps what was carried. That lies underneath what hides it and goes with
    the flow of that, for nothing else is seen there: the weakness of every propagation.
    """

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "mask_propagation"

    def reset(self) -> None:
        """Forget all tracks and the last frame."""
        super().reset()
        self._previous: NDArray[np.uint8] | None = None
        """[H, W] the last frame in grey."""

    def describe(self, detections: Detections) -> list[_Mask]:
        """As above, then carry all masks; ConfigError without an image."""
        image = image_of(detections, self.settings.tracker)
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        masks = super().describe(detections)
        if self.cues and self._previous is not None:
            height, width = detections.segment_map.shape
            before = _fitted(self._previous, grey.shape)
            source = _source_of_each_pixel(before, grey, height, width)
            self.cues = {i: _carry(mask, source) for i, mask in self.cues.items()}
        self._previous = grey
        return masks


def _fitted(values: NDArray, size: tuple[int, ...]) -> NDArray:
    """Values of one byte [h, w] at another size, if that is another."""
    if values.shape == size:
        return values
    resized = cv2.resize(values.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return resized.view(values.dtype)


def _source_of_each_pixel(
    before: NDArray[np.uint8], now: NDArray[np.uint8], height: int, width: int
) -> NDArray[np.float32]:
    """[height, width, 2] x, y in a map of `before` of what is at each place of a map of `now`.

    DIS flow (Kroeger et al., ECCV 2016) from `now` back to `before`, [H, W] both, made smaller.
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(now, before, None)  # type: ignore[call-overload]
    scale = (width / now.shape[1], height / now.shape[0])
    small = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * scale
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return (places + small).astype(np.float32)


def _carry(mask: _Mask, source: NDArray[np.float32]) -> _Mask:
    """The mask [h, w] as it is after the flow; what comes from outside the image is not in it."""
    return cv2.remap(mask.astype(np.uint8), source, None, cv2.INTER_NEAREST).astype(bool)
