"""The page: what a report has gathered, as HTML."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import jinja2

from ... import __version__
from ...output_files import write_text
from ...visualize import track_color
from ..camera import CameraReplay
from .birds_eye_view import BirdsEyeView, birds_eye_view
from .charts import TimeAxis, latency_chart, share_chart, stamp_chart
from .collect import MINIMUM_MS, CameraNotes, Picture, ReplayReport, StampNotes, quantiles
from .track_timeline import TrackSpans

NAME = "report.html"
MINIMUM_BAR = 0.3
"""Percent of the width: a track of one frame must be seen."""


def write_page(report: ReplayReport, damage: str, cameras: Mapping[str, CameraReplay]) -> None:
    """Write report.html; OSError if it cannot be written.

    Args:
        damage: where and why the bag could be read no further; empty if all of it could.
        cameras: by topic, for their images that were left out.
    """
    text = page(report, damage, cameras)  # names of files may be any bytes
    write_text(report.out / NAME, text.encode(errors="replace").decode())


def page(report: ReplayReport, damage: str, cameras: Mapping[str, CameraReplay]) -> str:
    """The whole of it. Elements of class "timing" depend on this run, the others on its results."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plural": _plural,
        "duration": _duration,
        "ms": _milliseconds,
        "hash": _hash,
        "base64": lambda data: base64.b64encode(data).decode(),
        "hex": lambda color: "#{:02x}{:02x}{:02x}".format(*color),
    }
    axis = _axis(report)
    rows = [
        _camera(report, cameras[topic], number, topic, axis)
        for number, topic in enumerate(report.cameras)
    ]
    pictures = [(picture, row) for row in rows for picture in row["notes"].pictures.kept]
    return environment.get_template("page.html").render(
        style=environment.get_template("page.css").render(),
        script=environment.get_template("page.js").render(),
        version=__version__,
        facts=report.facts,
        start=datetime.fromtimestamp(report.facts.start * 1e-9 + axis.first, timezone.utc),
        damage=damage,
        report=report,
        axis=axis,
        cameras=rows,
        pictures=sorted(pictures, key=lambda pair: pair[0].seconds),
        anchor=_anchor,
    )


def _camera(
    report: ReplayReport, camera: CameraReplay, number: int, topic: str, axis: TimeAxis
) -> dict[str, Any]:
    """What the page has of a camera; charts only if it has frames."""
    notes, classes = report.cameras[topic], report.facts.classes
    found = {
        "topic": topic,
        "node": report.facts.nodes[topic],
        "number": number,
        "notes": notes,
        "left_out": camera.failed + camera.late,
        "failed": camera.failed,
        "failures": camera.failures,
        "late": camera.late,
        "p50": quantiles(notes.latency.histogram)[0],
        "above": birds_eye_view(notes, classes, str(number)),
    }
    if found["above"] is not None:
        found["above_notes"] = [*_above_notes(found["above"])]
    if notes.frames:
        key = str(number)
        found |= {
            "tracks": [_track_row(notes, number, track, axis) for track in notes.tracks.longest()],
            "stamp_notes": [*_stamp_notes(notes.stamps, axis)],
            "stamps": stamp_chart(notes.stamps, camera.left_out, axis, key),
            "shares": share_chart(notes, classes, axis, key),
            "latency": latency_chart(notes.latency, axis, key),
        }
    return found


def _track_row(
    notes: CameraNotes, camera: int, track: TrackSpans, axis: TimeAxis
) -> dict[str, Any]:
    """A track with its bars, and the picture with it or else the one that is nearest in time."""
    showing = notes.pictures.showing(track)
    picture = showing or notes.pictures.nearest(track.spans[0][0])
    first, last = track.spans[0][0], track.spans[-1][1]
    return {
        "track": track,
        "color": track_color(track.track_id),
        "whole": _bar(first, last, axis),
        "bars": [_bar(a, b, axis) for a, b in track.spans],
        "first": axis.label(first),
        "last": axis.label(last),
        "picture": _anchor(camera, picture),
        "picture_title": ("First picture with it" if showing else "No picture has it; the nearest")
        + f": {axis.label(picture.seconds)}, frame {picture.number:,}",
    }


def _above_notes(view: BirdsEyeView) -> Iterator[str]:
    """Sentences about what is seen from above, and in which frame."""
    frame, places = view.places.frame_id, view.places
    yield f"{_plural(view.tracks, 'track')} with a place, in the colours of the timeline."
    yield "A small dot is the first place, a large one the last; a name is where there is room."
    if places.is_optical:
        yield f"All is relative to the camera ({frame}): as it moves, what stands has a path, too."
    else:
        yield f"The axes are those of the frame {frame}."
        if places.stands_still:
            yield "The camera stands still in it: if it moves with the camera, so do all paths."


def _bar(first: float, last: float, axis: TimeAxis) -> tuple[str, str]:
    """Left end and width of a bar in percent."""
    width = max(100 * (axis.place(last) - axis.place(first)), MINIMUM_BAR)
    return f"{min(100 * axis.place(first), 100 - width):.2f}", f"{width:.2f}"


def _stamp_notes(found: StampNotes, axis: TimeAxis) -> Iterator[str]:
    """Sentences about the intervals, the gaps and the resets."""
    if not math.isfinite(found.median):
        yield "One frame has no interval."
    elif found.median <= MINIMUM_MS:
        yield "The median interval is 0: the stamps stand still, or come in bunches."
    else:
        yield f"The median interval is {found.median:.3g} ms ({1e3 / found.median:.3g} Hz)."
    gaps, resets = found.gaps(), found.reset_count
    if gaps:
        words = ", ".join(f"{gap.interval:.3g} s until {axis.label(gap.seconds)}" for gap in gaps)
        yield f"{_plural(len(gaps), 'gap')}: {words}."
    if len(gaps) > 1:
        yield f"The longest is {max(gaps).interval:.3g} s."
    if resets:
        words = ", ".join(axis.label(seconds) for seconds in found.resets)
        more = ", ..." if resets > len(found.resets) else ""
        yield f"The tracker was reset {_plural(resets, 'time')}: at {words}{more}."
    if not gaps and not resets:
        yield "There are no gaps and no resets."


def _axis(report: ReplayReport) -> TimeAxis:
    """From the first frame of any camera to the last one."""
    filled = [notes for notes in report.cameras.values() if notes.frames]
    first = min((notes.first for notes in filled), default=0.0)
    return TimeAxis(first, max((notes.last for notes in filled), default=first))


def _anchor(camera: int, picture: Picture) -> str:
    """By which a picture of a camera can be linked to."""
    return f"frame-{camera}-{picture.number}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    """To a tenth of a second below two minutes."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _milliseconds(value: float) -> str:
    """With three digits, or all before the point."""
    if not math.isfinite(value):
        return "no"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _hash(content: str) -> str:
    """By which the content security policy admits the only style and the only script."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
