"""One step of a network on one camera frame: what torch runs and what is exported."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from ..panoptic import authors_boxes, merge


class FrameOutput(NamedTuple):
    """The segments of one image of H x W pixels, S slots; see `types.Segments`."""

    segment_map: Tensor
    """[h,w] uint8"""
    class_ids: Tensor
    """[S] int64"""
    scores: Tensor
    """[S]"""
    areas: Tensor
    """[S] int64"""
    embeddings: Tensor
    """[S,E], zeros for stuff"""
    kernels: Tensor
    """[S,C] the state for the next frame"""


def segment_frame(
    model: VideoKNet, pixels: Tensor, previous: PreviousKernels | None
) -> tuple[FrameOutput, Tensor | None]:
    """Pixels [3,H,W] RGB 0..255 in the network's float type -> segments, and boxes if wanted.

    With `panoptic.merge: reference` the second result is the boxes [S,4] of the authors' tracker.
    """
    prediction, state = model(pixels[None], previous)
    config = model.config
    things = len(config.classes.things)
    size = (pixels.shape[1], pixels.shape[2])
    # squeezing is free, an index would copy in the exported graph
    masks = prediction.mask_logits.squeeze(0).to(pixels.dtype)
    logits = prediction.class_logits.squeeze(0), masks
    result = merge(*logits, things, config.panoptic, size)
    embeddings = prediction.embeddings.squeeze(0)
    stuff = embeddings.new_zeros(len(result.scores) - len(embeddings), embeddings.shape[1])
    ids = torch.tensor(config.classes.logit_class_ids, device=pixels.device)
    boxes = None
    if config.panoptic.merge == "reference":
        semantic = prediction.head.semantic_logits.squeeze(0)
        boxes = authors_boxes(result.segment_map, semantic, len(result.scores), things)
    output = FrameOutput(
        result.segment_map,
        ids.index_select(0, result.logit_classes),
        result.scores,
        result.areas,
        torch.cat((embeddings, stuff)),
        state.kernels.squeeze(0),
    )
    return output, boxes
