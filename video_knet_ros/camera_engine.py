"""What one camera has in the thread of its engine: the model, and the tracks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_knet_core.engine.base import ProgressCallback, Runtime
from video_knet_core.engine.selector import default_model_path
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import TrackerSettings

from . import process

ENGINE_OPTIONS = ("backend", "threads")
"""Parameters that go to `open_runtime` under their own names."""

_log = logging.getLogger(__name__)


@dataclass
class CameraEngine:
    """For the thread of its executor alone."""

    runtime: Runtime
    predictor: VideoPredictor

    @classmethod
    def open(
        cls,
        open_runtime: Callable[..., Runtime],
        settings: Mapping[str, Any],
        tracking: TrackerSettings,
        epoch: int,
        progress: ProgressCallback,
    ) -> CameraEngine:
        """Open the model; an exception after that closes it.

        Args:
            open_runtime: makes the engine.
            settings: the parameters `model` and `ENGINE_OPTIONS`.
            tracking: settings of the tracker.
            epoch: of the first frame.
            progress: called while a better engine is built.
        """
        model = settings["model"]
        path = Path(process.expand(model)) if model else default_model_path()
        options = {name: settings[name] for name in ENGINE_OPTIONS}
        runtime = open_runtime(path, **options, background=True, progress=progress)
        try:
            return cls(runtime, VideoPredictor(runtime, tracking, epoch))
        except BaseException:
            try:
                runtime.close()
            except Exception:  # of any backend; why there is no predictor is more to the point
                _log.exception("closing %s failed", runtime.name)
            raise

    def reset(self) -> int:
        """Drop the tracks; returns the new epoch."""
        self.predictor.reset()
        return self.predictor.epoch

    def set_tracking(self, config: TrackerSettings) -> None:
        """Change the settings of the tracker."""
        self.predictor.tracking = config

    def close(self) -> None:
        """Free the engine."""
        self.runtime.close()
