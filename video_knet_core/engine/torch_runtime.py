"""Runs a checkpoint with torch: for evaluation and for comparison with the exported graph.

It runs where the network is: on a GPU if that is on one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config_io import ConfigError
from ..model.checkpoint import CheckpointError, load_model, sha256
from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from ..types import Detections
from .base import BackendError, ModelError, ModelInfo, ProgressCallback
from .torch_step import segment_frame


class TorchRuntime:
    """A `Runtime` of torch. The state of a camera is the kernels of its last frame.

    With `panoptic.merge: reference` the detections have the boxes of the authors' tracker.
    """

    name = "torch"

    def __init__(self, model: VideoKNet, name: str = "torch") -> None:
        config = model.config
        self.model = model.eval()
        self.info = ModelInfo(name, config.classes, config.height, config.width, config.task)

    @classmethod
    def open(cls, path: str | Path, threads: int = 2) -> TorchRuntime:
        """Load a checkpoint of ours; ModelError if it is none, BackendError if a package lacks."""
        torch.set_num_threads(threads)
        try:
            runtime = cls(load_model(path), Path(path).stem)
        except CheckpointError as error:
            raise ModelError(str(error)) from None
        except ConfigError as error:  # a package that the backbone needs is missing
            raise BackendError(str(error)) from None
        runtime.info = replace(runtime.info, checkpoint_sha256=sha256(path))
        return runtime

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        """Segment one frame; see `Runtime.step`."""
        self.info.check_image(image)
        if not hasattr(self, "model"):
            raise RuntimeError("the runtime is closed")
        if isinstance(state, np.ndarray):
            state = self._state_of(torch.from_numpy(state))
        return self.step_pixels(torch.from_numpy(image).permute(2, 0, 1).float(), state)

    @torch.no_grad()
    def step_pixels(
        self, pixels: Tensor, state: PreviousKernels | None
    ) -> tuple[Detections, PreviousKernels]:
        """The same for RGB pixels 0..255 as float32 [3,H,W] of any size."""
        output, boxes = segment_frame(self.model, pixels.to(self.model.mean.device), state)
        results = {k: v.cpu().numpy() for k, v in output._asdict().items() if v is not None}
        detections = self.info.detections(results)
        if boxes is not None:
            detections = replace(detections, boxes=boxes.cpu().numpy())
        return detections, self._state_of(output.kernels)

    def portable_state(self, state: PreviousKernels) -> NDArray[np.float32]:
        """Kernels [N, C] of a state of this runtime."""
        return state.kernels[0].float().cpu().numpy()

    def _state_of(self, kernels: Tensor) -> PreviousKernels:
        """The state that holds kernels [N, C]."""
        mean = self.model.mean
        valid = torch.ones(1, dtype=torch.bool, device=mean.device)
        return PreviousKernels(kernels[None].to(mean), valid)

    def close(self) -> None:
        """Free the network; the runtime cannot be used after. A second time does nothing."""
        if hasattr(self, "model"):
            del self.model


def open_model(
    backend: str, path: Path, threads: int, progress: ProgressCallback | None
) -> TorchRuntime:
    """See `selector.Backend`."""
    return TorchRuntime.open(path, threads)
