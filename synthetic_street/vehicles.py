"""Vehicles of the synthetic street: which there are, and painting them."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import NEAR, SHIFT, Canvas, Points, clip_near, fixed_point
from .light import Light
from .vehicle_mesh import VehicleModel, mesh, random_paint


def random_model(rng: np.random.Generator, heavy: float) -> VehicleModel:
    """A vehicle as met in traffic; `heavy` is the fraction of vans, trucks and buses."""
    seed = int(rng.integers(1 << 30))
    paint = random_paint(rng)
    if rng.random() > heavy:
        height = rng.uniform(1.4, 1.75)
        return VehicleModel(
            "car", rng.uniform(3.6, 4.9), rng.uniform(1.65, 1.9), height, paint, seed
        )
    kind = str(rng.choice(["van", "van", "truck", "bus"]))
    size = {"van": (5.0, 1.95, 2.2), "truck": (7.8, 2.4, 3.2), "bus": (10.5, 2.5, 3.1)}[kind]
    length, width, height = (v * rng.uniform(0.9, 1.12) for v in size)
    if kind == "van" and rng.random() < 0.5:
        paint = (225.0, 226.0, 224.0)
    return VehicleModel(kind, length, width, height, paint, seed)


def footprint(model: VehicleModel, x: float, s: float, heading: float) -> Points:
    """Ground corners [4, 3] in the world."""
    half, end = model.width / 2, model.length / 2
    corners = np.array([[-half, -end, 0.0], [half, -end, 0], [half, end, 0], [-half, end, 0]])
    return _to_world(corners, x, s, heading)


def _to_world(points: Points, x: float, s: float, heading: float) -> Points:
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0], [0, 0, 1]])
    return points @ turn + np.array([x, s, 0.0])


def draw_vehicle(
    canvas: Canvas, model: VehicleModel, x: float, s: float, heading: float, light: Light, code: int
) -> None:
    """Paint a vehicle that stands at (x, s) and looks along `heading` (radians, 0 = +s)."""
    shape, camera = mesh(model), canvas.camera
    view = camera.view(_to_world(shape.points, x, s, heading))
    depth = max(float(view[:, 2].mean()), 1.0)
    if view[:, 2].max() < NEAR:
        return
    clipped = bool(view[:, 2].min() < NEAR)
    pixels = camera.pixels(view) if not clipped else view[:, :2]
    if not clipped and not canvas.is_in_view(
        float(pixels[:, 0].mean()), float(np.ptp(pixels[:, 0]))
    ):
        return
    turned = _to_world(shape.normals, 0, 0, heading)
    to_eye = np.array([camera.x, camera.s, camera.height]) - _to_world(shape.anchors, x, s, heading)
    seen = np.einsum("ij,ij->i", to_eye, turned) > 0
    if camera.focal / depth < 14:
        seen &= shape.coarse
    colors = np.clip(shape.colors * light.on(turned)[:, None], 0, 255)
    colors += canvas.haze.fraction(depth) * (np.array(canvas.haze.color) - colors)
    corners = fixed_point(pixels)
    for i in np.flatnonzero(seen):
        face = shape.faces[i]
        color = tuple(colors[i].tolist())
        if light.lamps and face.glow:
            color = (255, 60, 50) if face.color[1] < 100 else (255, 250, 225)
        patch, outline = corners[face.corners], view[face.corners]
        if clipped:
            outline = clip_near(outline)
            if len(outline) < 3:
                continue
            patch = fixed_point(camera.pixels(outline))
        cv2.fillConvexPoly(canvas.image, patch, color, cv2.LINE_AA, SHIFT)
        if face.outline:
            part = canvas.part(code, outline)
            cv2.fillConvexPoly(canvas.codes, patch, (part,), cv2.LINE_8, SHIFT)
