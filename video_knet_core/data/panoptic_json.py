"""The COCO panoptic form: a PNG whose colours are segment ids, and an index of what they are.

Kirillov et al., "Panoptic Segmentation", 2019; the files are described at cocodataset.org. Labels
of COCO and of Cityscapes-VPS have it, and predictions for Cityscapes-VPS and VIPSeg.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..output_files import inside
from ..types import NO_CLASS, ClassKind
from .json_index import ROW, Category, Flag, Integer, Text, class_of, load_index
from .label_png import check_maps, read_rgb, segment_colors, segment_ids, write_png
from .predictions import (
    PanopticMaps,
    PredictionFormat,
    PredictionReader,
    PredictionWriter,
    write_json,
)
from .video import DatasetError, FrameFiles, LabelledFrame, LabelReader, Labels, Video, VideoDataset

Segments = NDArray[np.int64]
"""[S, 3] of one frame: segment id, class id, 1 for a crowd."""


@dataclass(frozen=True, slots=True, config=ROW)
class _Segment:
    """A row of `segments_info`."""

    id: Annotated[int, Field(strict=True, ge=0, lt=1 << 24)]
    category_id: Integer
    iscrowd: Flag = False


@dataclass(frozen=True, slots=True, config=ROW)
class _Annotation:
    """A row of `annotations`: one image."""

    segments_info: list[_Segment]
    image_id: Integer | Text | None = None
    file_name: Text = ""


@dataclass(frozen=True, slots=True, config=ROW)
class _Image:
    id: Integer | Text
    file_name: Text


@dataclass(frozen=True, slots=True, config=ROW)
class PanopticIndex:
    """The index of a split."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[Category] | None = None


@dataclass(frozen=True, slots=True, config=ROW)
class _Predictions:
    annotations: list[_Annotation]


@dataclass(frozen=True, slots=True, config=ROW)
class _VideoAnnotation:
    video_id: Text
    annotations: list[_Annotation]


@dataclass(frozen=True, slots=True, config=ROW)
class _VideoPredictions:
    annotations: list[_VideoAnnotation]


def load_panoptic_index(index: Path) -> PanopticIndex:
    """DatasetError if it is missing or malformed."""
    content: PanopticIndex = load_index(index, PanopticIndex, _keep_segment)
    return content


def _keep_segment(entry: dict) -> dict:
    """A segment without its box and area, of which a large index is full."""
    if "segments_info" in entry or "category_id" not in entry:
        return entry
    return {key: entry[key] for key in ("id", "category_id", "iscrowd") if key in entry}


def annotated_frames(
    content: PanopticIndex,
    images: Mapping[int | str, tuple[str, str]],
    masks: Path,
    classes: Mapping[int, int],
    kinds: Sequence[ClassKind],
    index: Path,
) -> tuple[list[FrameFiles], LabelReader]:
    """The frames of an index in its order, and what reads their labels.

    `images` has name and file by image id, `classes` the class id of each category. DatasetError
    names the place in `index` of an unknown image or category.
    """
    frames, segments = [], {}
    things = frozenset(number for number, (_, is_thing) in enumerate(kinds) if is_thing)
    for number, annotation in enumerate(content.annotations):
        where = f"{index}: annotations.{number}"
        image_id = annotation.image_id
        if image_id is None or image_id not in images:
            raise DatasetError(f"{where}.image_id: expected one of `images`, got {image_id!r}")
        png = f"{masks}/{annotation.file_name}"
        frames.append(FrameFiles(*images[image_id], png))
        segments[png] = _segments_of(annotation, classes, where)
    return frames, partial(_read_frame, segments, things)


def _read_frame(
    segments: Mapping[str, Segments], things: frozenset[int], png: str, _: int
) -> Labels:
    """A function of its own, for data workers that are spawned get it by pickle."""
    return _read_segments(png, segments[png], things)


def _segments_of(annotation: _Annotation, classes: Mapping[int, int], where: str) -> Segments:
    """The segments of one annotation; DatasetError if a category is beyond the table."""
    rows = [
        (
            segment.id,
            class_of(segment.category_id, classes, f"{where}.segments_info.{number}"),
            segment.iscrowd,
        )
        for number, segment in enumerate(annotation.segments_info)
    ]
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
class PanopticFiles:
    """Predictions as OUT/pred.json and OUT/pan_pred/[VIDEO/]IMAGE.png."""

    categories: NDArray[np.int64]
    """[C] category of each class id in pred.json."""
    endings: tuple[str, ...] = ()
    """Of the names of frames, which the names of PNGs do not have."""
    by_video: bool = False
    """Whether annotations and PNGs are grouped by video; else they are in the order of frames."""
    every: int = 1
    """Of a split without labels only each n-th frame of a video is submitted."""

    def form(self) -> PredictionFormat[PanopticMaps]:
        """How they are written and read."""
        return PredictionFormat(partial(_PanopticWriter, self), self._read)

    def png(self, video: str, frame: str) -> Path:
        """The PNG of a frame below pan_pred."""
        for ending in self.endings:
            frame = frame.removesuffix(ending)
        return Path(video if self.by_video else "") / f"{frame}.png"

    def _read(self, path: Path, dataset: VideoDataset) -> PredictionReader[PanopticMaps]:
        if not (path / "pred.json").is_file():
            raise DatasetError(f"there are no predictions {path / 'pred.json'}")
        found = self._segments(path / "pred.json", dataset)

        def maps(video: Video, frame: LabelledFrame) -> PanopticMaps:
            png = self.png(video.name, frame.name)
            if png not in found:
                raise DatasetError(f"{path / 'pred.json'} has no annotation of {png.stem!r}")
            file = path / "pan_pred" / png
            labels = _read_segments(file, found[png], dataset.things)
            if labels.empty:
                raise DatasetError(
                    f"{path / 'pred.json'} lists the segment {labels.empty[0]}, "
                    f"which {file} does not have"
                )
            return labels.semantic, labels.instance

        return lambda video: partial(maps, video)

    def _segments(self, index: Path, dataset: VideoDataset) -> dict[Path, Segments]:
        """By PNG; annotations without `image_id` are in the order of frames, as the official
        programs take all of them."""
        classes = {category: number for number, category in enumerate(self.categories.tolist())}
        pngs = {v.name: [self.png(v.name, frame.name) for frame in v.frames] for v in dataset}
        if self.by_video:
            videos: _VideoPredictions = load_index(index, _VideoPredictions, _keep_segment)
            groups = [
                (row.annotations, pngs.pop(row.video_id, []), f"annotations.{number}.annotations")
                for number, row in enumerate(videos.annotations)
            ]
            if pngs:
                raise DatasetError(f"{index} has no annotations of the video {min(pngs)!r}")
        else:
            content: _Predictions = load_index(index, _Predictions, _keep_segment)
            groups = [(content.annotations, sum(pngs.values(), []), "annotations")]
        found: dict[Path, Segments] = {}
        for rows, frames, place in groups:
            for number, annotation in enumerate(rows if frames else ()):
                segments = _segments_of(annotation, classes, f"{index}: {place}.{number}")
                if annotation.image_id is not None:
                    found[frames[0].parent / f"{annotation.image_id}.png"] = segments
                elif number < len(frames):
                    found[frames[number]] = segments
        return found


class _PanopticWriter(PredictionWriter[PanopticMaps]):
    """Ids of segments are unique within a video: a class and an instance id keep theirs."""

    def __init__(self, files: PanopticFiles, out: Path) -> None:
        super().__init__(out)
        self._files = files
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        self._ids: dict[int, int] = {-1: 0}
        """Of class and instance id together; -1 = void."""
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: PanopticMaps) -> None:
        self._frames += 1
        if video.read is None and self._frames % self._files.every:
            return
        png = self._files.png(video.name, frame.name)
        entry = {
            "image_id": png.stem,
            "file_name": png.name,
            "segments_info": self._write(inside(self.out / "pan_pred", png), *prediction),
        }
        self._annotations.setdefault(video.name, []).append(entry)

    def end_video(self, video: Video) -> None:
        self._ids, self._frames = {-1: 0}, 0

    def close(self) -> Path:
        annotations: list[dict[str, Any]] = (
            [{"video_id": name, "annotations": rows} for name, rows in self._annotations.items()]
            if self._files.by_video
            else [row for rows in self._annotations.values() for row in rows]
        )
        write_json(self.out / "pred.json", {"annotations": annotations})
        return self.out

    def _write(self, path: Path, semantic: NDArray, instance: NDArray) -> list[dict[str, Any]]:
        """Write the PNG of segment ids, 0 = void; returns a row for each segment."""
        check_maps(semantic, instance)
        joint = np.where(semantic == NO_CLASS, -1, instance.astype(np.int64) * 256 + semantic)
        found, positions = np.unique(joint, return_inverse=True)
        ids = [self._ids.setdefault(value, len(self._ids)) for value in found.tolist()]
        id_map = np.array(ids, np.int64)[positions].reshape(joint.shape)
        write_png(path, segment_colors(id_map))
        rows = []
        for segment, value in zip(ids, found.tolist(), strict=True):
            if segment:
                mask = id_map == segment
                rows.append(
                    {
                        "id": segment,
                        "category_id": int(self._files.categories[value % 256]),
                        "iscrowd": 0,
                        "bbox": list(cv2.boundingRect(mask.astype(np.uint8))),
                        "area": int(mask.sum()),
                    }
                )
        return rows
