"""The classes that saved predictions are of: their files hold numbers alone."""

from __future__ import annotations

import json
from pathlib import Path

from ..data.json_index import load_json, need
from ..data.video import DatasetError, VideoDataset
from ..types import first_difference

FILE = "video_knet_classes.json"
"""Beside the predictions. No server or program of a data set reads it."""


def write_classes(folder: Path, dataset: VideoDataset) -> None:
    """Write FOLDER/video_knet_classes.json, and the folder."""
    rows = [{"name": name, "is_thing": is_thing} for name, is_thing in dataset.kinds]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def check_classes(path: Path, dataset: VideoDataset) -> None:
    """DatasetError if predictions were saved with other classes than those of the data set.

    Predictions of other programs come without the file, and are taken as they are.

    Args:
        path: the folder of predictions, or the one file of a form that has one.
    """
    file = (path if path.is_dir() else path.parent) / FILE
    if not file.is_file():
        return
    rows = load_json(file)
    if not isinstance(rows, list):
        raise DatasetError(f"{file} must be a list of classes, got {type(rows).__name__}")
    kinds = [
        (need(row, "name", str, f"{file}: class {i}"), need(row, "is_thing", bool, str(file)))
        for i, row in enumerate(rows)
    ]
    if difference := first_difference(dataset.kinds, kinds):
        raise DatasetError(f"{file}: its classes are not those of {dataset.name}: {difference}")
