"""Charts over the time of the recording, drawn by Matplotlib as SVG for an HTML page.

The page's style sheet may not be bypassed, so the SVG has no style of its own: colours are
attributes, which `page.css` replaces in the dark. The same numbers give the same text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ...types import ClassTable
from ..time_bins import TimeBins
from .collect import CameraNotes, Latency, StampNotes

SIZE = (10.0, 2.3)
"""Inches of 72 points."""
SOFT, ACCENT, P90, P99, LEFT_OUT = "#57606a", "#1f5fa8", "#8a5a00", "#b3261e", "#c77700"
"""Colours that page.css replaces by these numbers."""
BINS = 120
"""Of a chart, at most."""
MINIMUM_SHARE = 0.0005
"""Of all pixels: classes below are not drawn."""
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "video_knet",  # ids of shapes are not random
    "font.size": 9,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "grid.alpha": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), SOFT),
}


@dataclass(frozen=True)
class TimeAxis:
    """From the first to the last frame, in seconds of the recording."""

    first: float
    last: float

    @property
    def length(self) -> float:
        """Seconds; those of a single frame are 1."""
        return self.last - self.first or 1.0

    def place(self, seconds: float) -> float:
        """Where a time is, 0..1."""
        return min(max((seconds - self.first) / self.length, 0.0), 1.0)

    def label(self, seconds: float) -> str:
        """A time in words, as exact as the axis is."""
        if self.last < 120:
            return f"{seconds:.1f} s" if self.length < 60 else f"{seconds:.0f} s"
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

    def ticks(self) -> list[float]:
        """Round times on it."""
        steps = MaxNLocator(5).tick_values(self.first, self.first + self.length)
        return [float(seconds) for seconds in steps if self.first <= seconds <= self.last]


# `key` distinguishes the charts of one kind on a page.


def share_chart(notes: CameraNotes, classes: ClassTable, axis: TimeAxis, key: str) -> Markup:
    """The class shares on top of each other; what has no class stays bare."""
    edges, shares = notes.shares_over_time(BINS)
    upper = np.cumsum(shares[:, 1:], axis=1)
    with _axes(axis, "Class shares", key) as (axes, drawn):
        for info in classes:
            fraction = shares[:, 1 + info.id]
            if np.nanmean(fraction) < MINIMUM_SHARE:
                continue
            top = upper[:, info.id]
            color = np.array(info.color) / 255
            axes.stairs(top, edges, baseline=top - fraction, fill=True, color=color, linewidth=0)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    return drawn[0]


def latency_chart(latency: Latency, axis: TimeAxis, key: str) -> Markup:
    """The quantiles 50, 90 and 99 %."""
    edges, milliseconds = latency.over_time(BINS)
    with _axes(axis, "Inference time", key) as (axes, drawn):
        styles = (("p50", ACCENT, "-"), ("p90", P90, "--"), ("p99", P99, ":"))
        for values, (name, color, style) in zip(milliseconds.T, styles, strict=True):
            axes.stairs(values, edges, color=color, linestyle=style, linewidth=1.5, gid=name)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_duration))
    return drawn[0]


def stamp_chart(stamps: StampNotes, left_out: TimeBins, axis: TimeAxis, key: str) -> Markup:
    """The largest interval of stamps over time, and marks where something happened."""
    with _axes(axis, "Interval of the stamps", key) as (axes, drawn):
        edges, milliseconds = stamps.over_time(BINS)
        axes.stairs(milliseconds, edges, color=ACCENT, linewidth=1.5, baseline=None)
        for seconds in stamps.resets:
            axes.axvline(seconds, color=P99, linewidth=1.5, gid="mark reset")
        for column, (name, color) in enumerate((("failed", LEFT_OUT), ("late", SOFT))):
            for seconds in left_out.middles[left_out.sums[:, column] > 0]:
                axes.axvline(seconds, 0.88, 1, color=color, linewidth=2, gid=f"mark {name}")
        axes.set_ylim(0, 1.1 * float(np.nanmax([1, stamps.median, *milliseconds])))
        axes.yaxis.set_major_formatter(FuncFormatter(_duration))
    return drawn[0]


def _duration(milliseconds: float, _: int) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1e3:g} s"


@contextmanager
def _axes(axis: TimeAxis, name: str, key: str) -> Iterator[tuple[Axes, list[Markup]]]:
    """Axes to draw into; the list holds the SVG afterwards."""
    drawn: list[Markup] = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        yield axes, drawn
        axes.set_xlim(axis.first, axis.first + axis.length)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: axis.label(seconds)))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        drawn.append(svg_element(figure, f"{name} over time", f"{name}-{key}-".replace(" ", "-")))


def svg_element(figure: Figure, label: str, prefix: str) -> Markup:
    """The SVG element of a figure, of which a page may hold several.

    Styles become attributes, ids of groups become classes, and all other ids begin with `prefix`.
    Hundredths of a point are enough for paths.
    """
    file = io.StringIO()
    names = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # else they come as metadata
    figure.savefig(file, format="svg", transparent=True, metadata=names)
    text = file.getvalue()
    text = re.sub(r"<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns|xmlns:xlink|width|height)="[^"]*(/\S*|pt)"', "", text)
    text = re.sub(r'style="([^"]*)"', lambda match: _attributes(match[1]), text)
    text = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), text)
    text = text[text.index("<svg") :].replace('<g id="', '<g class="')
    text = re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def _attributes(style: str) -> str:
    pairs = (rule.split(":", 1) for rule in style.split(";") if ":" in rule)
    return " ".join(f'{key.strip()}="{value.strip()}"' for key, value in pairs)
