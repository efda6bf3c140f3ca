"""The loop over a data set: each frame is predicted once, and handed to all that want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from ..data.video import DatasetError, LabelledFrame, Video, VideoDataset
from ..progress import progress_bar
from .scores import Scores

P = TypeVar("P")
"""The prediction of one frame: maps or masks, as the data set wants them."""
P_contra = TypeVar("P_contra", contravariant=True)

Predictor = Callable[[Video], Callable[[LabelledFrame], P]]
"""Starts a video; what it returns is called with its frames in order."""


class Receiver(Protocol[P_contra]):
    """Takes the predictions, frame after frame and video after video."""

    def update(self, video: Video, frame: LabelledFrame, prediction: P_contra) -> None:
        """Take the next frame; ValueError if the prediction does not fit it."""
        ...

    def end_video(self, video: Video) -> None:
        """The last frame of `video` has come; raises as `update`."""
        ...


class Evaluator(Receiver[P_contra], Protocol[P_contra]):
    """Compares predictions with labels."""

    def compute(self) -> Scores:
        """Scores of all videos that have ended."""
        ...


class Saver(Receiver[P_contra], Protocol[P_contra]):
    """Writes predictions as the data set wants them handed in."""

    def close(self) -> Path:
        """Finish the files; returns where they are."""
        ...


def run(dataset: VideoDataset, predictor: Predictor[P], receivers: Sequence[Receiver[P]]) -> None:
    """Predict all frames of `dataset`, with a progress bar.

    Raises:
        DatasetError: a frame cannot be read, or a prediction does not fit its frame.
        OSError: a prediction cannot be written.
    """
    for video in dataset:
        predict = predictor(video)
        for frame in progress_bar(video, video.name, total=len(video), leave=False):
            prediction = predict(frame)
            with _named(f"{video.name}/{frame.name}"):
                for receiver in receivers:
                    receiver.update(video, frame, prediction)
        with _named(video.name):
            for receiver in receivers:
                receiver.end_video(video)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Say in errors of predictions which frame they are of; those of the data set do it."""
    try:
        yield
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from None
