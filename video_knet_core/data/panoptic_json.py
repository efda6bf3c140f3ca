"""The COCO panoptic form: a PNG whose colours are segment ids, and an index of what they are.

Kirillov et al., "Panoptic Segmentation", 2019; the files are described at cocodataset.org. Labels
of COCO and of Cityscapes-VPS have it, and predictions for Cityscapes-VPS and VIPSeg.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..types import NO_CLASS
from .json_index import ROW, Flag, Integer, Text, load_index
from .label_png import (
    check_maps,
    label_file,
    read_rgb,
    segment_colors,
    segment_ids,
    value_ranges,
    write_png,
)
from .predictions import PanopticMaps, PredictionReader, PredictionWriter, write_json
from .video import (
    DatasetError,
    FrameFiles,
    LabelledFrame,
    LabelReader,
    Labels,
    Video,
    VideoDataset,
)

Segments = NDArray[np.int64]
"""[S, 3] of one frame: segment id, class id, 1 for a crowd."""


@dataclass(frozen=True, slots=True, config=ROW)
class SegmentInfo:
    """A row of `segments_info`."""

    id: Annotated[int, Field(strict=True, ge=0, lt=1 << 24)]
    category_id: Integer
    iscrowd: Flag = False


@dataclass(frozen=True, slots=True, config=ROW)
class PanopticAnnotation:
    """A row of `annotations`: one image."""

    segments_info: list[SegmentInfo]
    image_id: Integer | Text | None = None
    file_name: Text = ""


@dataclass(frozen=True, slots=True, config=ROW)
class _Predictions:
    annotations: list[PanopticAnnotation]


@dataclass(frozen=True, slots=True, config=ROW)
class _VideoAnnotation:
    video_id: Text
    annotations: list[PanopticAnnotation]


@dataclass(frozen=True, slots=True, config=ROW)
class _VideoPredictions:
    annotations: list[_VideoAnnotation]


def keep_segment(entry: dict) -> dict:
    """For `load_json`: a segment without its box and area, of which a large index is full."""
    if "segments_info" in entry or "category_id" not in entry:
        return entry
    return {key: entry[key] for key in ("id", "category_id", "iscrowd") if key in entry}


def annotated_frames(
    annotations: Sequence[PanopticAnnotation],
    images: Mapping[int | str, tuple[str, str]],
    masks: Path,
    classes: Mapping[int, int],
    things: frozenset[int],
    index: Path,
) -> tuple[list[FrameFiles], LabelReader]:
    """The frames of an index in its order, and what reads their labels.

    `images` has name and file by image id, `classes` the class id of each category. DatasetError
    names the place in `index` of an unknown image or category.
    """
    frames, segments = [], []
    for number, annotation in enumerate(annotations):
        where = f"{index}: annotations.{number}"
        image_id = annotation.image_id
        if image_id is None or image_id not in images:
            raise DatasetError(f"{where}.image_id: expected one of `images`, got {image_id!r}")
        png = f"{masks}/{annotation.file_name}"
        frames.append(FrameFiles(*images[image_id], png, number))
        segments.append(_segments_of(annotation, classes, where))
    return frames, partial(_read_frame, segments, things)


def _read_frame(segments: Sequence[Segments], things: frozenset[int], frame: FrameFiles) -> Labels:
    return _read_segments(label_file(frame), segments[frame.index], things)


def _segments_of(
    annotation: PanopticAnnotation, classes: Mapping[int, int], where: str
) -> Segments:
    """The segments of one annotation; `classes` has the class id of each category.

    Raises:
        DatasetError: a category is beyond the table.
    """
    for number, segment in enumerate(annotation.segments_info):
        if segment.category_id not in classes:
            raise DatasetError(
                f"{where}.segments_info.{number}.category_id: expected "
                f"{value_ranges(np.array(sorted(classes)))}, got {segment.category_id}"
            )
    rows = [(s.id, classes[s.category_id], s.iscrowd) for s in annotation.segments_info]
    return np.array(rows, np.int64).reshape(-1, 3)


def _read_segments(path: str | Path, segments: Segments, things: frozenset[int]) -> Labels:
    """Labels of one frame; a thing keeps its segment id, stuff, void and crowds have 0.

    Raises:
        DatasetError: the PNG is unreadable, or has an id that `segments` does not list.
    """
    values = segment_ids(read_rgb(path))
    ids, positions = np.unique(values, return_inverse=True)
    positions = positions.reshape(values.shape)  # numpy 1 gives it flat
    listed = {int(i): (int(category), bool(crowd)) for i, category, crowd in segments}
    unknown = set(ids.tolist()) - listed.keys() - {0}
    if unknown:
        raise DatasetError(
            f"{path}: expected the segment ids of its index, {sorted(listed)[:20]}, "
            f"got {min(unknown)}"
        )
    listed[0] = (NO_CLASS, True)
    classes = np.array([listed[i][0] for i in ids.tolist()], np.uint8)
    kept = [listed[i][0] in things and not listed[i][1] for i in ids.tolist()]
    empty = tuple(sorted(listed.keys() - set(ids.tolist()) - {0}))
    return Labels(classes[positions], np.where(kept, ids, 0)[positions], None, empty)


@dataclasses.dataclass(frozen=True)
class PanopticPredictions:
    """The `PredictionFormat` OUT/pred.json and OUT/pan_pred/[VIDEO/]IMAGE.png."""

    categories: NDArray[np.int64]
    """[C] category of each class id in pred.json."""
    by_video: bool = False
    """Whether annotations and PNGs are grouped by video; else they are in the order of frames."""
    image_id: Callable[[str], str] = str
    """Name of a PNG from that of its frame."""
    every: int = 1
    """Of a split without labels only each n-th frame of a video is submitted."""

    def writer(self, out: Path) -> PredictionWriter[PanopticMaps]:
        """See `PredictionFormat`."""
        return _PanopticWriter(out, self)

    def read(self, path: Path, dataset: VideoDataset) -> PredictionReader[PanopticMaps]:
        """See `PredictionFormat`; annotations without `image_id` are in the order of frames, as
        the official programs take all of them."""
        index = path / "pred.json"
        if not index.is_file():
            raise DatasetError(f"there are no predictions {index}")
        classes = {category: number for number, category in enumerate(self.categories.tolist())}
        found: dict[Path, Segments] = {}
        for entries, frames, where in self._groups(index, dataset):
            for number, entry in enumerate(entries):
                segments = _segments_of(entry, classes, f"{where}.{number}")
                if entry.image_id is not None:
                    found[frames[0].parent / f"{entry.image_id}.png"] = segments
                elif number < len(frames):
                    found[frames[number]] = segments

        def start(video: Video) -> Callable[[LabelledFrame], PanopticMaps]:
            return lambda frame: _maps(
                path / "pan_pred", self.png(video, frame.name), found, dataset.things
            )

        return start

    def png(self, video: Video, frame: str) -> Path:
        """The PNG of a frame below pan_pred."""
        return Path(video.name if self.by_video else "") / f"{self.image_id(frame)}.png"

    def _groups(
        self, index: Path, dataset: VideoDataset
    ) -> Iterator[tuple[Sequence[PanopticAnnotation], Sequence[Path], str]]:
        """Annotations, the PNGs of the frames that they are of, and where they are."""
        pngs = {
            video.name: [self.png(video, frame.name) for frame in video.frames] for video in dataset
        }
        if not self.by_video:
            content: _Predictions = load_index(index, _Predictions, keep_segment)
            yield content.annotations, sum(pngs.values(), []), f"{index}: annotations"
            return
        videos: _VideoPredictions = load_index(index, _VideoPredictions, keep_segment)
        for number, entry in enumerate(videos.annotations):
            if frames := pngs.pop(entry.video_id, None):
                yield entry.annotations, frames, f"{index}: annotations.{number}.annotations"
        if pngs:
            raise DatasetError(f"{index} has no annotations of the video {min(pngs)!r}")


def _maps(
    folder: Path, png: Path, found: Mapping[Path, Segments], things: frozenset[int]
) -> PanopticMaps:
    """The maps of one frame; DatasetError if index and PNG do not list the same segments."""
    index = folder.with_name("pred.json")
    if png not in found:
        raise DatasetError(f"{index} has no annotation of {png.stem!r}")
    labels = _read_segments(folder / png, found[png], things)
    if labels.empty:
        raise DatasetError(
            f"{index} lists the segment {labels.empty[0]}, which {folder / png} does not have"
        )
    return labels.semantic, labels.instance


class _PanopticWriter(PredictionWriter[PanopticMaps]):
    """Ids of segments are unique within a video: a class and an instance id keep theirs."""

    def __init__(self, out: Path, form: PanopticPredictions) -> None:
        super().__init__(out)
        self._form = form
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        self._ids: dict[tuple[int, int], int] = {}
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: PanopticMaps) -> None:
        self._frames += 1
        if video.read is None and self._frames % self._form.every:
            return
        png = self._form.png(video, frame.name)
        entry = {
            "image_id": png.stem,
            "file_name": png.name,
            "segments_info": self._write(self.out / "pan_pred" / png, *prediction),
        }
        self._annotations.setdefault(video.name, []).append(entry)

    def end_video(self, video: Video) -> None:
        self._ids, self._frames = {}, 0

    def close(self) -> Path:
        annotations: list[dict[str, Any]] = (
            [{"video_id": name, "annotations": rows} for name, rows in self._annotations.items()]
            if self._form.by_video
            else [row for rows in self._annotations.values() for row in rows]
        )
        write_json(self.out / "pred.json", {"annotations": annotations})
        return self.out

    def _write(self, path: Path, semantic: NDArray, instance: NDArray) -> list[dict[str, Any]]:
        """Write the PNG of segment ids, 0 = void; returns a row for each segment."""
        check_maps(semantic, instance)
        joint = np.where(semantic == NO_CLASS, -1, instance.astype(np.int64) * 256 + semantic)
        found, positions = np.unique(joint, return_inverse=True)
        ids = np.array([self._id_of(int(value)) for value in found], np.int64)
        id_map = ids[positions].reshape(joint.shape)
        write_png(path, segment_colors(id_map))
        return [
            _segment_row(int(i), int(self._form.categories[value % 256]), id_map == i)
            for i, value in zip(ids, found, strict=True)
            if i
        ]

    def _id_of(self, joint: int) -> int:
        if joint < 0:
            return 0
        return self._ids.setdefault((joint % 256, joint // 256), len(self._ids) + 1)


def _segment_row(segment_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    area = int(mask.sum())
    return {"id": segment_id, "category_id": category, "iscrowd": 0, "bbox": box, "area": area}
