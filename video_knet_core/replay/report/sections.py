"""The parts of the page that show something: frames, tracks, classes and times."""

from __future__ import annotations

import base64

from ...types import ClassInfo, ClassTable
from .camera_notes import CameraNotes
from .charts import hex_color, latency_chart, share_chart, swatch, track_row
from .markup import Markup, joined, tag, template
from .pictures import Picture
from .report import Report
from .time_axis import TimeAxis

POINTS = 120
"""Of a chart, from left to right."""


def frames(report: Report, axis: TimeAxis) -> Markup:
    """The chosen frames of all cameras, by time."""
    rows = [
        (picture, report.facts.nodes[topic])
        for topic, notes in report.cameras.items()
        for picture in notes.pictures.kept
    ]
    rows.sort(key=lambda row: row[0].seconds)  # as stable as the order of the cameras
    if not rows:
        return tag("p", "No frames.", class_="note")
    several = len(report.cameras) > 1
    return joined(*(_frame(picture, node if several else "", axis) for picture, node in rows))


def _frame(picture: Picture, node: str, axis: TimeAxis) -> Markup:
    place = f"{axis.label(picture.seconds)}, frame {picture.number}"
    things = ", ".join(f"{count} × {name}" for name, count in picture.things.items())
    return template(
        "frame.html",
        place=f"{place}, {node}" if node else place,
        things=things or "no instances",
        data=base64.b64encode(picture.jpeg.tobytes()).decode(),
        width=picture.width,
        height=picture.height,
    )


def tracks(notes: CameraNotes, classes: ClassTable, axis: TimeAxis) -> Markup:
    """The timeline of the tracks of a camera."""
    if not classes.things:
        words = "The model tells classes, not instances: there are no tracks."
        return tag("p", words, class_="note")
    lines = notes.tracks.longest()
    if not lines:
        return tag("p", "No instance was tracked.", class_="note")
    return template(
        "tracks.html",
        note=_tracks_note(notes, len(lines)),
        label="Timeline of the tracks",
        axis=axis.drawn(),
        rows=joined(*(track_row(line, classes[line.class_id].name, axis) for line in lines)),
    )


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
