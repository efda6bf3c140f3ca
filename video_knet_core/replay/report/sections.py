"""The parts of the page that show something: frames, tracks, classes and times."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator

from ...types import ClassInfo, ClassTable
from .camera_notes import CameraNotes
from .charts import hex_color, latency_chart, share_chart, stamp_chart, swatch, track_row
from .latency import LEAST_MS
from .lifelines import Lifeline
from .markup import Markup, joined, tag, template
from .pictures import Picture
from .report import Report
from .stamps import Stamps
from .time_axis import TimeAxis
from .time_bins import TimeBins

POINTS = 120
"""Of a chart, from left to right."""


def frames(report: Report, axis: TimeAxis) -> Markup:
    """The chosen frames of all cameras, by time."""
    rows = [
        (picture, topic, report.facts.nodes[topic])
        for topic, notes in report.cameras.items()
        for picture in notes.pictures.kept
    ]
    rows.sort(key=lambda row: row[0].seconds)  # as stable as the order of the cameras
    if not rows:
        return tag("p", "No frames.", class_="note")
    several, topics = len(report.cameras) > 1, list(report.cameras)
    return joined(
        *(
            _frame(picture, topics.index(topic), node if several else "", axis)
            for picture, topic, node in rows
        )
    )


def anchor(camera: int, picture: Picture) -> str:
    """By which a picture of a camera can be linked to."""
    return f"frame-{camera}-{picture.number}"


def _frame(picture: Picture, camera: int, node: str, axis: TimeAxis) -> Markup:
    place = f"{axis.label(picture.seconds)}, frame {picture.number:,}"
    things = ", ".join(f"{count} × {name}" for name, count in picture.things.items())
    return template(
        "frame.html",
        anchor=anchor(camera, picture),
        place=f"{place}, {node}" if node else place,
        things=things or "no instances",
        data=base64.b64encode(picture.jpeg.tobytes()).decode(),
        width=picture.width,
        height=picture.height,
    )


def tracks(report: Report, topic: str, axis: TimeAxis) -> Markup:
    """The timeline of the tracks of a camera."""
    notes, classes = report.cameras[topic], report.facts.classes
    camera = list(report.cameras).index(topic)
    if not classes.things:
        words = "The model tells classes, not instances: there are no tracks."
        return tag("p", words, class_="note")
    lines = notes.tracks.longest()
    if not lines:
        return tag("p", "No instance was tracked.", class_="note")
    rows = (
        track_row(line, classes[line.class_id].name, _place(notes, camera, line, axis), axis)
        for line in lines
    )
    return template(
        "tracks.html",
        note=_tracks_note(notes, len(lines)),
        label="Timeline of the tracks",
        axis=axis.drawn(),
        rows=joined(*rows),
    )


def _place(notes: CameraNotes, camera: int, line: Lifeline, axis: TimeAxis) -> Markup:
    """A link from a track to a picture with it, else to the one that is nearest in time."""
    picture = notes.pictures.showing(line.epoch, line.track_id)
    words = "First picture with it" if picture else "No picture has it; the nearest one"
    picture = picture or notes.pictures.nearest(line.spans[0][0])
    title = f"{words}: {axis.label(picture.seconds)}, frame {picture.number:,}"
    return tag("a", "picture", href=f"#{anchor(camera, picture)}", title=title)


def stamps(report: Report, topic: str, left_out: TimeBins, late: int, axis: TimeAxis) -> Markup:
    """Intervals of the stamps of a camera over time, its gaps and its resets."""
    found = report.cameras[topic].stamps
    rows = [_intervals_note(found), *_events(found, axis)]
    if late:
        rows.append(f"{late:,} left out because they came after an image with a later stamp.")
    return joined(tag("p", " ".join(rows), class_="note"), stamp_chart(found, left_out, axis))


def _intervals_note(found: Stamps) -> str:
    if not math.isfinite(found.median):
        return "One frame has no interval."
    if found.median <= LEAST_MS:
        return "The median interval is 0: the stamps stand still, or come in bunches."
    return f"The median interval is {found.median:.3g} ms ({1e3 / found.median:.3g} Hz)."


def _events(found: Stamps, axis: TimeAxis) -> Iterator[str]:
    gaps = found.gaps()
    if gaps:
        longest = max(gaps)
        words = ", ".join(f"{gap.interval:.3g} s until {axis.label(gap.seconds)}" for gap in gaps)
        more = f" The longest is {longest.interval:.3g} s." if len(gaps) > 1 else ""
        yield f"{len(gaps)} gap{'s' * (len(gaps) > 1)}: {words}.{more}"
    if found.reset_count:
        words = ", ".join(axis.label(seconds) for seconds in found.resets)
        more = ", ..." if found.reset_count > len(found.resets) else ""
        number = found.reset_count
        yield f"The tracker was reset {number:,} time{'s' * (number > 1)}: at {words}{more}."
    if not gaps and not found.reset_count:
        yield "There are no gaps and no resets."


def _tracks_note(notes: CameraNotes, shown: int) -> str:
    total, unconfirmed = sum(notes.tracks.counts()), notes.tracks.unconfirmed
    parts = [f"{total:,} track{'s' * (total != 1)}, by the time they begin."]
    if shown < total:
        parts = [f"The {shown} longest of {total:,} tracks, by the time they begin."]
    parts.append("A thin line is a gap: out of sight, and known again.")
    if unconfirmed:
        parts.append(f"{unconfirmed:,} more ended before they were confirmed.")
    return " ".join(parts)


def shares(notes: CameraNotes, classes: ClassTable, axis: TimeAxis) -> Markup:
    """The class shares of a camera over time."""
    return share_chart(*notes.shares_over_time(POINTS), classes, axis)


def latency(notes: CameraNotes, axis: TimeAxis) -> Markup:
    """The inference times of a camera over time."""
    return latency_chart(*notes.latency.over_time(POINTS), axis)


def legend(report: Report) -> Markup:
    """A row of the table for each class that was seen, and one for what has none."""
    means, counts, seen = report.mean_shares(), report.track_counts(), _seen(report)
    rows = [
        _legend_row(
            hex_color(info.color),
            info.name,
            "thing" if info.is_thing else "stuff",
            means[1 + info.id],
            str(counts[info.id]) if info.is_thing else "",
        )
        for info in report.facts.classes
        if info in seen
    ]
    if means[0]:
        rows.append(_legend_row("none", "no class", "", means[0], ""))
    return joined(*rows)


def _legend_row(color: str, name: str, kind: str, share: float, count: str) -> Markup:
    return tag(
        "tr",
        tag("th", swatch(color), name, scope="row"),
        tag("td", kind),
        tag("td", f"{100 * share:.1f} %", class_="number share-value"),
        tag("td", count, class_="number"),
    )


def unseen(report: Report) -> Markup:
    """The classes of the model that no frame has."""
    seen = _seen(report)
    names = [info.name for info in report.facts.classes if info not in seen]
    if not names:
        return Markup()
    head = tag("summary", f"{len(names)} of {len(report.facts.classes)} classes were not seen")
    return tag("details", head, tag("p", ", ".join(names)))


def _seen(report: Report) -> set[ClassInfo]:
    return {info for info in report.facts.classes if report.mean_shares()[1 + info.id]}
