"""OUT/tracks.csv and OUT/tracks.json: a row for each confirmed track of all cameras."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ...output_files import replacing
from ...types import ClassTable
from .lifelines import Lifeline

CSV, JSON = "tracks.csv", "tracks.json"
BOXES = [f"{name}_{side}" for name in ("first", "last") for side in ("x", "y", "width", "height")]
COLUMNS: dict[str, type] = {
    **{"camera": str, "epoch": int, "track_id": int, "class_id": int, "class": str},
    **{"first_s": float, "last_s": float, "first_stamp": int, "last_stamp": int},
    **{"first_frame": int, "last_frame": int, "frames": int, "mean_score": float},
    **dict.fromkeys(BOXES, int),
    "max_area": int,
}
"""Seconds are those of the recording, stamps nanoseconds, boxes and areas pixels of the image."""


class TrackTable:
    """Rows in the order in which the tracks end; they are written as they come.

    Args:
        out: folder of the replay.
        classes: of the model.
    """

    def __init__(self, out: Path, classes: ClassTable) -> None:
        self._out, self._classes = out, classes
        self._size = 0
        self._file: TextIO | None = None

    def add(self, camera: str, line: Lifeline) -> None:
        """Write the row of a track."""
        row = _row(camera, line, self._classes)
        csv.writer(self._open(), lineterminator="\n").writerow(row.values())

    def size(self) -> int:
        """Bytes of the rows so far, for `restore`."""
        self._open().flush()
        return os.fstat(self._open().fileno()).st_size

    def restore(self, size: int) -> None:
        """Keep as many bytes of the rows that are there."""
        self._size = size

    def finish(self, living: Iterable[tuple[str, Lifeline]]) -> None:
        """Write the rows of the tracks that did not end, and the same table as JSON."""
        for camera, line in living:
            self.add(camera, line)
        self.close()
        with (
            (self._out / CSV).open(encoding="utf-8", newline="") as file,
            replacing(self._out / JSON) as partial,
            partial.open("w") as target,
        ):
            rows = (json.dumps(_typed(row)) for row in csv.DictReader(file))
            target.write("[")
            for number, row in enumerate(rows):
                target.write(f"{',' if number else ''}\n{row}")
            target.write("\n]\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> TextIO:
        if self._file is None:
            path = self._out / CSV
            path.touch()
            os.truncate(path, self._size)
            self._file = path.open("a", encoding="utf-8", errors="replace", newline="")
            if not self._size:
                csv.writer(self._file, lineterminator="\n").writerow(COLUMNS)
        return self._file


def _row(camera: str, line: Lifeline, classes: ClassTable) -> dict[str, Any]:
    return {
        "camera": camera,
        "epoch": line.epoch,
        "track_id": line.track_id,
        "class_id": line.class_id,
        "class": classes[line.class_id].name,
        "first_s": round(line.spans[0][0], 3),
        "last_s": round(line.spans[-1][1], 3),
        "first_stamp": line.first_stamp,
        "last_stamp": line.last_stamp,
        "first_frame": line.first_frame,
        "last_frame": line.last_frame,
        "frames": line.frames,
        "mean_score": round(line.score_sum / line.frames, 4),
        **dict(zip(BOXES, [*line.first_box, *line.last_box], strict=True)),
        "max_area": line.max_area,
    }


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {name: kind(row[name]) for name, kind in COLUMNS.items()}
