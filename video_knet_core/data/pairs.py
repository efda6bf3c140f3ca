"""Training pairs: two frames of one (real or pseudo) video, with labels that agree over time.

Longer clips have more reference frames; where images are trained alone, there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .spoiling import spoil
from .street_frame import StreetFrame
from .video import InstanceMasks, LabelledFrame

Rng = np.random.Generator
_COVERED = 0.25  # of the frames that lose something: an object, and otherwise the whole image
_COVER_SIZE = (0.8, 1.5)  # of what covers an object, over the size of its box


@dataclass(frozen=True)
class FramePair:
    """A key frame and a reference frame shortly before or after it, in that order.

    Instance ids name the same object in both frames; 0 is stuff or unknown. T = 2 frames, or 1 if
    images are trained alone. A longer clip goes on from the reference frame in the same direction
    of time; kernels are carried from its last frame to the key frame.
    """

    images: NDArray[np.uint8]
    """[T,H,W,3] RGB."""
    semantic: NDArray[np.uint8]
    """[T,H,W] class ids, `NO_CLASS` = ignore; `SOME_STUFF` where `ClipConfig.things_only` says."""
    instance: NDArray[np.int32]
    """[T,H,W]"""
    masks: tuple[InstanceMasks, ...] | None = None
    """[T] whole masks of the same instances, from data sets where they overlap; the maps above show
    what is in front."""
    depth: NDArray[np.float32] | None = None
    """[T,H,W] metres along the optical axis of a camera whose whole image fills the crop's width;
    0 = unknown, or infinitely far. None = no frame has it."""

    def key(self) -> FramePair:
        """The key frame alone."""
        masks = None if self.masks is None else self.masks[:1]
        depth = None if self.depth is None else self.depth[:1]
        return FramePair(self.images[:1], self.semantic[:1], self.instance[:1], masks, depth)


class PairSource(Protocol):
    """Anything that gives pairs; the same generator state gives the same pair."""

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random pair of `height` x `width` pixels, geometry already augmented."""
        ...


@dataclass(frozen=True)
class KeyFrames:
    """A `PairSource` of the key frames of another, for images that are trained alone."""

    source: PairSource

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random frame of `height` x `width` pixels."""
        return self.source.sample(rng, height, width).key()


@dataclass(frozen=True)
class CropRange:
    """How training crops are drawn from a frame.

    `scale` is horizontal pixels of the crop per pixel of the source, relative to the scale at which
    the whole source fills the crop's width; below 1 the source lies in the crop's upper left.
    `aspect` is vertical scale over horizontal scale, since a robot's 4:3, 16:9 or wider image is
    squeezed into one native size.
    """

    scale: tuple[float, float] = (1.0, 2.0)
    aspect: tuple[float, float] = (0.72, 1.15)

    def draw(self, rng: Rng, source: tuple[int, ...], height: int, width: int) -> NDArray:
        """A 2x3 affine map from source pixels to crop pixels; `source` is its shape."""
        source_height, source_width = source[:2]
        enlarged = np.exp(rng.uniform(*np.log(self.scale)))
        sx = width / source_width * enlarged
        sy = sx * rng.uniform(*self.aspect)
        if enlarged >= 1:
            sy = max(sy, height / source_height)
        x, y = (
            rng.uniform(min(free, 0), 0)
            for free in (width - sx * source_width, height - sy * source_height)
        )
        matrix = np.array([[sx, 0, x], [0, sy, y]])
        if rng.random() < 0.5:  # mirror the crop
            matrix[0] = [-matrix[0, 0], 0, width - 1 - matrix[0, 2]]
        return matrix


def warp(
    frame: LabelledFrame | StreetFrame, matrix: NDArray, height: int, width: int
) -> tuple[NDArray, NDArray, NDArray]:
    """Image, classes and instances of a frame through a 2x3 affine map; what lies outside is black
    and ignored."""
    size, constant = (width, height), cv2.BORDER_CONSTANT

    def nearest(labels: NDArray, outside: int) -> NDArray:
        return cv2.warpAffine(labels, matrix, size, None, cv2.INTER_NEAREST, constant, outside)

    return (
        cv2.warpAffine(frame.image, matrix, size, flags=cv2.INTER_LINEAR),
        nearest(frame.semantic, NO_CLASS),
        nearest(frame.instance.astype(np.float32), 0).astype(np.int32),
    )


def _warp_masks(masks: InstanceMasks, matrix: NDArray, height: int, width: int) -> InstanceMasks:
    """Map whole masks as `warp` maps label images; those that are outside now are left out."""
    warped = [
        cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height), None, cv2.INTER_NEAREST) > 0
        for mask in masks.masks
    ]
    seen = np.array([mask.any() for mask in warped], bool)
    shown = np.array(warped, bool).reshape(-1, height, width)[seen]
    return InstanceMasks(masks.ids[seen], masks.class_ids[seen], shown)


def _warp_depth(
    depth: NDArray[np.float32], matrix: NDArray, height: int, width: int
) -> NDArray[np.float32]:
    """Map depth [m] as `warp` maps label images; what lies outside is unknown, 0.

    What a crop shows enlarged by the factor z looks as if it were at 1/z of its depth, so that is
    what it gets. Source: scale augmentation of ViP-DeepLab (Qiao et al., CVPR 2021). Where height
    and width grow by other factors, z is their geometric mean.
    """
    whole = height / depth.shape[0] * width / depth.shape[1]
    enlarged = np.sqrt(abs(np.linalg.det(matrix[:, :2])) / whole)
    warped = cv2.warpAffine(depth, matrix, (width, height), None, cv2.INTER_NEAREST)
    return (warped / enlarged).astype(np.float32)


def warped_pair(
    frames: Sequence[LabelledFrame | StreetFrame],
    matrices: Sequence[NDArray],
    height: int,
    width: int,
) -> FramePair:
    """Each frame through a 2x3 map of its own to `height` x `width` pixels."""
    together = list(zip(frames, matrices, strict=True))
    warped = [warp(frame, matrix, height, width) for frame, matrix in together]
    images, semantics, instances = (np.stack(part) for part in zip(*warped, strict=True))
    masks = tuple(
        _warp_masks(frame.masks, matrix, height, width)
        for frame, matrix in together
        if frame.masks is not None
    )
    depths = [
        _warp_depth(frame.depth, matrix, height, width)
        for frame, matrix in together
        if frame.depth is not None
    ]
    whole = masks if len(masks) == len(frames) else None
    depth = np.stack(depths) if len(depths) == len(frames) else None
    return FramePair(images, semantics, instances, whole, depth)


def continued(motion: NDArray, to_crop: NDArray, frames: int) -> list[NDArray]:
    """Maps [2,3] of the source to the crop in each of so many frames, which `motion` [3,3] moves on
    from one to the next."""
    first = np.vstack((to_crop, [0, 0, 1]))
    return [to_crop, *(np.linalg.matrix_power(motion, t)[:2] @ first for t in range(1, frames))]


def pseudo_motion(rng: Rng, height: int, width: int) -> NDArray:
    """A small random similarity [3, 3] of a crop, as between two frames of a moving camera: zoom,
    roll, shift."""
    strength = rng.uniform(0, 1)
    zoom = np.exp(strength * rng.uniform(-0.06, 0.06))
    roll = strength * rng.uniform(-0.025, 0.025)
    shift = strength * rng.uniform(-0.05, 0.05, 2) * (width, height)
    cx, cy = width / 2, height / 2
    c, s = zoom * np.cos(roll), zoom * np.sin(roll)
    return np.array(
        [
            [c, -s, cx - c * cx + s * cy + shift[0]],
            [s, c, cy - s * cx - c * cy + shift[1]],
            [0, 0, 1],
        ]
    )


def photometric(images: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
    """Colour, contrast, blur and noise, the same draw for all frames [T,H,W,3] of a clip."""
    x: NDArray = images.astype(np.float32)
    x = 255 * (x / 255) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    x = (x - 127) * np.float32(rng.uniform(0.7, 1.3)) + 127 + np.float32(rng.uniform(-25, 25))
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * np.float32(rng.uniform(0.4, 1.5))
    x *= rng.uniform(0.88, 1.12, 3).astype(np.float32)
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.2)
        x = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in x])
    if rng.random() < 0.5:
        x += rng.normal(0, rng.uniform(1, 7), x.shape[:3] + (1,)).astype(np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)


def spoilt_pair(pair: FramePair, rng: Rng, fraction: float) -> FramePair:
    """The same with a `fraction` of its frames spoilt, except the last one, which is the first in
    time where kernels are carried.

    Most are spoilt as a whole (`spoiling.spoil`); in the others one object is covered. Labels stay,
    so what a frame does not show can be known from those before it only.
    """
    images = pair.images.copy()
    for image, instance in zip(images[:-1], pair.instance, strict=False):
        if rng.random() < fraction:
            if rng.random() < _COVERED and instance.any():
                _cover(image, instance == rng.choice(np.unique(instance[instance > 0])), rng)
            else:
                image[:] = spoil(image, rng)
    return replace(pair, images=images)


def _cover(image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: Rng) -> None:
    """Copy another part of the image over the box of a mask, in place."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    size = rng.uniform(*_COVER_SIZE, 2) * (width, height)
    limits = mask.shape[::-1]
    columns, rows = size.astype(int).clip(1, limits)
    free = np.array(limits) - (columns, rows)
    middle = np.array([x + width / 2, y + height / 2])
    left, top = (middle - (columns / 2, rows / 2)).astype(int).clip(0, free)
    from_x, from_y = rng.integers(free + 1)
    part = image[from_y : from_y + rows, from_x : from_x + columns].copy()
    image[top : top + rows, left : left + columns] = part
