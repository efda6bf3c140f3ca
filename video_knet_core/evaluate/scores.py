"""What an evaluation comes to: a table for the terminal, and all figures for a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """Scores are fractions 0..1; NaN where nothing could be measured."""

    columns: Mapping[str, Sequence[str]]
    """Names of the columns of the table, by what stands above them ("" = nothing)."""
    rows: Mapping[str, Sequence[float]]
    """A row for each video, then one for all of them; that one is no mean of the others."""
    figures: Mapping[str, Any]
    """Everything, of plain types."""

    def to_json(self) -> str:
        """All figures; NaN becomes null."""
        text = json.dumps(self.figures)
        return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2)

    def table(self) -> Iterator[str]:
        """Lines for a terminal."""
        width = max(len(name) for name in self.rows)
        if any(self.columns):
            titles = (f"  {title:<{7 * len(names) - 2}}" for title, names in self.columns.items())
            yield (" " * width + "".join(titles)).rstrip()
        names = (name for group in self.columns.values() for name in group)
        yield " " * width + "".join(f"{name:>7}" for name in names)
        for name, values in self.rows.items():
            yield f"{name:<{width}}" + "".join(map(cell, values))


def cell(value: float) -> str:
    """A score for a column of 7; what could not be measured is neither 0 nor a number."""
    return f"{score(value):>7}"


def score(value: float) -> str:
    """A score as text, n/a where nothing could be measured."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"
