"""Results of an evaluation: a table for the terminal, and all figures for a file."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..data.video import LabelledFrame, Video

P = TypeVar("P")


@dataclass(frozen=True)
class Scores:
    """Scores are fractions 0..1; NaN where nothing could be measured. Integers are counts."""

    columns: Mapping[str, Sequence[str]]
    """Names of the columns of the table, by what stands above them ("" = nothing)."""
    rows: Mapping[str, Sequence[float]]
    """Of a data set one for each video, then one for all of them, which is no mean of the others;
    of a comparison one for each candidate."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Everything, of plain types."""
    row_title: str = ""
    """Name of the first column."""

    def to_json(self) -> str:
        """All figures; NaN becomes null."""
        text = json.dumps(self.figures)
        return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2)

    def table(self) -> Iterator[str]:
        """Lines for a terminal."""
        width = max(map(len, (self.row_title, *self.rows)))
        if any(self.columns):
            titles = (f"  {title:<{7 * len(names) - 2}}" for title, names in self.columns.items())
            yield (" " * width + "".join(titles)).rstrip()
        names = [name for group in self.columns.values() for name in group]
        widths = [max(7, len(name) + 2) for name in names]
        cells = "".join(f"{name:>{size}}" for name, size in zip(names, widths, strict=True))
        yield f"{self.row_title:<{width}}{cells}"
        for row, values in self.rows.items():
            sizes = zip(values, widths, strict=True)
            yield f"{row:<{width}}" + "".join(f"{score(value):>{size}}" for value, size in sizes)


class Evaluator(ABC, Generic[P]):
    """Compares the predictions of a data set with its labels."""

    @abstractmethod
    def update(self, video: Video, frame: LabelledFrame, prediction: P) -> None:
        """Add the next frame; ValueError if the prediction does not fit it."""

    def end_video(self, video: Video) -> None:
        """The last frame of `video` was added; raises as `update`."""

    @abstractmethod
    def compute(self) -> Scores:
        """Scores of all videos that have ended."""


def score(value: float) -> str:
    """A score as text, n/a where nothing could be measured: neither 0 nor a number."""
    if isinstance(value, int):
        return str(value)
    return "n/a" if math.isnan(value) else f"{value:.3f}"
