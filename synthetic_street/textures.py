"""Textures of the synthetic street, made of noise: facades, foliage, fences, ground and sky."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Color, Image, Texture

_FACADE_SCALE = 24.0
"""Pixels per metre of facades."""


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 4
) -> NDArray[np.float32]:
    """Smooth random field [height, width] in -1..1 that wraps round; coarsest cell in pixels."""
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        rows, columns = max(round(height / size), 2), max(round(width / size), 2)
        grid = np.pad(rng.uniform(-1, 1, (rows, columns)).astype(np.float32), 2, mode="wrap")
        zoom_y, zoom_x = height / rows, width / columns
        matrix = np.array([[1 / zoom_x, 0, 2.0], [0, 1 / zoom_y, 2.0]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += weight * cv2.warpAffine(grid, matrix, (width, height), flags=flags)
        weight *= 0.6
    return total / max(float(np.abs(total).max()), 1e-6)


def tinted(field: NDArray[np.float32], color: Color, contrast: float) -> Image:
    """Colour [H, W, 3] whose brightness follows the field."""
    rgb = np.array(color, np.float32) * (1.0 + contrast * field[..., None])
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _color(values: NDArray[np.float64]) -> Color:
    r, g, b = np.clip(values, 5, 245)
    return (float(r), float(g), float(b))


def wall_color(rng: np.random.Generator) -> Color:
    """Brick, stone, render, concrete or paint."""
    palette = [
        (122, 66, 50), (142, 92, 66), (98, 60, 48), (178, 160, 128), (196, 182, 152),
        (206, 200, 188), (150, 146, 138), (112, 110, 106), (84, 76, 68), (168, 132, 92),
        (186, 150, 130), (120, 128, 132), (60, 54, 52), (214, 206, 170), (140, 150, 160),
    ]  # fmt: skip
    base = np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.6, 1.15)
    return _color(base + rng.normal(0, 8, 3))


def facade(rng: np.random.Generator) -> Texture:
    """A house front with floors of windows, sometimes with a shop below; 8..22 m wide."""
    bay = rng.uniform(1.6, 4.2)
    floor = rng.uniform(2.7, 3.8)
    bays, floors = int(rng.integers(2, 7)), int(rng.integers(1, 6))
    width, height = round(bays * bay * _FACADE_SCALE), round(floors * floor * _FACADE_SCALE)
    color = wall_color(rng)
    rgb = tinted(noise(rng, height, width, 60), color, rng.uniform(0.05, 0.22))
    if rng.random() < 0.5:
        _courses(rng, rgb)
    window = _Window(rng)
    for row in range(floors):
        for column in range(bays):
            window.draw(rgb, column * bay, row * floor, bay, floor)
        if rng.random() < 0.3:
            edge = round((row * floor + floor - 0.1) * _FACADE_SCALE)
            rgb[edge : edge + 4] = np.clip(np.array(color) * 1.2, 0, 255)
    if rng.random() < 0.55:
        _shop_floor(rng, rgb, floor)
    _cornice(rng, rgb)
    return Texture(rgb, _FACADE_SCALE)


def _courses(rng: np.random.Generator, rgb: Image) -> None:
    """Brick courses and blocks: darker lines."""
    step = int(rng.integers(4, 12))
    rgb[::step] = (rgb[::step] * rng.uniform(0.75, 0.92)).astype(np.uint8)
    block = step * int(rng.integers(2, 5))
    for row in range(0, rgb.shape[0], step):
        start = (row // step % 2) * block // 2
        part = rgb[row : row + step, start::block]
        part[:] = (part * 0.9).astype(np.uint8)


class _Window:
    """One kind of window, repeated over a facade with different panes."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.width = rng.uniform(0.3, 0.9)
        self.height = rng.uniform(0.4, 0.75)
        self.glass = rng.uniform(20, 110) * np.array([0.9, 1.0, 1.1])
        light = rng.random() < 0.6
        self.frame = np.full(3, rng.uniform(180, 245) if light else rng.uniform(20, 90))
        self.bars = int(rng.integers(0, 4))
        self.sill = rng.random() < 0.5

    def draw(self, rgb: Image, left: float, top: float, bay: float, floor: float) -> None:
        """Draw at (left, top) metres in a cell of bay x floor metres."""
        scale = _FACADE_SCALE
        x0 = round((left + bay * (1 - self.width) / 2) * scale)
        x1 = round((left + bay * (1 + self.width) / 2) * scale)
        y0 = round((top + floor * (0.9 - self.height)) * scale)
        y1 = round((top + floor * 0.9) * scale)
        rgb[y0:y1, x0:x1] = self.frame
        pane = rgb[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
        ramp = np.linspace(self.rng.uniform(0.8, 2.0), 0.8, max(len(pane), 1))[: len(pane)]
        glass = self.glass * self.rng.uniform(0.6, 1.4)
        pane[:] = np.clip(ramp[:, None, None] * glass, 0, 255)
        for i in range(self.bars):
            x = x0 + round((x1 - x0) * (i + 1) / (self.bars + 1))
            rgb[y0:y1, x - 1 : x + 1] = self.frame
        if self.sill:
            rgb[y1 : y1 + 3, max(x0 - 2, 0) : x1 + 2] = 200


def _shop_floor(rng: np.random.Generator, rgb: Image, floor: float) -> None:
    """Shop windows under a coloured fascia, with a door."""
    height, width = rgb.shape[:2]
    top = height - round(floor * 0.95 * _FACADE_SCALE)
    fascia = top + round(0.6 * _FACADE_SCALE)
    color = rng.uniform(15, 230, 3) * rng.uniform(0.4, 1.0)
    rgb[top:] = color * 0.6
    rgb[top:fascia] = color
    letters = np.array(rng.choice([240.0, 20.0, 200.0]))
    x = int(rng.integers(4, 40))
    while x < width * 0.7:
        step = int(rng.integers(3, 9))
        rgb[top + 4 : fascia - 4, x : x + step] = letters
        x += step + int(rng.integers(2, 7))
    edges = np.linspace(0, width, int(rng.integers(2, 6))).astype(int)
    for x0, x1 in zip(edges[:-1], edges[1:], strict=True):
        pane = rgb[fascia + 4 : height - 12, x0 + 4 : x1 - 4]
        if pane.size:
            field = noise(rng, pane.shape[0], pane.shape[1], 24, 3)[..., None]
            shine = (rng.uniform(20, 110) + rng.normal(0, 12, 3)) * (1 + 0.6 * field)
            pane[:] = np.clip(shine, 0, 255)


def _cornice(rng: np.random.Generator, rgb: Image) -> None:
    band = round(rng.uniform(0.1, 0.6) * _FACADE_SCALE)
    rgb[:band] = np.clip(rgb[:band] * rng.uniform(0.6, 1.4), 0, 255).astype(np.uint8)
    rgb[band : band + 2] = rgb[band : band + 2] // 2


def leaf_color(rng: np.random.Generator) -> Color:
    """Mostly greens; some dry, some autumn."""
    palette = [(70, 96, 40), (54, 80, 36), (92, 112, 48), (44, 62, 34), (104, 108, 60),
               (120, 100, 52), (64, 84, 52), (84, 74, 52)]  # fmt: skip
    base = np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.55, 1.35)
    return _color(base + rng.normal(0, 5, 3))


def tree(rng: np.random.Generator) -> Texture:
    """A tree with its trunk: leafy, conical or bare; the mask is part of the texture."""
    height, width = 256, 192
    bark = np.array((74, 62, 50)) * rng.uniform(0.5, 1.4)
    rgb = tinted(noise(rng, height, width, 12, 3), _color(bark), 0.4)
    trunk = np.zeros((height, width), np.uint8)
    x, half = width // 2, int(rng.integers(3, 9))
    outline = [[x - half, height // 2], [x + half, height // 2],
               [x + half + 3, height], [x - half - 3, height]]  # fmt: skip
    cv2.fillPoly(trunk, [np.array(outline, np.int32)], (255,))
    if rng.random() < 0.3:
        wide = np.zeros((height, 2 * width), np.uint8)
        _branches(rng, wide, (width, height * 0.7), -np.pi / 2, height * 0.17, 4.0 * half)
        slim = cv2.resize(wide, (width, height), interpolation=cv2.INTER_AREA)
        twigs = cv2.max(trunk, slim)
        # The sky between bare twigs belongs to the crown, as annotators draw it.
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (25, 25))
        return Texture(rgb, 32.0, twigs, cv2.morphologyEx(twigs, cv2.MORPH_CLOSE, disc))
    crown = _crown(rng, height, width)
    inside = crown > 0
    rgb[inside] = _leaves(rng, crown, leaf_color(rng))[inside]
    return Texture(rgb, 32.0, trunk | (inside * np.uint8(255)))


def _crown(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Field [height, width], positive inside the crown."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if rng.random() < 0.25:
        tip = (y / (height * 0.88)).clip(0, 1)
        field = tip * 0.42 - np.abs(x / width - 0.5)
        field[y > height * 0.88] = -1
    else:
        field = np.full((height, width), -1, np.float32)
        for _ in range(int(rng.integers(5, 12))):
            cx, cy = rng.uniform(0.3, 0.7) * width, rng.uniform(0.22, 0.58) * height
            radius = rng.uniform(0.14, 0.3) * width
            field = np.maximum(field, 1 - np.hypot(x - cx, (y - cy) * 0.9) / radius)
    return field + 0.22 * noise(rng, height, width, 36, 5)


def _leaves(rng: np.random.Generator, crown: NDArray[np.float32], color: Color) -> Image:
    height, width = crown.shape
    field = noise(rng, height, width, 40, 6)
    light = np.linspace(0.35, -0.35, height, dtype=np.float32)[:, None]
    side = np.linspace(-1, 1, width, dtype=np.float32)[None] * rng.uniform(-0.25, 0.25)
    brightness = 0.75 * field + light + side + 0.2 * crown.clip(-1, 1)
    return tinted(brightness.astype(np.float32), color, 0.95)


def _branches(
    rng: np.random.Generator,
    mask: Image,
    at: tuple[float, float],
    angle: float,
    length: float,
    thickness: float,
) -> None:
    """Draw a branch and the ones that grow from its tip."""
    if length < 6:
        return
    tip = (at[0] + length * np.cos(angle), at[1] + length * np.sin(angle))
    ends = [(round(p[0]), round(p[1])) for p in (at, tip)]
    cv2.line(mask, ends[0], ends[1], (255,), max(round(thickness), 1))
    for turn in rng.uniform(-0.7, 0.7, 3):
        # Twigs strive upwards.
        grown = angle + turn + 0.15 * (-np.pi / 2 - angle)
        _branches(rng, mask, tip, grown, length * rng.uniform(0.62, 0.85), thickness * 0.55)


def bush(rng: np.random.Generator) -> Texture:
    """A round bush."""
    height, width = 96, 128
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    field = np.full((height, width), -1, np.float32)
    for _ in range(5):
        cx, radius = rng.uniform(0.25, 0.75) * width, rng.uniform(0.4, 0.75) * height
        field = np.maximum(field, 1 - np.hypot(x - cx, y - height) / radius)
    field += 0.15 * noise(rng, height, width, 20)
    rgb = _leaves(rng, field, leaf_color(rng))
    return Texture(rgb, 64.0, (field > 0).astype(np.uint8) * 255)


def hedge(rng: np.random.Generator) -> Texture:
    """A leafy wall without gaps."""
    rgb = tinted(noise(rng, 96, 256, 24, 5), leaf_color(rng), 0.7)
    return Texture(rgb, 48.0)


def fence(rng: np.random.Generator) -> Texture:
    """Railing, boards, mesh or panels; gaps are cut out of the mask. 2 m high, 4 m long."""
    shade = rng.uniform(0.3, 1.1)
    color = np.array([(60, 62, 66), (150, 150, 150), (120, 92, 62), (200, 200, 196)])
    rgb = tinted(noise(rng, 96, 192, 40), _color(color[rng.integers(4)] * shade), 0.25)
    mask = np.zeros((96, 192), np.uint8)
    pitch, bar = int(rng.integers(6, 17)), int(rng.integers(2, 6))
    kind = rng.integers(3)
    for offset in range(bar if kind else max(pitch - 2, 3)):
        mask[:, offset::pitch] = 255
    if kind == 2:
        for offset in range(2):
            mask[offset::pitch] = 255
    mask[4:9] = mask[-14:-9] = 255
    mask[:, :7] = 255
    rgb[:, :7] = rgb[:, :7] // 2
    return Texture(rgb, 48.0, mask)


def ground(rng: np.random.Generator) -> Image:
    """Brightness of the ground around 128 [512, 512]; wraps round."""
    coarse = noise(rng, 512, 512, 170, 3)
    fine = noise(rng, 512, 512, 6, 2)
    speckle = rng.normal(0, 1, (512, 512))
    mixed = rng.uniform(4, 14) * coarse + rng.uniform(3, 10) * fine + rng.uniform(2, 7) * speckle
    return np.clip(128 + mixed, 0, 255).astype(np.uint8)


def sky(
    rng: np.random.Generator, height: int, width: int, zenith: Color, low: Color, cover: float
) -> Image:
    """Gradient from the zenith (row 0) to the horizon (last row), `cover` of it clouds."""
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    rgb = np.array(zenith, np.float32) * (1 - ramp) + np.array(low, np.float32) * ramp
    rgb = np.repeat(rgb, width, 1)
    clouds = noise(rng, 2 * height, width, width / 4, 6)[::2]
    amount = np.clip((clouds + 2 * cover - 1) * 1.8, 0, 1)[..., None] * min(1.0, 1.5 * cover)
    shade = noise(rng, height, width, width / 6, 5)[..., None]
    bright = (0.4 * np.array(low, np.float32) + 0.6 * 240) * (0.94 + 0.1 * shade)
    return np.clip(rgb * (1 - amount) + bright * amount, 0, 255).astype(np.uint8)
