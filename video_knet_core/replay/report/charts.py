"""Charts as inline SVG, stretched to any width; their numbers are told in text beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...types import ClassTable
from ...visualize import track_color
from .lifelines import Lifeline
from .markup import Markup, joined, tag, template
from .stamps import Stamps
from .time_axis import WIDTH, TimeAxis
from .time_bins import TimeBins

HEIGHT = 200
LEAST_BAR = 3
"""Units of width: a track of one frame must be seen."""
LEAST_SHARE = 0.0005
"""Of all pixels: classes below are not drawn."""
MARK = 24
"""Height of the marks of images that were left out."""
GAP = 4
"""Of the usual distance of points; where they are farther apart, nothing is drawn between."""

Array = NDArray[np.float64]


def hex_color(color: Sequence[int]) -> str:
    """#rrggbb"""
    return "#{:02x}{:02x}{:02x}".format(*color)


def swatch(color: str) -> Markup:
    """A little square of a colour."""
    box = tag("rect", width=12, height=12, rx=3, fill=color)
    return tag("svg", box, class_="swatch", width=12, height=12, aria_hidden="true")


def track_row(line: Lifeline, name: str, place: Markup, axis: TimeAxis) -> Markup:
    """The bar of a track: full where it had pixels, thin where it was out of sight.

    Args:
        name: of the class.
        place: link to a picture of the track.
    """
    color = hex_color(track_color(line.track_id))
    first, last = line.spans[0][0], line.spans[-1][1]
    thread = tag("rect", **_place(first, last, axis), y=4, height=2, fill=color, opacity=0.55)
    spans = [tag("rect", **_place(a, b, axis), height=10, fill=color) for a, b in line.spans]
    gaps = len(spans) - 1
    return template(
        "track.html",
        swatch=swatch(color),
        name=f"{name} {line.track_id}",
        place=place,
        grid=axis.grid(10),
        bar=joined(thread, *spans),
        first=axis.label(first),
        last=axis.label(last),
        frames=f"{line.frames:,} frame{'s' * (line.frames != 1)} from {line.first_frame:,}",
        gaps=f", {gaps} gap{'s' * (gaps > 1)}" if gaps else "",
    )


def _place(first: float, last: float, axis: TimeAxis) -> dict[str, str]:
    width = max(axis.x(last) - axis.x(first), LEAST_BAR)
    left = min(axis.x(first), WIDTH - width)
    return {"x": f"{left:.1f}", "width": f"{width:.1f}"}


def share_chart(times: Array, shares: Array, classes: ClassTable, axis: TimeAxis) -> Markup:
    """Areas [n, 1 + classes] on top of each other; what has no class is what is left white."""
    edges = np.cumsum(shares[:, 1:], axis=1)
    areas = []
    for info in classes:
        if shares[:, 1 + info.id].mean() < LEAST_SHARE:
            continue
        lower, upper = edges[:, info.id] - shares[:, 1 + info.id], edges[:, info.id]
        path = "".join(_area(times[run], lower[run], upper[run], axis) for run in _runs(times))
        color = hex_color(info.color)
        areas.append(tag("path", tag("title", info.name), class_="share", d=path, fill=color))
    return _chart("Class shares", [*areas, axis.grid(HEIGHT)], ["100 %", "50 %", "0"], axis)


def latency_chart(times: Array, milliseconds: Array, axis: TimeAxis) -> Markup:
    """Lines [n, 3] of the quantiles 50, 90 and 99 %, in milliseconds from 0 up."""
    top = _round_up(float(milliseconds.max()))
    heights = milliseconds / top
    drawn = [axis.grid(HEIGHT), tag("path", class_="grid", d=f"M0 {HEIGHT // 2}H{WIDTH}")]
    for column, name in ((2, "p99"), (1, "p90"), (0, "p50")):
        path = "".join(_line(times[run], heights[run, column], axis) for run in _runs(times))
        drawn.append(tag("path", tag("title", name), class_=f"line {name}", d=path))
    labels = [f"{top:g} ms", f"{top / 2:g}", "0"]
    return _chart("Inference time", drawn, labels, axis)


def stamp_chart(stamps: Stamps, left_out: TimeBins, axis: TimeAxis) -> Markup:
    """The largest interval of stamps over time, and marks where something happened."""
    times, milliseconds = stamps.over_time()
    top = _round_up(float(np.nanmax([1, stamps.median, *milliseconds])))
    path = "".join(_line(times[run], milliseconds[run] / top, axis) for run in _runs(times))
    drawn = [axis.grid(HEIGHT), tag("path", tag("title", "interval"), class_="line p50", d=path)]
    drawn += [_mark("reset", seconds, HEIGHT, axis) for seconds in stamps.resets]
    for column, name in enumerate(("failed", "late")):
        filled = left_out.sums[:, column] > 0
        drawn += [_mark(name, seconds, MARK, axis) for seconds in left_out.middles[filled]]
    labels = [_interval(top), _interval(top / 2), "0"]
    return _chart("Interval of the stamps", drawn, labels, axis)


def _mark(name: str, seconds: float, height: int, axis: TimeAxis) -> Markup:
    title = tag("title", f"{name} at {axis.label(seconds)}")
    return tag("path", title, class_=f"mark {name}", d=f"M{axis.x(seconds):.1f} 0v{height}")


def _interval(milliseconds: float) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1e3:g} s"


def _chart(name: str, drawn: Sequence[Markup], labels: Sequence[str], axis: TimeAxis) -> Markup:
    return template(
        "chart.html",
        name=name,
        labels=joined(*(tag("span", label) for label in labels)),
        drawn=joined(*drawn),
        width=WIDTH,
        height=HEIGHT,
        axis=axis.drawn(),
    )


def _runs(times: Array) -> Iterator[slice]:
    """Points without a gap between them."""
    steps = np.diff(times)
    usual = np.median(steps) if len(steps) else 0.0
    ends = [*(np.flatnonzero(steps > GAP * usual) + 1).tolist(), len(times)]
    for start, end in zip([0, *ends], ends, strict=False):
        yield slice(start, end)


def _area(times: Array, lower: Array, upper: Array, axis: TimeAxis) -> str:
    forth, back = _points(times, upper, axis), _points(times, lower, axis)
    return f"M{'L'.join([*forth, *back[::-1]])}Z"


def _line(times: Array, heights: Array, axis: TimeAxis) -> str:
    return f"M{'L'.join(_points(times, heights, axis))}"


def _points(times: Array, heights: Array, axis: TimeAxis) -> list[str]:
    """Coordinates of points at a height of 0..1; one that is alone becomes two, to be seen."""
    x = np.array([axis.x(seconds) for seconds in times])
    if len(x) == 1:
        x, heights = x[0] + np.array([-0.5, 0.5]) * LEAST_BAR, np.repeat(heights, 2)
    return [f"{a:.1f} {b:.1f}" for a, b in zip(x, (1 - heights) * HEIGHT, strict=True)]


def _round_up(value: float) -> float:
    """To a round number with a round half."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(
        next(power * step for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if step >= value / power)
    )
