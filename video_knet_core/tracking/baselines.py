"""Trackers to compare ours with. Each is an `Association`: the life of an id is that of `Tracker`.

That is on purpose: with the same births, coasting, class votes and greedy matching, a difference in
the numbers is a difference of what the segments were known by. So none is its authors' whole
tracker. SORT, which needs a filter of its own, is in `sort.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError
from .association import Float, bi_softmax, cosine, mask_overlap
from .detections import Pixels, ThingDetections
from .strategy import Association, Expected, VectorAssociation

Mask = NDArray[np.bool_]

KERNEL_MATCH = 0.5
"""Bi-softmax above which kernels are of one object, as the authors have it. It must be above: a
detection that likes a track which likes another one better has 0.5."""
KERNEL_MOMENTUM = 0.8
"""Weight of the new kernel in the memory of a track, as the authors have it."""
LEAST_MASK_OVERLAP = 0.3
"""Least intersection over union of two masks of one object; the gate of SORT is the same."""
LEAST_APPEARANCE = 0.7
"""Least cosine of the features of one object. On synthetic streets 95 % of the objects are above
0.9 from one frame to the next, and four of five above 0.75 a second later; but so is one of five
pairs of different objects of one class."""
APPEARANCE_MOMENTUM = 0.2
"""Weight of the new features in the memory of a track: little, as a part of it looks different."""
APPEARANCE_REACH = 1.0
"""Diagonals of its last box that an object may be off the place where its motion leads."""
APPEARANCE_OVERLAP_WEIGHT = 0.1
"""Weight of box overlap in the order of possible matches: it decides between look-alikes only."""

ImageFeatures = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""RGB image [H, W, 3] -> features [C, h, w] of all of it."""


class KernelAssociation(VectorAssociation):
    """Raw kernels instead of embeddings: the toy experiment of the paper, "K-Net alone tracks".

    Alike is what bi-softmax says of dot products, nothing else, as in the authors' code
    (knet_quansi_dense_embed_fc_toy_exp.py). No cosine is asked for as our embeddings are: nothing
    trained the cosine of kernels towards 1 or 0, so no threshold on it would mean much. Dot
    products need none: a normalised kernel has length sqrt(C), so they differ by tens and the
    softmax is nearly one-hot. A pair matches if each is the other's nearest, and a stranger alone
    with one track takes its id: that is the weakness of the original too. For the original, in the
    authors' tracker, run a model without `kernels.embedding` with association `quasi_dense`.
    """

    momentum = KERNEL_MOMENTUM

    def observe(self, detections: ThingDetections) -> None:
        """ConfigError if the engine gives no kernels."""
        self.vectors(detections)

    def vectors(self, detections: ThingDetections) -> Float:
        """The kernels."""
        if detections.kernels is None:
            raise ConfigError(
                "association 'kernels' needs the network's kernels (Detections.kernels), "
                "but the engine gives none"
            )
        return detections.kernels

    def compare(self, detections: ThingDetections, expected: Expected) -> tuple[Float, Mask]:
        """The place of a track plays no part."""
        kernels, remembered = self.vectors(detections), self.remembered(expected)
        alike = bi_softmax(kernels.astype(np.float64) @ remembered.astype(np.float64).T)
        return alike, alike > KERNEL_MATCH


class MaskOverlap(Association[Mask]):
    """Intersection over union with the last mask of a track, on the engine's map. No motion."""

    name = "iou"

    def observe(self, detections: ThingDetections) -> None:
        """ConfigError if the pixels are not given."""
        _pixels(detections, self.name)

    def compare(self, detections: ThingDetections, expected: Expected) -> tuple[Float, Mask]:
        """Boxes play no part."""
        remembered = np.stack([self.cues[track_id] for track_id in expected.ids])
        overlap = mask_overlap(_pixels(detections, self.name).masks, remembered)
        return overlap, overlap >= LEAST_MASK_OVERLAP

    def remember(self, track_id: int, detections: ThingDetections, i: int) -> None:
        """The mask of detection i, in place of the last one."""
        self.cues[track_id] = _pixels(detections, self.name).masks[i].copy()


class MaskPropagation(MaskOverlap):
    """Masks are carried into the next frame by dense optical flow, and then compared.

    A track without pixels keeps what was carried. That lies underneath what hides it and goes with
    the flow of that, for nothing else is seen there: the weakness of every propagation.
    """

    name = "mask_propagation"
    _before: NDArray[np.uint8] | None = None
    """[H, W] the last frame in grey."""

    def observe(self, detections: ThingDetections) -> None:
        """Carry all masks; ConfigError if the pixels are not given."""
        pixels = _pixels(detections, self.name)
        grey = np.asarray(cv2.cvtColor(pixels.image, cv2.COLOR_RGB2GRAY), np.uint8)
        if self.cues and self._before is not None:
            height, width = pixels.slot_map.shape
            source = _source_of_each_pixel(self._before, grey, height, width)
            self.cues = {i: _carry(mask, source) for i, mask in self.cues.items()}
        self._before = grey

    def reset(self) -> None:
        """Forget the masks and the last frame."""
        super().reset()
        self._before = None

    def state(self) -> dict[str, Any]:
        """The masks and the last frame."""
        return {**super().state(), "before": self._before}

    def restore(self, state: dict[str, Any]) -> None:
        """See `state`."""
        super().restore(state)
        self._before = state["before"]


class AppearanceAssociation(VectorAssociation):
    """Features of an image network, averaged over the mask of a segment, and motion.

    UniTrack's idea (Wang et al., NeurIPS 2021): a network that has never seen a track, trained for
    something else, tells objects apart well enough. Nothing of our network but its masks is used. A
    segment far from where the motion of a track leads is another object, however alike.

    Args:
        features: the image network.
    """

    momentum = APPEARANCE_MOMENTUM

    def __init__(self, features: ImageFeatures) -> None:
        super().__init__()
        self._features = features
        self._vectors: Float = np.zeros((0, 0))

    def observe(self, detections: ThingDetections) -> None:
        """Run the image network, unless there is no thing; ConfigError if there are no pixels."""
        pixels = _pixels(detections, "appearance")
        if len(detections):
            self._vectors = _pooled(self._features(pixels.image), pixels)

    def vectors(self, detections: ThingDetections) -> Float:
        """The features that `observe` has found."""
        return self._vectors

    def compare(self, detections: ThingDetections, expected: Expected) -> tuple[Float, Mask]:
        """Near and alike; the overlap orders them."""
        alike = cosine(self._vectors, self.remembered(expected))
        near = expected.distance(detections.regions.boxes) <= APPEARANCE_REACH
        rank = alike + APPEARANCE_OVERLAP_WEIGHT * expected.overlap
        return rank, near & (alike >= LEAST_APPEARANCE)


def _pixels(detections: ThingDetections, association: str) -> Pixels:
    if detections.pixels is None:
        raise ConfigError(
            f"association {association!r} needs the image and the segment map "
            "(ThingDetections.pixels), but none are given"
        )
    return detections.pixels


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


def _carry(mask: Mask, source: NDArray[np.float32]) -> Mask:
    """The mask [h, w] as it is after the flow; what comes from outside the image is not in it."""
    return cv2.remap(mask.astype(np.uint8), source, None, cv2.INTER_NEAREST).astype(bool)


def _pooled(features: NDArray[np.float32], pixels: Pixels) -> NDArray[np.float32]:
    """[N, C] mean of features [C, h, w] under each mask; cells count by the share it has of them.

    So a segment smaller than a cell has features too.
    """
    channels, height, width = features.shape
    shares = [
        cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for mask in pixels.masks
    ]
    weights = np.stack(shares).reshape(-1, height * width)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ features.reshape(channels, -1).T
