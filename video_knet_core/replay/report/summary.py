"""The upper part of the page: what came out, in numbers and words."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from .latency import quantiles
from .markup import Markup, joined, tag
from .report import Outcome, Report
from .time_axis import TimeAxis


def warnings(outcome: Outcome) -> Markup:
    """What went wrong; nothing if nothing did."""
    parts = []
    if outcome.damage:
        words = f"The bag is damaged; it was read up to there: {outcome.damage}"
        parts.append(tag("div", tag("p", words), class_="warning", role="note"))
    for topic, (count, reasons) in outcome.failures.items():
        if count:
            more = f" The first {len(reasons)} of them:" if count > len(reasons) else ""
            head = tag("p", f"{topic}: {_number(count, 'image')} could not be used.{more}")
            rows = tag("ul", *(tag("li", reason) for reason in reasons))
            parts.append(tag("div", head, rows, class_="warning", role="note"))
    return joined(*parts)


def tiles(report: Report, outcome: Outcome, axis: TimeAxis) -> Markup:
    """The numbers that one looks for first."""
    cameras = report.cameras.values()
    frames = sum(notes.frames for notes in cameras)
    tracks = int(report.track_counts().sum())
    failed = sum(count for count, _ in outcome.failures.values()) + sum(outcome.late.values())
    p50, _, p99 = report.quantiles()
    rows = [
        (f"{frames:,}", _plural(frames, "frame"), ""),
        (_duration(axis.last - axis.first), "of the recording", ""),
        (f"{tracks:,}", _plural(tracks, "track"), ""),
        (f"{failed:,}", f"{_plural(failed, 'image')} left out", ""),
        (f"{frames / report.seconds:.1f} fps", f"in {_duration(report.seconds)}", "timing"),
        (f"{_milliseconds(p50)} ms", f"inference, p50; p99 {_milliseconds(p99)} ms", "timing"),
    ]
    return joined(*(tag("li", tag("b", a), tag("span", b), class_=kind) for a, b, kind in rows))


def camera_rows(report: Report, outcome: Outcome) -> Markup:
    """A row of the table for each camera."""
    rows = []
    for topic, notes in report.cameras.items():
        width, height = notes.size
        left_out = outcome.failures[topic][0] + outcome.late.get(topic, 0)
        numbers = {
            "Image": f"{width} × {height}" if notes.frames else "none",
            "Frames": f"{notes.frames:,}",
            "Left out": f"{left_out:,}",
            "Tracks": f"{sum(notes.tracks.counts()):,}",
        }
        p50 = _milliseconds(quantiles(notes.latency.histogram[None])[0, 0])
        rows.append(
            tag(
                "tr",
                tag("th", topic, scope="row"),
                tag("td", report.facts.nodes[topic], data_label="Results"),
                *(tag("td", n, class_="number", data_label=name) for name, n in numbers.items()),
                tag("td", p50, class_="number timing", data_label="p50 ms"),
            )
        )
    return joined(*rows)


def facts_list(report: Report, axis: TimeAxis) -> Markup:
    """Names and values of a list of definitions."""
    facts = report.facts
    start = datetime.fromtimestamp(facts.start * 1e-9 + axis.first, timezone.utc)
    rows = [
        ("Bag", facts.bag),
        ("First frame", f"received at {start:%Y-%m-%d %H:%M:%S} UTC"),
        ("Model", facts.model),
        ("Backend", facts.backend),
        *facts.options.items(),
    ]
    return joined(*(joined(tag("dt", name), tag("dd", text)) for name, text in rows))


def _duration(seconds: float) -> str:
    """In words, to a tenth of a second below two minutes."""
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


def _number(count: int, noun: str) -> str:
    return f"{count:,} {_plural(count, noun)}"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
