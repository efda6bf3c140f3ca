"""Runs a checkpoint with torch: for evaluation and for comparison with the exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.checkpoint import CheckpointError, load_model
from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from ..panoptic import authors_boxes, merge
from ..types import Segments
from .runtime import ModelError, ModelInfo


class TorchRuntime:
    """A `Runtime` of torch. The state of a camera is the kernels of its last frame.

    With `panoptic.merge: reference` the segments carry the boxes that the authors' tracker sees.
    """

    name = "torch"

    def __init__(self, model: VideoKNet, name: str = "torch") -> None:
        config = model.config
        self.model = model.eval()
        self.info = ModelInfo(name, config.classes, config.height, config.width)

    @classmethod
    def open(cls, path: str | Path, threads: int = 2) -> TorchRuntime:
        """Load a checkpoint of ours; ModelError if it is none."""
        torch.set_num_threads(threads)
        try:
            return cls(load_model(path), Path(path).stem)
        except CheckpointError as error:
            raise ModelError(str(error)) from None

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """Segment one frame; see `Runtime.step`."""
        wanted = (self.info.height, self.info.width, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 {wanted}, found {image.dtype} {image.shape}")
        return self.step_pixels(torch.from_numpy(image).permute(2, 0, 1).float(), state)

    @torch.no_grad()
    def step_pixels(
        self, pixels: Tensor, state: PreviousKernels | None
    ) -> tuple[Segments, PreviousKernels]:
        """The same for RGB pixels 0..255 as float32 [3,H,W] of any size."""
        prediction, state = self.model(pixels[None], state)
        config, things = self.model.config, len(self.info.classes.things)
        size = (pixels.shape[1], pixels.shape[2])
        result = merge(
            prediction.class_logits[0], prediction.mask_logits[0], things, config.panoptic, size
        )
        class_ids = np.array(self.info.classes.logit_class_ids)
        slots = len(result.scores)
        boxes = None
        if config.panoptic.merge == "reference":
            semantic = prediction.head.semantic_logits[0]
            boxes = authors_boxes(result.segment_map, semantic, slots, things).numpy()
        embeddings = prediction.embeddings[0]
        stuff = embeddings.new_zeros(slots - len(embeddings), embeddings.shape[1])
        segments = Segments(
            map=result.segment_map.numpy(),
            class_ids=class_ids[result.logit_classes.numpy()],
            scores=result.scores.numpy(),
            areas=result.areas.numpy(),
            embeddings=torch.cat((embeddings, stuff)).numpy(),
            boxes=boxes,
        )
        return segments, state

    def close(self) -> None:
        """Free the network; the runtime cannot be used after."""
        del self.model
