"""How good the model is so far, on a few clips, run as it is on a robot, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..config import NetworkConfig
from ..config_io import expect
from ..data.camvid import street_ids
from ..data.video import DatasetError
from ..engine.torch_runtime import TorchRuntime
from ..evaluate.clips import CLIP_EVALUATORS
from ..evaluate.dataset_evaluation import FRAMES_PER_SECOND
from ..evaluate.instances import TrueFrame
from ..model.checkpoint import AnyNetwork
from ..output_files import expanded
from ..predictor import VideoPredictor
from ..tasks import TASKS
from ..visualize import overlay
from . import processes
from .sources import data_path, open_clips, open_labelled
from .train_config import HELD_OUT, DataConfig, ValidationConfig

_FIRST_SEED = 2_000_000
"""First street of a validation; `eval` has those from 1,000,000, training those from 0."""


@dataclass(frozen=True)
class Quality:
    """Scores of all clips, and what this process saw in the last frame of each of its own."""

    scores: dict[str, float]
    """0..1 by name, the one that counts first; NaN where nothing could be measured."""
    pictures: tuple[NDArray[np.uint8], ...]
    """[H,W,3] RGB"""

    @property
    def measured(self) -> dict[str, float | None]:
        """The scores with None in place of NaN."""
        return {name: None if math.isnan(v) else v for name, v in self.scores.items()}

    @property
    def decisive(self) -> tuple[str, float] | tuple[None, None]:
        """Name and value of the first score that could be measured; None twice if none could.

        Which scores can be measured depends on the labels alone, not on the model.
        """
        return next(((n, v) for n, v in self.scores.items() if not math.isnan(v)), (None, None))


class Validation:
    """The clips of `config`, shared by the processes; none if it is never due.

    Args:
        data: what is trained on, for clips that are held out of it.

    Raises:
        ConfigError: the data root is missing, the data has not the classes of the model, or nothing
            is held out.
        DatasetError: the data set is missing or faulty, or a video has no frames.
    """

    def __init__(
        self,
        config: ValidationConfig,
        model: NetworkConfig,
        data_root: Path | None,
        data: DataConfig | None = None,
    ) -> None:
        self._frames, self._task = config.frames, TASKS[model.task]
        self._clips = _open_clips(config, model, data_root, data) if config.every else []

    def __call__(self, model: AnyNetwork) -> Quality:
        """Run `model`, which is left in eval mode, on all clips."""
        processes.agree(model)
        runtime = TorchRuntime(model)
        classes = runtime.info.classes
        evaluator, pictures = CLIP_EVALUATORS[self._task.name](classes), []
        for number in range(processes.number(), len(self._clips), processes.count()):
            predictor = VideoPredictor(runtime)
            for t, truth in enumerate(islice(iter(self._clips[number]), self._frames)):
                frame = predictor.step(truth.image, round(t * 1e9 / FRAMES_PER_SECOND))
                evaluator.update(truth, frame, number)
            pictures.append(overlay(truth.image, frame, classes))
        first, *others = processes.gathered(evaluator)
        for other in others:
            first.merge(other)
        scores = first.scores()
        return Quality({name: scores[name] for name in self._task.metrics}, tuple(pictures))


def _open_clips(
    config: ValidationConfig, model: NetworkConfig, data_root: Path | None, data: DataConfig | None
) -> Sequence[Iterable[TrueFrame]]:
    if config.dataset == "synthetic":
        ids = street_ids(model.classes, "validation")
        return [_Street(_FIRST_SEED + n, ids) for n in range(config.clips)]
    root = data_path(data_root, f"validation: {config.dataset}")
    if config.dataset == HELD_OUT:
        clips = data.clips if data else ()
        parts = [open_clips(clip, model, root)[1] for clip in clips if clip.hold_out]
        videos = [video for part in parts if part is not None for video in part]
        expect(bool(videos), "validation: dataset", "data.clips with hold_out for it", HELD_OUT)
    else:
        path = root / expanded(config.path)
        dataset = open_labelled(config.dataset, path, config.split, model, "validation")
        if config.exclude:
            dataset = dataset.without(config.exclude)
        videos = list(dataset.single_images() if config.pseudo_video else dataset)
    videos = videos[: config.clips]
    for video in videos:
        if not len(video):
            raise DatasetError(f"validation: the video {video.name!r} has no frames")
    return videos


class _Street:
    """A synthetic street without end, with the class ids of the model."""

    def __init__(self, seed: int, ids: NDArray[np.uint8]) -> None:
        self._street, self._ids = SyntheticStreet(seed), ids

    def __iter__(self) -> Iterator[TrueFrame]:
        return (frame.relabelled(self._ids) for frame in self._street)
