"""Motion-DeepLab: Panoptic-DeepLab that also sees the frame before, and where things moved from.

Weber et al., "STEP: Segmenting and Tracking Every Pixel", NeurIPS 2021 (Datasets and Benchmarks),
section 4; constants of google-research/deeplab2. As in CenterTrack, the input has the previous
image and the heat of the previous centres. One more head leads each thing pixel to the previous
centre of its instance; the tracker `motion_offsets` continues tracks by it.

What differs: on first frames the further channels are left out, where deeplab2 gives the image
twice. In training some previous centres are missing, as in CenterTrack; deeplab2 has only the
displaced and the false ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from video_knet_core.config_io import ConfigError
from video_knet_core.model.network import Frames
from video_knet_core.training.targets import FrameTargets

from .baseline import Memory, Segments
from .baseline_config import BaselineConfig
from .centers import (
    center_cells,
    fractions,
    offset_loss,
    panoptic_losses,
    render_heat,
    with_identity,
)
from .decoder import HEAD_CHANNELS, head, instance_width
from .panoptic_deeplab import PanopticDeepLab

SHIFT = 0.05
"""Standard deviation of the noise on previous centres in training, relative to height and width of
the instance."""
FALSE_RATE = 0.2
"""Probability that a previous centre gets a false one beside it; as far away as `SHIFT` says."""
MISS_RATE = 0.4
"""Probability that a previous centre is missing (CenterTrack: Zhou et al., ECCV 2020;
its program has 0.4)."""


class Previous(NamedTuple):
    """What F frames see of those before them."""

    images: Tensor
    """[F,3,H,W] RGB 0..255."""
    heat: Tensor
    """[F,h,w] of the centres, at stride 4."""
    valid: Tensor
    """[F] bool, there was such a frame; if not, the rest does not count."""


class MotionDeepLab(PanopticDeepLab):
    """Embeddings are x, y of the middle of each segment and dx, dy from it to its previous centre,
    as fractions of width and height."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        stem = first_convolution(self.backbone)
        self.previous_stem = nn.Conv2d(
            4, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False
        )
        nn.init.zeros_(self.previous_stem.weight)
        self.motion_head = head(instance_width(config.channels), HEAD_CHANNELS, 2)

    def pyramid(self, images: Tensor, previous: Previous) -> tuple[Tensor, ...]:
        """The backbone on 7 channels: [F,3,H,W] RGB 0..255 and what was before.

        A convolution is linear. So that of the 4 further channels is added to the output of the
        backbone's first one, whose weights remain those of ImageNet.
        """
        before = self.normalized(previous.images)
        heat = interpolate(
            previous.heat[:, None].to(before.dtype),
            size=before.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        seen = torch.cat((before, heat), 1) * previous.valid[:, None, None, None].to(before.dtype)
        more = self.previous_stem(seen)
        hook = first_convolution(self.backbone).register_forward_hook(
            lambda _module, _inputs, output: output + more
        )
        try:
            return self.frames(images).pyramid
        finally:
            hook.remove()

    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """See `Baseline.infer`; the memory is the image, and the heat of the segments' middles."""
        previous = Previous(memory["image"], memory["heat"][:, 0], valid)
        maps, features = self.predict(self.pyramid(image, previous))
        grouping = self.grouped(maps)
        height, width = maps.heat.shape[-2:]
        heat = render_heat(grouping.middles, grouping.present, height, width)
        motion = values_at(self.motion_head(features)[0].float(), grouping.middles)
        embeddings = torch.cat(
            (
                fractions(grouping.middles, height, width),
                motion[:, 1:] / width,
                motion[:, :1] / height,
            ),
            1,
        )
        segments = grouping.segments._replace(embeddings=embeddings)
        return segments, {"image": image, "heat": heat[None, None]}

    def losses(self, frames: Frames, targets: FrameTargets, sides: int) -> dict[str, Tensor]:
        """See `ExternalNetwork.losses`.

        Each frame sees the next older one of its clip. The oldest are first frames of a video;
        their maps of the backbone are those given.
        """
        count = len(frames.images) // sides
        newer = len(frames.images) - count
        older = FrameTargets(*(part[count:] for part in targets))
        centers, heat = disturbed_centers(older)
        pyramid = frames.pyramid
        if newer:
            valid = torch.ones(newer, dtype=torch.bool, device=heat.device)
            previous = Previous(frames.images[count:], heat, valid)
            new = self.pyramid(frames.images[:newer], previous)
            pyramid = tuple(torch.cat((a, b[newer:])) for a, b in zip(new, pyramid, strict=True))
        maps, features = self.predict(pyramid)
        motion = self.motion_head(features).float()
        losses = panoptic_losses(maps, targets)
        current = FrameTargets(*(part[:newer] for part in targets))
        losses["motion"] = motion_loss(motion[:newer], current, older, centers)
        return losses


def motion_loss(
    motion: Tensor, current: FrameTargets, older: FrameTargets, centers: Tensor
) -> Tensor:
    """Of offsets [F,2,h,w] to the previous centres, for instances that were there before.

    Args:
        centers: [F,G,2] cells of the instances of `older`, the frames before the `current` ones.
    """
    same = current.ids[:, :, None] == older.ids[:, None]
    same = same & with_identity(current)[:, :, None]
    return offset_loss(motion, same.to(centers.dtype) @ centers, same.any(-1), current)


def disturbed_centers(targets: FrameTargets) -> tuple[Tensor, Tensor]:
    """Centres [F,G,2] as a network would have found them, and their heat [F,h,w].

    They are displaced, some are missing in the heat, and some have a false one beside them.
    """
    present = with_identity(targets)
    size = extents(targets.masks)
    height, width = targets.valid.shape[-2:]
    limits = size.new_tensor((height - 1, width - 1))

    def moved(centers: Tensor) -> Tensor:
        noise = torch.randn_like(centers) * SHIFT * size
        return (centers + noise).round().clamp(min=0).minimum(limits)

    centers = moved(center_cells(targets))
    chance = torch.rand(2, *present.shape, device=present.device)
    shown = present & (chance[0] >= MISS_RATE)
    false = present & (chance[1] < FALSE_RATE)
    places = torch.cat((centers, moved(centers)), 1)
    return centers, render_heat(places, torch.cat((shown, false), 1), height, width)


def extents(masks: Tensor) -> Tensor:
    """[F,G,2] rows and columns that each mask [F,G,h,w] takes up."""
    inside = masks > 0
    return torch.stack((inside.any(-1).sum(-1), inside.any(-2).sum(-1)), -1).to(masks.dtype)


def values_at(maps: Tensor, places: Tensor) -> Tensor:
    """[I,C] of maps [C,h,w] at rows and columns [I,2], which are rounded to cells."""
    width = maps.shape[2]
    row, column = (places + 0.5).floor().unbind(1)
    at = (row * width + column).to(torch.int64)
    return maps.flatten(1).index_select(1, at).T


def first_convolution(backbone: nn.Module) -> nn.Conv2d:
    """That which sees the image; ConfigError if the backbone begins otherwise."""
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.bias is not None:
        name = type(backbone).__name__
        raise ConfigError(f"backbone: expected a convolutional one for motion_deeplab, got {name}")
    return first
