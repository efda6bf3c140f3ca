"""STQ and VPQ of panoptic maps, as the benchmarks count them and as the authors' scripts do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..data.datasets import DATASETS
from ..data.predictions import PanopticMaps
from ..data.video import LabelledFrame, Video, VideoDataset
from ..metrics.overlaps import Classes, Overlaps, count_overlaps
from ..metrics.stq import SegmentationTrackingQuality, SequenceQuality
from ..metrics.vpq import Absent, Crowd, MeanPanopticQuality, MeanVideoPanopticQuality
from ..types import PanopticFrame
from .scores import Scores


@dataclass(frozen=True)
class Convention:
    """What is left open in STQ and VPQ; see `metrics/stq.py` and `metrics/vpq.py`."""

    stq_things: tuple[int, ...]
    """Classes with tubes in AQ. VPQ has the things of the data set."""
    windows: tuple[int, ...]
    """Lengths in frames whose VPQ is averaged."""
    void: Literal["count", "drop"] = "count"
    absent: Absent = "skip"
    crowd: Crowd = "ignore"


def benchmark(dataset: VideoDataset) -> Convention:
    """As the data set itself is scored; custom data as KITTI-STEP."""
    rules = DATASETS[dataset.name].rules
    return Convention(tuple(sorted(dataset.things)), rules.windows, crowd=rules.crowd)


def authors(dataset: VideoDataset) -> Convention:
    """As the scripts of Video K-Net's authors do (`tools/eval_d*.py`).

    They drop void ground truth in STQ and track all things of Cityscapes there; in VPQ a class that
    never occurs counts 0 and a crowd is a segment; on VIPSeg their windows are other ones.
    """
    rules = DATASETS[dataset.name].rules
    return Convention(
        stq_things=rules.authors_things or tuple(sorted(dataset.things)),
        windows=rules.authors_windows,
        void="drop",
        absent="zero",
        crowd="segment",
    )


def panoptic_maps(frame: PanopticFrame) -> PanopticMaps:
    """The maps of one frame of the predictor."""
    return frame.semantic_map(), frame.track_id_map()


class PanopticEvaluator:
    """Both conventions from one count of the pixels."""

    def __init__(self, dataset: VideoDataset) -> None:
        rules = benchmark(dataset), authors(dataset)
        things = sorted({*dataset.things, *(c for rule in rules for c in rule.stq_things)})
        self._classes = Classes(dataset.class_count, tuple(things))
        self._benchmark, self._authors = (_Metrics(dataset, rule) for rule in rules)
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: PanopticMaps) -> None:
        """Add a frame; ValueError if sizes differ or a class is unknown."""
        maps = frame.semantic, frame.instance, *prediction
        for overlaps in count_overlaps(*maps, self._classes):
            self._benchmark.add(overlaps, video.name)
            self._authors.add(overlaps, video.name)
        self._frames += 1

    def end_video(self, video: Video) -> None:
        """Nothing to do."""

    def compute(self) -> Scores:
        """STQ, AQ, SQ and VPQ of each sequence and of all."""
        official, theirs = self._benchmark.figures(), self._authors.figures()
        rows = {
            name: [*row.values(), *theirs["per_sequence"][name].values()]
            for name, row in official["per_sequence"].items()
        }
        total = [*official["total"].values(), *theirs["total"].values()]
        columns = ("STQ", "AQ", "SQ", "VPQ")
        return Scores(
            columns={"benchmark": columns, "authors' scripts": columns},
            rows={**rows, f"all ({self._frames} frames)": total},
            figures={"frames": self._frames, **official, "authors": theirs},
        )


class _Metrics:
    """STQ and VPQ by one convention."""

    def __init__(self, dataset: VideoDataset, rule: Convention) -> None:
        number, things = dataset.class_count, sorted(dataset.things)
        self.rule = rule
        self.stq = SegmentationTrackingQuality(number, rule.stq_things, void=rule.void)
        self.vpq = MeanVideoPanopticQuality(
            number, things, rule.windows, absent=rule.absent, crowd=rule.crowd
        )

    def add(self, overlaps: Overlaps, sequence: str) -> None:
        """Add a frame; `overlaps` may separate more things than either metric does."""
        self.stq.add(overlaps, sequence)
        self.vpq.add(overlaps.of_things(self.vpq.classes), sequence)

    def figures(self) -> dict[str, Any]:
        """Everything, the table's four in the same order in each row."""
        stq, vpq = self.stq.compute(), self.vpq.compute()
        rows = {
            str(name): _row(row, _mean_of(vpq, str(name))) for name, row in stq.per_sequence.items()
        }
        return {
            "total": _row(stq, vpq.vpq),
            "per_sequence": rows,
            "class_iou": stq.per_class.tolist(),
            "vpq": {"all": vpq.vpq, "things": vpq.things, "stuff": vpq.stuff},
            "vpq_of_windows": _by_window(vpq),
            "convention": asdict(self.rule),
        }


def _row(quality: SequenceQuality, vpq: float) -> dict[str, float]:
    """The table's four columns; NaN for what the labels do not allow to measure."""
    return dict(zip(("stq", "aq", "sq", "vpq"), (*quality.measured, vpq), strict=True))


def _mean_of(vpq: MeanPanopticQuality, sequence: str) -> float:
    """VPQ of one sequence by itself; NaN if it is shorter than a window."""
    windows = [result.per_sequence[sequence].vpq for result in vpq.per_window.values()]
    return float(np.mean(windows))


def _by_window(vpq: MeanPanopticQuality) -> dict[str, dict[str, Any]]:
    return {
        str(window): {
            "all": result.vpq,
            "things": result.things,
            "stuff": result.stuff,
            "classes": result.per_class.tolist(),
        }
        for window, result in vpq.per_window.items()
    }
