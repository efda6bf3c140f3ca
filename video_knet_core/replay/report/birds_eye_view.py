"""The paths of tracks seen from above, in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import BboxBase

from ...spatial.objects import RangeSource
from ...types import ClassTable
from ...visualize import drawable_name, track_color
from .charts import ACCENT, SOFT, STYLE, svg_element
from .collect import CameraNotes
from .track_places import CameraPlaces, Floats, TrackPlaces
from .track_timeline import TrackSpans

WIDTH, LEFT, BELOW, MARGIN = 4.7, 0.6, 0.45, 0.2
"""Inches of 72 points, with the room for labels: on a phone a point is about a pixel."""
MIN_EXTENT = 4.0
"""Metres that are shown at least."""
LINES = {RangeSource.DEPTH: "-", RangeSource.CLOUD: "--", RangeSource.GROUND: ":"}
_CAMERA = ((-0.6, -0.8), (0.0, 1.0), (0.6, -0.8), (0.0, -0.4))
"""Outline of its mark, which looks up the page."""
_NAME_SIDES = ((5, "left"), (-5, "right"))
"""Points from a place to its name, and which end of the name is there."""


class BirdsEyeView(NamedTuple):
    """A drawing, and what is to be written beside it."""

    svg: Markup
    places: CameraPlaces
    sources: list[str]
    """Of the ranges, by line."""
    tracks: int
    """Those drawn."""


def birds_eye_view(notes: CameraNotes, classes: ClassTable, key: str) -> BirdsEyeView | None:
    """The tracks of a camera that were measured; None if there are none.

    They are those of the timeline. `key` distinguishes the drawings of a page.
    """
    camera = notes.places
    if camera is None:
        return None
    tracks = [
        (track, track.places)
        for track in notes.tracks.longest()
        if track.places and track.places.frame_id == camera.frame_id
    ]
    if not tracks:
        return None
    paths = [camera.seen_from_above(places.path.points) for _, places in tracks]
    route = camera.seen_from_above(camera.path.points)
    with matplotlib.rc_context(STYLE):
        axes = _metre_axes(np.concatenate([*paths, route]), camera.is_optical)
        for path, (track, places) in zip(paths, tracks, strict=True):
            _draw_track(axes, path, track, places)
        _draw_camera(axes, route, camera)
        names = [
            (track, path[-1], f"{drawable_name(classes[track.class_id])} {track.track_id}")
            for path, (track, _) in zip(paths, tracks, strict=True)
        ]
        _draw_names(axes, sorted(names, key=lambda name: name[0].rank, reverse=True))
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        svg = svg_element(figure, "Tracks seen from above", f"above-{key}-")
    used = {places.source for _, places in tracks}
    return BirdsEyeView(svg, camera, [s.name.lower() for s in LINES if s in used], len(tracks))


def _metre_axes(points: Floats, is_optical: bool) -> Axes:
    """Around points [n, 2], a metre being as long to the side as it is up the page."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(1.15 * (high - low), MIN_EXTENT)
    width = WIDTH - LEFT - MARGIN
    height = width * min(max(extent[1] / extent[0], 0.75), 1.5)
    page = np.array([WIDTH, height + BELOW + MARGIN])
    figure = Figure(figsize=(page[0], page[1]))
    axes = figure.add_axes((LEFT / page[0], BELOW / page[1], width / page[0], height / page[1]))
    half = np.max(extent / (width, height)) * np.array([width, height]) / 2
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    axes.set_xlim(*((left, right) if is_optical else (right, left)))  # y is to the left
    axes.set_ylim(bottom, top)
    is_far = max(map(abs, (left, right, bottom, top))) >= 1e4  # long numbers, as of a map in UTM
    steps = MaxNLocator(3 if is_far else 6, steps=[1, 2, 5, 10]).tick_values(0, right - left)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(float(steps[1] - steps[0])))
        axis.set_major_formatter(FuncFormatter(lambda metres, _: f"{metres:.10g} m"))
    axes.grid(True, axis="both")
    axes.set_xlabel("x, to the right" if is_optical else "y, to the left")
    axes.set_title("z, ahead" if is_optical else "x", loc="left", fontsize=9, color=SOFT)
    return axes


def _draw_track(axes: Axes, path: Floats, track: TrackSpans, places: TrackPlaces) -> None:
    """A line with an outline, a small mark at the first place and a large one at the last."""
    color, x, y = np.array(track_color(track.track_id)) / 255, *path.T
    name = f"track-{track.track_id}"
    axes.plot(x, y, color=SOFT, linewidth=2.6, alpha=0.6)
    axes.plot(x, y, LINES[places.source], color=color, linewidth=1.8, gid=f"path {name}")
    marks = {"color": color, "markeredgecolor": SOFT, "markeredgewidth": 0.8, "linestyle": ""}
    axes.plot(x[:1], y[:1], "o", markersize=3, **marks)
    axes.plot(x[-1:], y[-1:], "o", markersize=6, gid=f"last {name}", **marks)


def _draw_camera(axes: Axes, route: Floats, camera: CameraPlaces) -> None:
    """Its path, and a mark that looks where it looks."""
    x, y = route.T
    if len(route) > 1:
        axes.plot(x, y, color=ACCENT, linewidth=1.5, gid="path camera")
    side, ahead = camera.seen_from_above(camera.ahead)
    turn = math.atan2(side if camera.is_optical else -side, ahead)  # clockwise from page up
    cos, sin = math.cos(turn), math.sin(turn)
    mark = [(cos * right + sin * up, cos * up - sin * right) for right, up in _CAMERA]
    axes.plot(
        x[-1:], y[-1:], marker=mark, markersize=13, color=ACCENT, linestyle="", gid="last camera"
    )


def _draw_names(axes: Axes, names: Sequence[tuple[TrackSpans, Floats, str]]) -> None:
    """Beside the last places, where there is room; the first ones of `names` have it first."""
    taken: list[BboxBase] = []
    for _, place, text in names:
        for offset, alignment in _NAME_SIDES:
            drawn = _name(axes, place, text, offset, alignment)
            box = drawn.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            drawn.remove()


def _name(axes: Axes, place: Floats, text: str, offset: int, alignment: str) -> Annotation:
    return axes.annotate(
        text,
        (float(place[0]), float(place[1])),
        (offset, 0),
        textcoords="offset points",
        ha=alignment,
        va="center",
        parse_math=False,
        in_layout=False,
        gid="name",
    )
