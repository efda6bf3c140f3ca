"""ViP-DeepLab: Panoptic-DeepLab with a branch for the next frame, and depth.

Qiao et al., "ViP-DeepLab: Learning Visual Perception with Depth-aware Video Panoptic Segmentation",
CVPR 2021, section 4; constants and widths of google-research/deeplab2. In the order of a frame t:
1. Panoptic-DeepLab segments it: slots are its own centres.
2. A third branch sees the coarsest maps of t - 1 and t. It predicts, for the pixels of t, where
   their instance had its centre in t - 1; so thing pixels are grouped to the slots of t - 1 too.
3. The overlaps of both are what the tracker `stitching` compares.

What differs: the paper runs over overlapping pairs of frames and stitches afterwards; here t - 1 is
remembered, which is the same at every frame but the first. Groups are made of the pixels that have
a thing in t, and only of slots that had a segment in t - 1. As in deeplab2 the atrous pyramids are
no cascades. Depth has stride 4, not 2, and is enlarged with the segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from video_knet_core.model.network import Frames
from video_knet_core.training.targets import FrameTargets

from .baseline import Memory, Segments
from .baseline_config import BaselineConfig
from .centers import (
    Maps,
    cells,
    center_cells,
    nearest_center,
    offset_loss,
    panoptic_losses,
    with_identity,
)
from .decoder import HEAD_CHANNELS, head, instance_decoder, instance_width
from .panoptic_deeplab import PanopticDeepLab

MAX_DEPTH = 88.0
"""Metres; what is farther is learned as this."""
DEPTH_WEIGHT = 0.1
"""Of the loss of depth."""
MIN_DEPTH = 1e-3
"""Metres below which the logarithm is not taken."""


class VipDeepLab(PanopticDeepLab):
    """With embeddings [P,I]: column j of slot i is the intersection over union of its pixels with
    those that are grouped to what was slot j of the last frame; zeros on a first frame."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        *finer, coarsest = self.backbone.channels
        channels, stride = config.channels, config.backbone.output_stride
        self.next_decoder = instance_decoder((*finer, 2 * coarsest), channels, stride)
        self.next_offset_head = head(instance_width(channels), HEAD_CHANNELS, 2)
        self.depth_head = head(channels, max(channels // 4, 8), 1) if config.depth else None

    def describe(self, pyramid: Sequence[Tensor]) -> tuple[Maps, Tensor | None]:
        """The maps of F frames, and their depth [F,h,w] in metres."""
        semantic, features = self.semantic_decoder(pyramid), self.instance_decoder(pyramid)
        heat = self.center_head(features).squeeze(1)
        maps = Maps(self.semantic_head(semantic), heat, self.offset_head(features))
        if self.depth_head is None:
            return maps, None
        return maps, MAX_DEPTH * self.depth_head(semantic).squeeze(1).float().sigmoid()

    def next_offsets(self, pyramid: Sequence[Tensor], previous: Tensor) -> Tensor:
        """[F,2,h,w] rows and columns to where the instance of a cell had its centre in the frame
        before, of which `previous` [F,C,H/s,W/s] is the coarsest map."""
        *finer, coarsest = pyramid
        both = torch.cat((previous.to(coarsest.dtype), coarsest), 1)
        return self.next_offset_head(self.next_decoder((*finer, both)))

    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """See `Baseline.infer`."""
        pyramid = self.frames(image).pyramid
        maps, depth = self.describe(pyramid)
        segments, _, present = self.grouped(maps)
        offsets = self.next_offsets(pyramid, memory["features"])
        centers, was_present = memory["centers"][0].split((2, 1), 1)
        groups = previous_slots(offsets[0].float(), centers, was_present[:, 0] * valid)
        overlaps = overlaps_with(segments.segment_map, groups, self.config.instances)
        if depth is not None:
            size = segments.segment_map.shape
            depth = interpolate(depth[None], size=size, mode="bilinear", align_corners=False)[0, 0]
        x, y = segments.embeddings.unbind(1)
        height, width = maps.heat.shape[-2:]
        places = torch.stack((y * height - 0.5, x * width - 0.5, present.to(y.dtype)), 1)
        new = {"features": pyramid[-1].float(), "centers": places[None]}
        return segments._replace(embeddings=overlaps, depth=depth), new

    def losses(self, frames: Frames, targets: FrameTargets, sides: int) -> dict[str, Tensor]:
        """See `ExternalNetwork.losses`: each frame but the oldest is the next one of another."""
        maps, depth = self.describe(frames.pyramid)
        losses = panoptic_losses(maps, targets)
        if depth is not None:
            losses["depth"] = DEPTH_WEIGHT * depth_loss(depth, targets.depth).mean()
        if sides > 1:
            batch = len(frames.images) // sides
            newer = [maps[:-batch] for maps in frames.pyramid]
            offsets = self.next_offsets(newer, frames.pyramid[-1][batch:])
            newer_targets, older_targets = (
                FrameTargets(*(part[rows] for part in targets))
                for rows in (slice(None, -batch), slice(batch, None))
            )
            losses["next_offset"] = next_offset_loss(offsets.float(), newer_targets, older_targets)
        return losses


def next_offset_loss(offsets: Tensor, targets: FrameTargets, previous: FrameTargets) -> Tensor:
    """Loss of offsets [F,2,h,w] of frames to the centres in the frames before.

    Instances that are not in both count nothing.
    """
    same = (targets.ids[:, :, None] == previous.ids[:, None]) & with_identity(targets)[..., None]
    centers = same.to(offsets.dtype) @ center_cells(previous).to(offsets.dtype)
    return offset_loss(offsets, centers, same.any(2), targets)


def depth_loss(depth: Tensor, goals: Tensor) -> Tensor:
    """[F] scale-invariant logarithmic error plus root of the relative squared error, of depth
    [F,h,w] in metres where it is known (`goals` > 0); 0 if nowhere (section 4.4 of the paper)."""
    known = goals > 0
    goals = goals.clamp(max=MAX_DEPTH)
    count = known.flatten(1).sum(1).clamp(min=1)
    logs = depth.clamp(min=MIN_DEPTH).log() - goals.clamp(min=MIN_DEPTH).log()
    relative = (depth - goals) / goals.clamp(min=MIN_DEPTH)
    logs, relative = (torch.where(known, errors, 0).flatten(1) for errors in (logs, relative))
    invariant = logs.square().sum(1) / count - (logs.sum(1) / count).square()
    # the root of 0 has no gradient
    return invariant + (relative.square().sum(1) / count).clamp(min=1e-12).sqrt()


def previous_slots(offsets: Tensor, centers: Tensor, present: Tensor) -> Tensor:
    """[h,w] int64 to which slot of the last frame the offsets [2,h,w] of each pixel point; -1 if
    there was none.

    Args:
        centers: [I,2] row and column of the slots; present: [I] 0 or 1, the slot had a segment.
    """
    height, width = offsets.shape[1:]
    points = cells(height, width, offsets) + offsets.permute(1, 2, 0)
    return torch.where(present.amax(0) > 0, nearest_center(points, centers, present), -1)


def overlaps_with(segment_map: Tensor, groups: Tensor, instances: int) -> Tensor:
    """[I,I] intersection over union of the pixels of each slot with those of each group.

    Args:
        segment_map: [H,W] 0 = no segment, s + 1 = slot s, of which the first I are things.
        groups: [h,w] group of each pixel, -1 = none; of this map, or a coarser one. Where there is
            no thing there is no group.
    """
    factor = segment_map.shape[0] // groups.shape[0]
    slots = segment_map[factor // 2 :: factor, factor // 2 :: factor].flatten() - 1
    numbers = torch.arange(instances, device=slots.device)[:, None]
    mine = (slots == numbers).float()
    theirs = (groups.flatten() == numbers).float() * mine.amax(0)
    shared = mine @ theirs.T
    union = mine.sum(1, keepdim=True) + theirs.sum(1) - shared
    return shared / union.clamp(min=1)
