"""mIoU and mVC of class maps, as VSPW is scored."""

from __future__ import annotations

from ..data.predictions import ClassMap
from ..data.video import LabelledFrame, Video, VideoDataset
from ..metrics.vss import MeanIoU, SemanticQuality, VideoSemanticConsistency, vspw_labels
from ..types import ClassTable, PanopticFrame
from .instances import TrueFrame, Void
from .scores import Evaluator, Scores

_UNCLAIMED = 0
"""Class of pixels that no segment has, as in the authors' code: every pixel must have one."""


def class_map(frame: PanopticFrame) -> ClassMap:
    """The class map of one frame of the predictor."""
    return frame.semantic_map(_UNCLAIMED)


class SemanticClips:
    """mIoU of the classes that occur in clips; a `ClipEvaluator`."""

    def __init__(self, classes: ClassTable) -> None:
        self._metric = MeanIoU(len(classes))

    def update(self, truth: TrueFrame, frame: PanopticFrame, clip: int, void: Void = None) -> None:
        """See `ClipEvaluator`."""
        self._metric.update(truth.semantic, frame.semantic_map())

    def merge(self, other: SemanticClips) -> None:
        """See `ClipEvaluator`."""
        self._metric.confusion += other._metric.confusion

    def scores(self) -> dict[str, float]:
        """The mIoU."""
        return {"miou": self._metric.compute()}


class SemanticEvaluator(Evaluator[ClassMap]):
    """mIoU, mVC8 and mVC16 as released, and the mVC of right pixels.

    From the masks as VSPW stores them, if a data set has those (`Labels.raw`); else every pixel
    without a class is void.
    """

    def __init__(self, dataset: VideoDataset) -> None:
        self._quality = VideoSemanticConsistency(dataset.class_count)
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: ClassMap) -> None:
        """Add a frame; ValueError if sizes differ or a class is unknown."""
        labels = frame.semantic if frame.raw is None else vspw_labels(frame.raw)
        self._quality.update(labels, prediction, video.name)
        self._frames += 1

    def end_video(self, video: Video) -> None:
        """Free what windows need."""
        self._quality.close(video.name)

    def compute(self) -> Scores:
        """Rows of each video and of all; mVC is the mean over the windows of all videos."""
        quality = self._quality.compute()
        per_sequence = {str(name): _row(row) for name, row in quality.per_sequence.items()}
        windows = [f"mVC{window}" for window in quality.mvc]
        rows = {**per_sequence, f"all ({self._frames} frames)": _row(quality)}
        return Scores(
            columns={"as released": ["mIoU", *windows], "right pixels": windows},
            rows={name: list(row.values()) for name, row in rows.items()},
            figures={
                "frames": self._frames,
                "total": _row(quality),
                "per_sequence": per_sequence,
                "class_iou": quality.per_class.tolist(),
            },
        )


def _row(quality: SemanticQuality) -> dict[str, float]:
    """miou, mvc8, mvc16, correct_mvc8, correct_mvc16."""
    return {
        "miou": quality.miou,
        **{f"mvc{window}": value for window, value in quality.mvc.items()},
        **{f"correct_mvc{window}": value for window, value in quality.correct_mvc.items()},
    }
