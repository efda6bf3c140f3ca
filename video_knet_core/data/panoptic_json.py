"""The COCO panoptic form: a PNG whose colours are segment ids, and an index of what they are.

Kirillov et al., "Panoptic Segmentation", 2019; the files are described at cocodataset.org. Labels
of COCO and of Cityscapes-VPS have it, and predictions for Cityscapes-VPS and VIPSeg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .json_index import load_index, need
from .label_png import read_rgb, segment_colors, segment_ids, value_ranges, write_png
from .predictions import PanopticMaps, PredictionReader, PredictionWriter, check_maps, write_json
from .video import DatasetError, LabelledFrame, Labels, Video, VideoDataset

Segments = NDArray[np.int64]
"""[S, 3] of one frame: segment id, class id, 1 for a crowd."""


def keep_segment(entry: dict) -> dict:
    """For `load_json`: a segment without its box and area, of which a large index is full."""
    if "segments_info" in entry or "category_id" not in entry:
        return entry
    return {key: entry[key] for key in ("id", "category_id", "iscrowd") if key in entry}


def parse_segments(annotation: dict, classes: Mapping[int, int], where: str) -> Segments:
    """The segments of one annotation; `classes` has the class id of each category.

    Raises:
        DatasetError: a key is missing, or a category is beyond the table.
    """
    rows = []
    for number, entry in enumerate(need(annotation, "segments_info", list, where)):
        here = f"{where}, segment {number}"
        category = need(entry, "category_id", int, here)
        if category not in classes:
            expected = value_ranges(np.array(sorted(classes)))
            raise DatasetError(f"{here}: expected a category_id of {expected}, got {category}")
        segment = need(entry, "id", int, here)
        if not 0 <= segment < 1 << 24:
            raise DatasetError(f"{here}: expected an id of 0..{(1 << 24) - 1}, got {segment}")
        rows.append((segment, classes[category], bool(entry.get("iscrowd", 0))))
    return np.array(rows, np.int64).reshape(-1, 3)


def read_segments(path: str | Path, segments: Segments, things: frozenset[int]) -> Labels:
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


@dataclass(frozen=True)
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
                segments = parse_segments(entry, classes, f"{where} {number}")
                if "image_id" in entry:
                    found[frames[0].parent / f"{entry['image_id']}.png"] = segments
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
    ) -> Iterator[tuple[list[Any], Sequence[Path], str]]:
        """Annotations, the PNGs of the frames that they are of, and where they are."""
        pngs = [[self.png(video, frame.name) for frame in video.frames] for video in dataset]
        annotations = need(load_index(index, keep_segment), "annotations", list, str(index))
        if not self.by_video:
            yield annotations, sum(pngs, []), f"{index}: annotation"
            return
        of_name = {video.name: of_video for video, of_video in zip(dataset, pngs, strict=True)}
        for number, entry in enumerate(annotations):
            where = f"{index}: annotation {number}"
            frames = of_name.pop(need(entry, "video_id", str, where), None)
            if frames:
                yield need(entry, "annotations", list, where), frames, f"{where}, frame"
        if of_name:
            raise DatasetError(f"{index} has no annotations of the video {min(of_name)!r}")


def _maps(
    folder: Path, png: Path, found: Mapping[Path, Segments], things: frozenset[int]
) -> PanopticMaps:
    """The maps of one frame; DatasetError if index and PNG do not list the same segments."""
    index = folder.with_name("pred.json")
    if png not in found:
        raise DatasetError(f"{index} has no annotation of {png.stem!r}")
    labels = read_segments(folder / png, found[png], things)
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
