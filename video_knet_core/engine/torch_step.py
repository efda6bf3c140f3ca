"""One step of a network on one camera frame: what torch runs and what is exported."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..model.kernels import PreviousKernels
from ..model.merge import MERGES, authors_boxes
from ..model.video_knet import Prediction, VideoKNet
from ..tasks import TASKS


class FrameOutput(NamedTuple):
    """The segments of one image of H x W pixels, S slots; see `types.Detections`.

    The names are those of the outputs of an exported model (`model_file.OUTPUTS`).
    """

    segment_map: Tensor
    """[h,w] uint8"""
    class_ids: Tensor
    """[S] int64"""
    scores: Tensor
    """[S]"""
    areas: Tensor
    """[S] int64"""
    kernels: Tensor
    """[S,C] the state for the next frame"""
    embeddings: Tensor | None
    """[S,E], zeros for stuff; None in task semantic"""
    masks: Tensor | None
    """[S,h,w] uint8 of 0 and 1 in task instance"""


def segment_frame(
    model: VideoKNet, pixels: Tensor, previous: PreviousKernels | None
) -> tuple[FrameOutput, Tensor | None]:
    """Pixels [3,H,W] RGB 0..255 in the network's float type -> segments, and boxes or None.

    With `panoptic.merge: reference` the second result is the boxes [S,4] of the authors' tracker.
    """
    prediction, state = model(pixels[None], previous)
    config = model.config
    result = MERGES[config.task](prediction, config, (pixels.shape[1], pixels.shape[2]))
    ids = torch.tensor(config.classes.logit_class_ids, device=pixels.device)
    output = FrameOutput(
        segment_map=result.segment_map,
        class_ids=ids.index_select(0, result.logit_classes),
        scores=result.scores,
        areas=result.areas,
        kernels=state.kernels.squeeze(0),
        embeddings=_of_slots(prediction, config.slots) if TASKS[config.task].has_things else None,
        masks=result.masks,
    )
    if config.panoptic.merge != "reference":
        return output, None
    semantic = prediction.head.semantic_logits.squeeze(0)
    things = len(config.classes.things)
    return output, authors_boxes(result.segment_map, semantic, config.slots, things)


def _of_slots(prediction: Prediction, slots: int) -> Tensor:
    """[S,E] embeddings of all slots: those of things, then zeros."""
    embeddings = prediction.embeddings.squeeze(0)
    if len(embeddings) == slots:
        return embeddings
    stuff = embeddings.new_zeros(slots - len(embeddings), embeddings.shape[1])
    return torch.cat((embeddings, stuff))
