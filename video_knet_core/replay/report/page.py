"""The page: what a report has gathered, as HTML."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from ... import __version__
from . import sections, summary
from .markup import Markup, joined, tag, template, text_of
from .report import Outcome, Report
from .time_axis import TimeAxis
from .time_bins import TimeBins

NAME = "report.html"


def write_page(report: Report, outcome: Outcome, out: Path) -> None:
    """Make OUT/report.html, in one step; OSError if it cannot be written."""
    temporary = out / f"{NAME}.tmp"
    text = page(report, outcome)
    temporary.write_text(
        text, encoding="utf-8", errors="replace"
    )  # names of files may be any bytes
    temporary.replace(out / NAME)


def page(report: Report, outcome: Outcome) -> Markup:
    """The whole of it. Elements of class "timing" tell of this run, the others of its results."""
    facts, axis = report.facts, _axis(report)
    style, script = Markup(text_of("page.css")), Markup(text_of("page.js"))
    return template(
        "page.html",
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        bag=facts.bag,
        model=facts.model,
        backend=facts.backend,
        version=__version__,
        warnings=summary.warnings(outcome),
        tiles=summary.tiles(report, outcome, axis),
        cameras=summary.camera_rows(report, outcome),
        facts=summary.facts_list(report, axis),
        frames=sections.frames(report, axis),
        tracks=_each(report, lambda topic: sections.tracks(report, topic, axis)),
        stamps=_each(report, lambda topic: _stamps(report, outcome, topic, axis)),
        shares=_each(
            report, lambda topic: sections.shares(report.cameras[topic], facts.classes, axis)
        ),
        legend=sections.legend(report),
        unseen=sections.unseen(report),
        latency=_each(report, lambda topic: sections.latency(report.cameras[topic], axis)),
    )


def _stamps(report: Report, outcome: Outcome, topic: str, axis: TimeAxis) -> Markup:
    left_out, late = outcome.left_out.get(topic, TimeBins(2)), outcome.late.get(topic, 0)
    return sections.stamps(report, topic, left_out, late, axis)


def _axis(report: Report) -> TimeAxis:
    """From the first frame of any camera to the last one."""
    filled = [notes for notes in report.cameras.values() if notes.frames]
    first = min((notes.first for notes in filled), default=0.0)
    return TimeAxis(first, max((notes.last for notes in filled), default=first))


def _each(report: Report, draw: Callable[[str], Markup]) -> Markup:
    """A section of each camera, under its name if there are several."""
    several = len(report.cameras) > 1
    parts = []
    for topic, notes in report.cameras.items():
        drawn = draw(topic) if notes.frames else tag("p", "No frames.", class_="note")
        parts += [tag("h3", topic), drawn] if several else [drawn]
    return joined(*parts)


def _hash(content: str) -> str:
    """By which a browser knows the only style and the only script that it may heed."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
