"""A model, or maps on disk, against the labels of a panoptic data set: STQ, VPQ and mIoU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .config import TrackingConfig
from .data.label_png import read_rgb
from .data.video import DatasetError, LabelledFrame, Video, VideoDataset
from .engine.runtime import ModelError, Runtime
from .metrics.stq import SegmentationTrackingQuality
from .metrics.vpq import MeanVideoPanopticQuality
from .predictor import VideoPredictor

PANOPTIC = ("kitti_step", "cityscapes_vps", "vipseg", "own")
"""Data sets whose labels are panoptic maps."""
FRAMES_PER_SECOND = 10.0
"""Of the stamps that the tracker sees; the data sets have none."""

Maps = tuple[NDArray[np.integer], NDArray[np.integer]]
"""Class ids [H, W] and track ids [H, W] of one frame; 255 and 0 = none."""
Predictor = Callable[[Video], Callable[[LabelledFrame], Maps]]
"""Starts a video; what it returns is called with its frames in order."""


@dataclass(frozen=True)
class Row:
    """Scores 0..1 of one sequence or of all; NaN where nothing could be measured."""

    stq: float
    aq: float
    sq: float
    vpq: float
    """Mean over windows of 1 to 4 frames."""


@dataclass(frozen=True)
class DatasetScores:
    """Scores of a split. `total` is no mean of the rows: see the metrics."""

    total: Row
    frames: int
    per_sequence: dict[str, Row]
    class_iou: tuple[float, ...]
    """IoU by class id; NaN for a class that never occurs."""

    def to_json(self) -> str:
        """All figures; NaN becomes null."""
        text = json.dumps(asdict(self))
        return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2)

    def table(self) -> Iterator[str]:
        """Lines for a terminal: a row for each sequence, then all of them."""
        rows = {**self.per_sequence, f"all ({self.frames} frames)": self.total}
        width = max(len(name) for name in rows)
        yield f"{'':<{width}}    STQ     AQ     SQ    VPQ"
        for name, row in rows.items():
            values = "".join(f"{v:7.3f}" for v in (row.stq, row.aq, row.sq, row.vpq))
            yield f"{name:<{width}}{values}"


def evaluate_dataset(dataset: VideoDataset, predictor: Predictor) -> DatasetScores:
    """Score all frames of `dataset`, with a progress bar.

    Raises:
        DatasetError: a frame cannot be read, or a prediction does not fit its frame.
    """
    things = sorted(dataset.things)
    quality = SegmentationTrackingQuality(dataset.class_count, things)
    panoptic = MeanVideoPanopticQuality(dataset.class_count, things)
    frames = 0
    for video in dataset:
        predict = predictor(video)
        for frame in tqdm(video, video.name, total=len(video), leave=False, disable=None):
            maps = frame.semantic, frame.instance, *predict(frame)
            try:
                quality.update(*maps, sequence=video.name)
                panoptic.update(*maps, sequence=video.name)
            except ValueError as error:
                raise DatasetError(f"{video.name}/{frame.name}: {error}") from None
            frames += 1
    return _scores(quality, panoptic, frames)


def _scores(
    quality: SegmentationTrackingQuality, panoptic: MeanVideoPanopticQuality, frames: int
) -> DatasetScores:
    tracking, vpq = quality.compute(), panoptic.compute()
    rows = {}
    for name, score in tracking.per_sequence.items():
        windows = [result.per_sequence[name].vpq for result in vpq.per_window.values()]
        rows[str(name)] = Row(score.stq, score.aq, score.sq, float(np.mean(windows)))
    total = Row(tracking.stq, tracking.aq, tracking.sq, vpq.vpq)
    return DatasetScores(total, frames, rows, tuple(tracking.per_class.tolist()))


def by_model(
    runtime: Runtime, dataset: VideoDataset, tracking: TrackingConfig | None = None
) -> Predictor:
    """Predict with a model, frame after frame, each video anew.

    Raises:
        ModelError: the classes of the model are not those of the data set.
    """
    classes = runtime.info.classes
    found, wanted = (len(classes), set(classes.things)), (dataset.class_count, set(dataset.things))
    if found != wanted:
        raise ModelError(
            f"{runtime.info.name}: {dataset.name} has {wanted[0]} classes with things "
            f"{sorted(wanted[1])}, found {found[0]} with {sorted(found[1])}"
        )

    def start(_: Video) -> Callable[[LabelledFrame], Maps]:
        predictor, count = VideoPredictor(runtime, tracking), 0

        def predict(frame: LabelledFrame) -> Maps:
            nonlocal count
            result = predictor.step(frame.image, round(count * 1e9 / FRAMES_PER_SECOND))
            count += 1
            return result.semantic_map(), result.track_id_map()

        return predict

    return start


def by_files(folder: Path) -> Predictor:
    """Predictions as `write_step` writes them: FOLDER/VIDEO/FRAME.png, R = class, G * 256 + B = id.

    A file that is missing or no such image is a DatasetError when its frame comes.
    """

    def start(video: Video) -> Callable[[LabelledFrame], Maps]:
        def predict(frame: LabelledFrame) -> Maps:
            rgb = read_rgb(folder / video.name / f"{frame.name}.png").astype(np.int64)
            return rgb[..., 0], rgb[..., 1] * 256 + rgb[..., 2]

        return predict

    return start
