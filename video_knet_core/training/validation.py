"""How good the model is so far: STQ of a few clips, run as they are on a robot, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import ConfigError, ModelConfig
from ..data.synthetic_street import SyntheticStreet
from ..data.video import DatasetError
from ..engine.torch_runtime import TorchRuntime
from ..evaluate.by_model import FRAMES_PER_SECOND
from ..evaluate.street import STREET_CLASSES
from ..metrics.stq import QualitySums, SegmentationTrackingQuality
from ..model.video_knet import VideoKNet
from ..predictor import VideoPredictor
from ..types import NO_CLASS
from ..visualize import overlay
from . import processes
from .settings import ValidationConfig, data_path, open_labelled

FIRST_SEED = 2_000_000
"""First street of a validation; `eval` has those from 1,000,000, training those from 0."""


class Frame(Protocol):
    """A labelled frame of a data set or of the synthetic street."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def semantic(self) -> NDArray[np.uint8]: ...
    @property
    def instance(self) -> NDArray[np.integer]: ...


@dataclass(frozen=True)
class Quality:
    """Scores 0..1 of all clips, and what this process saw in the last frame of each of its own."""

    stq: float
    aq: float
    sq: float
    pictures: tuple[NDArray[np.uint8], ...]
    """[H,W,3] RGB"""


class Validation:
    """The clips of `config`, shared by the processes; none if it is never due.

    Raises:
        ConfigError: the data root is missing, or the classes are not those of the model.
        DatasetError: the data set is missing or faulty, or a video has no frames.
    """

    def __init__(
        self, config: ValidationConfig, model: ModelConfig, data_root: Path | None
    ) -> None:
        self._frames = config.frames
        self._clips = _open_clips(config, model, data_root) if config.every else []

    def __call__(self, model: VideoKNet) -> Quality:
        """Run `model`, which is left in eval mode, on all clips."""
        processes.agree(model)
        runtime = TorchRuntime(model)
        classes = runtime.info.classes
        metric = SegmentationTrackingQuality(len(classes), classes.things, ignore=NO_CLASS)
        pictures = []
        for number in range(processes.number(), len(self._clips), processes.count()):
            predictor = VideoPredictor(runtime)
            for t, truth in enumerate(islice(iter(self._clips[number]), self._frames)):
                frame = predictor.step(truth.image, round(t * 1e9 / FRAMES_PER_SECOND))
                maps = frame.semantic_map(), frame.track_id_map()
                metric.update(truth.semantic, truth.instance, *maps, number)
            pictures.append(overlay(truth.image, frame, classes))
        device = next(model.parameters()).device
        quality = _of_all_processes(metric.sums(), device).quality()
        return Quality(quality.stq, quality.aq, quality.sq, tuple(pictures))


def _open_clips(
    config: ValidationConfig, model: ModelConfig, data_root: Path | None
) -> Sequence[Iterable[Frame]]:
    if config.dataset == "synthetic":
        names = [info.name for info in model.classes]
        if names != STREET_CLASSES:
            raise ConfigError(f"validation: the synthetic street has {STREET_CLASSES}, not {names}")
        return [SyntheticStreet(FIRST_SEED + n) for n in range(config.clips)]
    root = data_path(data_root, f"validation: {config.dataset}") / config.path
    dataset = open_labelled(config.dataset, root, config.split, model, "validation")
    videos = [dataset[n] for n in range(min(config.clips, len(dataset)))]
    for video in videos:
        if not len(video):
            raise DatasetError(f"validation: the video {video.name!r} has no frames")
    return videos


def _of_all_processes(sums: QualitySums, device: torch.device) -> QualitySums:
    """The sums over all clips; counts of pixels are exact in float64."""
    flat = np.concatenate([[sums.association, sums.tubes], sums.confusion.ravel()])
    values = processes.total(torch.from_numpy(flat).to(device)).cpu().numpy()
    confusion = values[2:].astype(np.int64).reshape(sums.confusion.shape)
    return QualitySums(float(values[0]), int(values[1]), confusion)
