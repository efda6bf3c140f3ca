"""Stills turned into clips: a small camera motion, and moving cut-out objects pasted on top.

A still with semantic labels gives a pair with exact tracks, because both frames are the same scene
seen through two maps. Objects come from sequences of cut-outs (an image and a mask per frame), so a
pasted object moves and deforms as it did in its own video.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable
from .camvid import CamVid
from .frames import FrameError
from .pairs import CropRange, FramePair, Rng, camera_motion, warp

STREET_CLASS_OF_SPRITE = {
    "car": "vehicle",
    "bus": "vehicle",
    "rider": "cyclist",
    "person": "person",
}
SPRITE_METRES = {"car": 1.45, "bus": 3.0, "rider": 1.7, "person": 1.7}
"""How high such objects are."""
HELD_OUT_SPRITES = ("car-turn", "drift-straight", "lucia", "rollerblade", "scooter-black")
"""Sequences for evaluation, kept out of training: two vehicles, two persons and a cyclist."""
SpriteSplit = Literal["train", "held_out", "all"]
MIN_INSTANCE_PIXELS = 60
MAX_ASPECT = 1.5
"""Width over height of a region that may be one object, a car seen from behind."""
MIN_FILL = 0.65
"""Share of its box that one object fills ..."""
MIN_FILL_UPRIGHT = 0.35
"""... and one that stands upright on legs or wheels."""
UPRIGHT_ASPECT = 0.7


@dataclass(frozen=True)
class Sprite:
    """One object over time: cut-outs (RGB, mask) and the centre of each in its source frame."""

    class_id: int
    cutouts: tuple[tuple[NDArray, NDArray], ...]
    centres: NDArray[np.float64]
    """[T,2] x, y in cut-out pixels."""
    scales: NDArray[np.float64]
    """[T] cut-out pixels per pixel of the source frame; may differ from frame to frame."""
    whole: NDArray[np.bool_]
    """[T] False where the border of the source frame cuts the object off."""
    metres: float
    """Height of such objects."""


def load_sprites(
    root: str | Path, classes: ClassTable, split: SpriteSplit = "train"
) -> list[Sprite]:
    """Read `index.json` and the cut-outs beside it; sequences of other classes are left out.

    Args:
        classes: those of the model; of the street, by name.
        split: "held_out" are the sequences named in `HELD_OUT_SPRITES`, "train" the others.

    Raises:
        ValueError: there is no such split.
        FrameError: the split is "held_out" and the folder has none of those.
        FileNotFoundError: a cut-out is missing or unreadable.
    """
    if split not in get_args(SpriteSplit):
        raise ValueError(f"split must be one of {get_args(SpriteSplit)}, found {split!r}")
    root = Path(root)
    index = json.loads((root / "index.json").read_text())
    held_out, names = index.keys() & set(HELD_OUT_SPRITES), {info.name for info in classes}
    if split == "held_out" and not held_out:
        wanted = ", ".join(HELD_OUT_SPRITES)
        raise FrameError(f"{root} has none of the held-out sprites ({wanted}), found {list(index)}")
    return [
        _read_sprite(root / name, entry, classes)
        for name, entry in index.items()
        if STREET_CLASS_OF_SPRITE.get(entry["class"]) in names
        and split in ("all", "held_out" if name in held_out else "train")
    ]


def _read_sprite(folder: Path, entry: dict[str, Any], classes: ClassTable) -> Sprite:
    """The sequence of one entry of `index.json`."""
    frames, kind = entry["frames"], entry["class"]
    boxes = np.array([frame["bbox"] for frame in frames], np.float64)
    scales = np.array([frame["scale"] for frame in frames], np.float64)
    return Sprite(
        class_id=classes.id_of(STREET_CLASS_OF_SPRITE[kind]),
        cutouts=tuple(_read_cutout(folder, frame["frame"]) for frame in frames),
        centres=(boxes[:, :2] + boxes[:, 2:]) / 2 * scales[:, None],
        scales=scales,
        whole=np.array([_is_whole(frame) for frame in frames]),
        metres=SPRITE_METRES[kind],
    )


def _read_cutout(folder: Path, number: int) -> tuple[NDArray, NDArray]:
    stem = f"{number:05d}"
    image = cv2.imread(str(folder / f"{stem}.jpg"))
    mask = cv2.imread(str(folder / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None:
        raise FileNotFoundError(f"{folder}: cut-out {stem} is missing or unreadable")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (mask > 0).astype(np.uint8)


def _is_whole(frame: dict[str, Any]) -> bool:
    """Whether the box keeps off the border of the source frame; its size need not be known."""
    if "source_size" not in frame:
        return True
    (x0, y0, x1, y1), (width, height) = frame["bbox"], frame["source_size"]
    return min(x0, y0) > 1 and x1 < width - 2 and y1 < height - 2


class CopyPaste:
    """A `PairSource` of real stills with pasted sprites.

    Args:
        stills: labelled real frames.
        sprites: what is pasted; may be empty.
        things: class ids whose connected regions in the stills become instances.
        max_sprites: most objects pasted into one pair.
    """

    def __init__(
        self,
        stills: CamVid,
        sprites: Sequence[Sprite],
        things: Sequence[int],
        max_sprites: int = 4,
        crop: CropRange | None = None,
        causal: bool = False,
    ) -> None:
        self.causal = causal
        self.stills = stills
        self.sprites = sprites
        self.things = tuple(things)
        self.max_sprites = max_sprites
        self.crop = crop or CropRange()

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        image, semantic = self.stills[int(rng.integers(len(self.stills)))]
        instance = instances_of_regions(semantic, self.things)
        to_crop = self.crop.draw(rng, image.shape[:2], height, width)
        motion = camera_motion(rng, height, width, strength=rng.uniform(0, 1))
        moved = motion[:2] @ np.vstack((to_crop, [0, 0, 1]))
        frames = [warp(image, semantic, instance, m, height, width) for m in (to_crop, moved)]
        if self.sprites:
            count = int(rng.integers(self.max_sprites + 1))
            for i, foot_y in enumerate(np.sort(rng.uniform(0.5, 1.1, count)) * height):
                self._paste(frames, int(instance.max()) + 1 + i, foot_y, motion, rng)
        images, semantics, instances = (np.stack(part) for part in zip(*frames, strict=True))
        return FramePair(images, semantics, instances)

    def _paste(self, frames: list, track: int, foot_y: float, motion: NDArray, rng: Rng) -> None:
        """Put one sprite into both frames, in place; it stands on the ground, nearer = larger."""
        sprite = self.sprites[int(rng.integers(len(self.sprites)))]
        first = int(rng.integers(len(sprite.cutouts)))
        later = rng.integers(-3, 4)
        later = -abs(later) if self.causal else later
        second = int(np.clip(first + later, 0, len(sprite.cutouts) - 1))
        height, width = frames[0][1].shape
        tall = np.clip(foot_y / height - 0.35, 0.1, None) * height * rng.uniform(0.5, 1.2)
        scale = min(tall / sprite.cutouts[first][0].shape[0], 1.5)
        foot = np.array([rng.uniform(-0.05, 1.05) * width, foot_y])
        mirror = rng.random() < 0.5
        brightness = rng.uniform(0.6, 1.3)
        for frame, index in zip(frames, (first, second), strict=True):
            cutout, mask = sprite.cutouts[index]
            step = (sprite.centres[index] - sprite.centres[first]) * scale
            place = foot + step * (-1 if mirror else 1, 1)
            size = scale
            if frame is frames[1]:
                place = motion[:2, :2] @ place + motion[:2, 2]
                size = scale * float(np.hypot(*motion[:2, 0]))
            matrix = placement(cutout.shape, size, place, mirror)
            blend(frame, cutout, mask, matrix, brightness, sprite.class_id, track)


def instances_of_regions(semantic: NDArray, things: Sequence[int]) -> NDArray[np.int32]:
    """Connected regions of each thing class as instances 1, 2, ...

    Semantic labels do not part objects that touch. A region that is small, wide or ragged is more
    likely several objects or a part of one, and stays 0 (no identity): taken as one instance, a row
    of parked cars would teach the network to join cars.
    """
    instance = np.zeros(semantic.shape, np.int32)
    count = 0
    for class_id in things:
        _, regions, stats, _ = cv2.connectedComponentsWithStats(
            (semantic == class_id).astype(np.uint8), connectivity=4
        )
        for region, (_, _, width, height, area) in enumerate(stats):
            if region and _looks_single(width, height, area):
                count += 1
                instance[regions == region] = count
    return instance


def _looks_single(width: int, height: int, area: int) -> bool:
    fill = MIN_FILL_UPRIGHT if width <= UPRIGHT_ASPECT * height else MIN_FILL
    large = area >= MIN_INSTANCE_PIXELS
    return large and width <= MAX_ASPECT * height and area >= fill * width * height


def placement(shape: tuple[int, ...], scale: float, foot: NDArray, mirror: bool) -> NDArray:
    """2x3 map of a cut-out of `shape` (h, w, ...) whose bottom centre comes to `foot` (x, y)."""
    height, width = shape[:2]
    sx = -scale if mirror else scale
    return np.array([[sx, 0, foot[0] - sx * width / 2], [0, scale, foot[1] - scale * height]])


def blend(
    frame: tuple[NDArray, NDArray, NDArray],
    cutout: NDArray,
    mask: NDArray,
    matrix: NDArray,
    brightness: float,
    class_id: int,
    track: int,
) -> None:
    """Draw a cut-out over image, semantic and instance maps, with a soft edge in the image only."""
    image, semantic, instance = frame
    size = (image.shape[1], image.shape[0])
    pixels = cv2.warpAffine(cutout, matrix, size).astype(np.float32) * brightness
    alpha = cv2.warpAffine(mask.astype(np.float32), matrix, size)
    hard = alpha > 0.5
    alpha = cv2.GaussianBlur(alpha, (3, 3), 0)[..., None]
    image[:] = np.clip(image * (1 - alpha) + pixels * alpha, 0, 255)
    semantic[hard] = class_id
    instance[hard] = track
