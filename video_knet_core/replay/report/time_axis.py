"""The axis that all charts of a report have: seconds of the recording."""

from __future__ import annotations

from dataclasses import dataclass

from .markup import Markup, joined, tag

WIDTH = 1000
"""Units of a chart from left to right."""
MOST_STEPS = 5
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)


def at(seconds: float) -> str:
    """A time of the recording as `--start` takes it, to the millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"


@dataclass(frozen=True)
class TimeAxis:
    """From the first to the last frame, in seconds of the recording."""

    first: float
    last: float

    @property
    def length(self) -> float:
        """Seconds; those of a single frame are 1."""
        return self.last - self.first or 1.0

    def x(self, seconds: float) -> float:
        """Where a time is, 0..`WIDTH`."""
        return min(max((seconds - self.first) / self.length, 0.0), 1.0) * WIDTH

    def label(self, seconds: float) -> str:
        """A time in words, as exact as the axis is."""
        if self.last < 120:
            return f"{seconds:.1f} s" if self.length < 60 else f"{seconds:.0f} s"
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

    def ticks(self) -> list[float]:
        """Round times on it."""
        days = 86400.0 * max(self.length // (86400 * MOST_STEPS) + 1, 1)
        step = next((s for s in STEPS if self.length / s <= MOST_STEPS), days)
        first = -int(-self.first // step)
        found = [step * n for n in range(first, first + MOST_STEPS + 1)]
        return [seconds for seconds in found if self.first <= seconds <= self.last]

    def drawn(self) -> Markup:
        """The axis with its labels, as wide as the chart."""
        return tag(
            "svg", *map(self._tick, self.ticks()), class_="axis", height=22, aria_hidden="true"
        )

    def grid(self, height: int) -> Markup:
        """Lines at the ticks, for a chart of `WIDTH` x `height`."""
        path = "".join(f"M{self.x(seconds):.1f} 0V{height}" for seconds in self.ticks())
        return tag("path", class_="grid", d=path)

    def _tick(self, seconds: float) -> Markup:
        share = self.x(seconds) / WIDTH
        anchor = "start" if share < 0.04 else "end" if share > 0.96 else "middle"
        at = f"{share:.2%}"
        return joined(
            tag("line", x1=at, x2=at, y1=0, y2=5),
            tag("text", self.label(seconds), x=at, y=18, text_anchor=anchor),
        )
