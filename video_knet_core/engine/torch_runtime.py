"""Runs a checkpoint with torch: for evaluation and for comparison with the exported graph.

It runs where the network is: on a GPU if that is on one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config_io import ConfigError
from ..model.checkpoint import AnyNetwork, CheckpointError, load_network, sha256
from ..model.kernels import PreviousKernels
from ..model.merge import MERGES, authors_boxes
from ..model.network import ExternalNetwork
from ..model.video_knet import Prediction
from ..tasks import TASKS
from ..types import Detections, check_image
from .base import BackendError, ModelError, ModelInfo, ProgressCallback, Size, State


def segment_frame(
    model: AnyNetwork, pixels: Tensor, previous: PreviousKernels | None
) -> dict[str, Tensor]:
    """One step of a network: pixels [3,H,W] RGB 0..255 in its float type -> segments.

    The names are those of the fields of `types.Detections`, and of the outputs of an exported
    model. `boxes` are there with `panoptic.merge: reference`.
    """
    if isinstance(model, ExternalNetwork):
        return model.segment_frame(pixels, previous)
    prediction, state = model(pixels[None], previous)
    config = model.config
    result = MERGES[config.task](prediction, config, (pixels.shape[1], pixels.shape[2]))
    ids = torch.tensor(config.classes.logit_class_ids, device=pixels.device)
    outputs = {
        "segment_map": result.segment_map,
        "class_ids": ids.index_select(0, result.logit_classes),
        "scores": result.scores,
        "areas": result.areas,
        "kernels": state.kernels.squeeze(0),
    }
    if TASKS[config.task].has_things:
        outputs["embeddings"] = _of_slots(prediction, config.slots)
    if result.masks is not None:
        outputs["masks"] = result.masks
    if config.panoptic.merge == "reference":
        semantic = prediction.head.semantic_logits.squeeze(0)
        things = len(config.classes.things)
        outputs["boxes"] = authors_boxes(result.segment_map, semantic, config.slots, things)
    return outputs


def _of_slots(prediction: Prediction, slots: int) -> Tensor:
    """[S,E] embeddings of all slots: those of things, then zeros."""
    embeddings = prediction.embeddings.squeeze(0)
    if len(embeddings) == slots:
        return embeddings
    stuff = embeddings.new_zeros(slots - len(embeddings), embeddings.shape[1])
    return torch.cat((embeddings, stuff))


class TorchRuntime:
    """A `Runtime` of torch.

    With `panoptic.merge: reference` the detections have the boxes of the authors' tracker.
    """

    name = "torch"

    def __init__(self, model: AnyNetwork, name: str = "torch") -> None:
        config = model.config
        self.model = model.eval()
        size = config.height, config.width
        self.info = ModelInfo(name, config.classes, *size, config.task, sizes=config.sizes)

    @classmethod
    def open(cls, path: str | Path, threads: int = 2) -> TorchRuntime:
        """Load a checkpoint of ours; ModelError if it is none, BackendError if a package lacks."""
        torch.set_num_threads(threads)
        try:
            runtime = cls(load_network(path), Path(path).stem)
        except CheckpointError as error:
            raise ModelError(str(error)) from None
        except ConfigError as error:  # a package that the backbone needs is missing
            raise BackendError(str(error)) from None
        runtime.info = replace(runtime.info, checkpoint_sha256=sha256(path))
        return runtime

    def step(self, image: NDArray[np.uint8], state: State | None) -> tuple[Detections, State]:
        """Segment one frame; see `Runtime.step`."""
        check_image(image, *self.info.sizes)
        if not hasattr(self, "model"):
            raise RuntimeError("the runtime is closed")
        return self.step_pixels(torch.from_numpy(image).permute(2, 0, 1).float(), state)

    @torch.no_grad()
    def step_pixels(self, pixels: Tensor, state: State | None) -> tuple[Detections, State]:
        """The same for RGB pixels 0..255 as float32 [3,H,W] of any size."""
        mean = self.model.mean
        previous = None
        if state is not None:
            valid = torch.ones(1, dtype=torch.bool, device=mean.device)
            previous = PreviousKernels(torch.from_numpy(state)[None].to(mean), valid)
        outputs = segment_frame(self.model, pixels.to(mean.device), previous)
        results = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
        return Detections.from_outputs(results, self.info.name), results["kernels"]

    def close(self) -> None:
        """Free the network; the runtime cannot be used after. A second time does nothing."""
        if hasattr(self, "model"):
            del self.model


def open_model(
    backend: str,
    path: Path,
    threads: int,
    progress: ProgressCallback | None,
    size: Size | None,
) -> TorchRuntime:
    """See `selector.Backend`; without `size` it runs all of them."""
    runtime = TorchRuntime.open(path, threads)
    if size is not None:
        if size not in runtime.info.sizes:
            known = list(runtime.info.sizes)
            raise ModelError(f"{path}: size: expected one of {known}, got {size}")
        height, width = size
        runtime.info = replace(runtime.info, height=height, width=width, sizes=(size,))
    return runtime
