"""Maps on disk, written as the data sets want them handed in and read back from there.

A `read_*` function starts no video and reads no image; what is wrong with one is a DatasetError
when its frame comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import vipseg
from ..data.json_index import load_json, need
from ..data.label_png import as_classes, read_rgb, read_values
from ..data.segment_json import Segments, keep_segment, parse_segments, read_segments
from ..data.submissions import CityscapesVpsWriter, VipsegWriter, write_step, write_vspw
from ..data.video import DatasetError, LabelledFrame, Video, VideoDataset
from .panoptic import Maps
from .run import Predictor
from .semantic import ClassMap

IMAGE_ENDS = ("_newImg8bit", "_leftImg8bit")
"""Of Cityscapes-VPS; an image id is without them."""
LABELLED_EVERY = 5
"""Frames; of 30 in a video, the 5th, 10th .. 30th are labelled, and only those are handed in."""


class _Saver:
    """What savers of maps have in common: the folder, and nothing to do when a video ends."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def end_video(self, video: Video) -> None:
        """Nothing to do."""

    def close(self) -> Path:
        """The folder."""
        return self.out


class StepSaver(_Saver):
    """OUT/VIDEO/FRAME.png with R = class, G * 256 + B = id."""

    def update(self, video: Video, frame: LabelledFrame, prediction: Maps) -> None:
        """Write a frame; ValueError if an id does not fit two bytes."""
        semantic, instance = prediction
        write_step(self.out, video.name, frame.name, semantic, instance)


def read_step_maps(folder: Path, dataset: VideoDataset) -> Predictor[Maps]:
    """Read what `StepSaver` writes."""

    def start(video: Video) -> Callable[[LabelledFrame], Maps]:
        def predict(frame: LabelledFrame) -> Maps:
            path = folder / video.name / f"{frame.name}.png"
            rgb = read_rgb(path).astype(np.int64)
            classes = as_classes(rgb[..., 0], dataset.class_count, path)
            return classes, rgb[..., 1] * 256 + rgb[..., 2]

        return predict

    return start


class CityscapesVpsSaver(_Saver):
    """OUT/pred.json and OUT/pan_pred/IMAGE.png, of the labelled frames."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._writer = CityscapesVpsWriter(out)
        self._position = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: Maps) -> None:
        """Write a frame, unless it is one of `test` between the labelled ones."""
        self._position += 1
        if video.read is None and self._position % LABELLED_EVERY:
            return
        semantic, instance = prediction
        image_id = frame.name
        for end in IMAGE_ENDS:
            image_id = image_id.removesuffix(end)
        self._writer.add(video.name, image_id, semantic, instance)

    def end_video(self, video: Video) -> None:
        """Count the frames anew."""
        self._position = 0

    def close(self) -> Path:
        """Write pred.json."""
        self._writer.close()
        return self.out


def read_cityscapes_vps_maps(folder: Path, dataset: VideoDataset) -> Predictor[Maps]:
    """Read what `CityscapesVpsSaver` writes.

    Annotations without `image_id` are taken in the order of the frames, as the official program
    takes all of them. DatasetError if pred.json is unusable.
    """
    index = folder / "pred.json"
    entries = need(_load(index), "annotations", list, str(index))
    names = [frame.name for video in dataset for frame in video.frames]
    found = _by_name(entries, names, dataset.class_count, f"{index}: annotation")

    def start(video: Video) -> Callable[[LabelledFrame], Maps]:
        def predict(frame: LabelledFrame) -> Maps:
            png = folder / "pan_pred" / f"{frame.name}.png"
            return _maps(png, found, frame.name, dataset.things, index)

        return predict

    return start


class VipsegSaver(_Saver):
    """OUT/pred.json and OUT/pan_pred/VIDEO/FRAME.png."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._writer = VipsegWriter(out)

    def update(self, video: Video, frame: LabelledFrame, prediction: Maps) -> None:
        """Write a frame."""
        semantic, instance = prediction
        self._writer.add(video.name, frame.name, semantic, instance)

    def close(self) -> Path:
        """Write pred.json."""
        self._writer.close()
        return self.out


def read_vipseg_maps(folder: Path, dataset: VideoDataset) -> Predictor[Maps]:
    """Read what `VipsegSaver` writes; DatasetError if pred.json is unusable."""
    index = folder / "pred.json"
    entries: dict[str, tuple[list, str]] = {}
    for number, entry in enumerate(need(_load(index), "annotations", list, str(index))):
        where = f"{index}: annotation {number}"
        name = need(entry, "video_id", str, where)
        entries[name] = need(entry, "annotations", list, where), where

    def start(video: Video) -> Callable[[LabelledFrame], Maps]:
        if video.name not in entries:
            raise DatasetError(f"{index} has no annotations of the video {video.name!r}")
        of_video, where = entries[video.name]
        names = [frame.name for frame in video.frames]
        found = _by_name(of_video, names, dataset.class_count, f"{where}, frame")
        for segments in found.values():
            segments[:, 1] = vipseg.CLASS_OF_CATEGORY[segments[:, 1] + 1]

        def predict(frame: LabelledFrame) -> Maps:
            png = folder / "pan_pred" / video.name / f"{frame.name}.png"
            return _maps(png, found, frame.name, dataset.things, index)

        return predict

    return start


class VspwSaver(_Saver):
    """OUT/VIDEO/FRAME.png of class ids."""

    def update(self, video: Video, frame: LabelledFrame, prediction: ClassMap) -> None:
        """Write a frame; ValueError if a pixel has no class."""
        write_vspw(self.out, video.name, frame.name, prediction)


def read_vspw_maps(folder: Path, dataset: VideoDataset) -> Predictor[ClassMap]:
    """Read what `VspwSaver` writes; images with a palette are read as their positions in it."""

    def start(video: Video) -> Callable[[LabelledFrame], ClassMap]:
        def predict(frame: LabelledFrame) -> ClassMap:
            path = folder / video.name / f"{frame.name}.png"
            classes = read_values(path)
            if classes.max(initial=0) >= dataset.class_count:
                raise DatasetError(
                    f"{path}: class ids must be 0..{dataset.class_count - 1} everywhere, "
                    f"found {classes.max()}"
                )
            return classes

        return predict

    return start


def _load(index: Path) -> Any:
    if not index.is_file():
        raise DatasetError(f"there are no predictions {index}")
    return load_json(index, keep_segment)


def _by_name(
    entries: list, names: Sequence[str], class_count: int, where: str
) -> dict[str, Segments]:
    """Frame -> its segments; annotations that do not name theirs are in the order of frames."""
    found, classes = {}, {number: number for number in range(class_count)}
    for number, entry in enumerate(entries):
        segments = parse_segments(entry, classes, f"{where} {number}")
        in_order = names[number] if number < len(names) else ""
        found[str(entry.get("image_id", in_order))] = segments
    return found


def _maps(
    png: Path, found: dict[str, Segments], name: str, things: frozenset[int], index: Path
) -> Maps:
    """The maps of one frame; DatasetError if index and PNG do not list the same segments."""
    if name not in found:
        raise DatasetError(f"{index} has no annotation of {name!r}")
    labels = read_segments(png, found[name], things)
    if labels.empty:
        raise DatasetError(
            f"{index} lists the segment {labels.empty[0]}, which {png} does not have"
        )
    return labels.semantic, labels.instance
