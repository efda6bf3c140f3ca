"""Pictures of results: tinted segments with contours and names."""

from __future__ import annotations

import colorsys
import unicodedata
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .types import ClassInfo, ClassTable, PanopticFrame, Track

OPACITY = 0.5
"""Of the colours over the image, unless another is given."""
_GOLDEN = 0.618033988749895
"""Steps of this fraction of a turn keep hues of neighbouring ids far apart, however many."""

Image = NDArray[Any]
"""uint8 [H, W, 3] RGB; the stubs of cv2 lack the dtype."""
Color = tuple[int, int, int]


@lru_cache(maxsize=4096)
def track_color(track_id: int) -> Color:
    """Bright RGB colour of a track; the same id has the same colour in every frame and run."""
    hue = (track_id * _GOLDEN) % 1.0
    saturation = (0.8, 0.5, 0.65)[track_id % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def overlay(
    image: NDArray[np.uint8], frame: PanopticFrame, classes: ClassTable, opacity: float = OPACITY
) -> Image:
    """Draw the result for an image over it: both are uint8 [H, W, 3] RGB.

    Stuff is tinted in its class colour, things in their track's colour, with contours and names.
    Coasted tracks have no pixels and are not drawn. Masks that overlap lie over each other, the
    smallest on top, so that none is hidden. `opacity` of the colours is 0..1.

    Raises:
        ValueError: the image is not of the size of the label map.
    """
    expected = (*frame.label_map.size, 3)
    if image.shape != expected or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 {expected}, got {image.dtype} {image.shape}")
    if image.strides[2] < 0:  # a view of BGR, of which OpenCV would make a copy each time
        image = np.asarray(cv2.cvtColor(image[..., ::-1], cv2.COLOR_BGR2RGB), np.uint8)
    visible = [track for track in frame.tracks if track.label]
    label_map = frame.label_map
    if frame.masks is not None:
        large_first = sorted(visible, key=lambda track: -track.area)
        label_map = frame.masks.painted(track.label for track in large_first)
    size = 1 + max((track.label for track in visible), default=0)
    colors, is_thing = np.zeros((size, 3), np.uint8), np.zeros(size, bool)
    for track in visible:
        own = track_color(track.track_id) if track.is_thing else classes[track.class_id].color
        colors[track.label], is_thing[track.label] = own, track.is_thing
    picture = cv2.addWeighted(image, 1 - opacity, label_map.look_up(colors), opacity, 0)
    cv2.copyTo(image, label_map.look_up(np.arange(size) == 0).view(np.uint8), picture)
    _draw_contours(picture, frame.labels if frame.masks is None else label_map.enlarge(), is_thing)
    things = [track for track in visible if track.is_thing]
    for track in sorted(things, key=lambda track: track.area):
        number = f" {track.track_id}" if track.track_id else ""
        _draw_name(picture, track, drawable_name(classes[track.class_id]) + number)
    return picture


def _draw_contours(picture: Image, labels: NDArray[np.uint16], is_thing: NDArray[np.bool_]) -> None:
    """Light lines inside the edges of things, dark ones between stuff."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, :-1] |= across
    edge[:-1] |= down
    dark = edge.copy()
    edge[:, 1:] |= across
    edge[1:] |= down
    light = edge & is_thing[labels]
    for lines, color in ((dark & ~light, (40, 40, 40)), (light, (255, 255, 255))):
        picture[_thickened(lines)] = color


def _thickened(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lines one pixel wide, wider on large images."""
    width = round(max(lines.shape) / 1000)
    if width < 2:
        return lines
    kernel = np.ones((width, width), np.uint8)
    return cv2.dilate(lines.view(np.uint8), kernel).astype(bool)


def drawable_name(info: ClassInfo) -> str:
    """Name of a class in the letters that OpenCV draws, without accents, else its number."""
    letters = unicodedata.normalize("NFKD", info.name)
    plain = "".join(c for c in letters if not unicodedata.combining(c))
    return plain if plain.isascii() else f"class {info.id}"


def _draw_name(picture: Image, track: Track, text: str) -> None:
    """Write near the top of the instance, where it has room: light with a dark outline."""
    height, width = picture.shape[:2]
    scale = max(height / 1000, 0.32)
    thickness = max(round(scale * 1.5), 1)
    font = cv2.FONT_HERSHEY_SIMPLEX
    (w, h), base = cv2.getTextSize(text, font, scale, thickness)
    x, y, box_width, box_height = track.box
    if box_width * 3 < w or box_height < h:
        return
    left = min(max(x + (box_width - w) // 2, 1), max(width - w - 1, 1))
    low = min(max(y + min(box_height // 4, 2 * h) + h, h + 1), height - base - 1)
    at = (int(left), int(low))
    cv2.putText(picture, text, at, font, scale, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.putText(picture, text, at, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
