"""Objects cut out of images: reading sequences of them, changing their colours, drawing them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image_files import FrameError, read_pixels
from ..types import ClassTable

_KINDS = {
    "car": ("vehicle", 1.45),
    "bus": ("vehicle", 3.0),
    "rider": ("cyclist", 1.7),
    "person": ("person", 1.7),
}
"""Class of the street and height in metres of each kind of sprite."""
HELD_OUT_SPRITES = ("car-turn", "drift-straight", "lucia", "rollerblade", "scooter-black")
"""Sequences for evaluation, kept out of training: two vehicles, two persons and a cyclist."""
NOT_OF_DAVIS = ("drift-chicane", "drift-straight", "parkour")
"""Sequences that DAVIS took from others: weights trained on them could not be given away."""
SpriteSplit = Literal["train", "held_out", "all"]


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
    root: str | Path,
    classes: ClassTable,
    split: SpriteSplit = "train",
    licenses: Collection[str] = (),
) -> list[Sprite]:
    """Read `index.json` and the cut-outs beside it; those of none of `classes` are left out.

    Of the split "held_out" are the sequences named in `HELD_OUT_SPRITES`, and FrameError if there
    are none; of "train" the others but those of `NOT_OF_DAVIS`. Entries whose `license` is none of
    `licenses`, if any are named, are left out; those without one have the terms of the folder.
    FileNotFoundError if a cut-out is missing or unreadable.
    """
    root = Path(root)
    index = json.loads((root / "index.json").read_text())
    held_out, names = index.keys() & set(HELD_OUT_SPRITES), {info.name for info in classes}
    wanted = {
        "all": set(index),
        "held_out": held_out,
        "train": index.keys() - held_out - set(NOT_OF_DAVIS),
    }[split]
    if split == "held_out" and not held_out:
        expected = ", ".join(HELD_OUT_SPRITES)
        raise FrameError(f"{root} has none of the held-out sprites ({expected}), got {list(index)}")
    return [
        _read_sprite(root / name, entry, classes)
        for name, entry in index.items()
        if name in wanted and entry["class"] in _KINDS and _KINDS[entry["class"]][0] in names
        if not licenses or "license" not in entry or entry["license"] in licenses
    ]


def _read_sprite(folder: Path, entry: dict[str, Any], classes: ClassTable) -> Sprite:
    """The sequence of one entry of `index.json`."""
    frames, (name, metres) = entry["frames"], _KINDS[entry["class"]]
    boxes = np.array([frame["bbox"] for frame in frames], np.float64)
    scales = np.array([frame["scale"] for frame in frames], np.float64)
    return Sprite(
        class_id=classes.id_of(name),
        cutouts=tuple(_read_cutout(folder, frame["frame"]) for frame in frames),
        centres=(boxes[:, :2] + boxes[:, 2:]) / 2 * scales[:, None],
        scales=scales,
        whole=np.array([_is_whole(frame) for frame in frames]),
        metres=metres,
    )


def _read_cutout(folder: Path, number: int) -> tuple[NDArray, NDArray]:
    stem = f"{number:05d}"
    image = read_pixels(folder / f"{stem}.jpg")
    mask = read_pixels(folder / f"{stem}.png", cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None:
        raise FileNotFoundError(f"{folder}: cut-out {stem} is missing or unreadable")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (mask > 0).astype(np.uint8)


def _is_whole(frame: dict[str, Any]) -> bool:
    """Whether the box keeps off the border of the source frame; its size need not be known."""
    if "source_size" not in frame:
        return True
    (x0, y0, x1, y1), (width, height) = frame["bbox"], frame["source_size"]
    return min(x0, y0) > 1 and x1 < width - 2 and y1 < height - 2


def repainted(image: NDArray[np.uint8], hue: int, saturation: float) -> NDArray[np.uint8]:
    """RGB in other colours: turned by `hue` (256 = once round; a little, for skin has one too),
    and `saturation` times as strong."""
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    colours[..., 0] += np.uint8(hue % 256)
    colours[..., 1] = cv2.convertScaleAbs(colours[..., 1], alpha=saturation)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB_FULL), np.uint8)


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
