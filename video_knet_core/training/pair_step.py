"""A batch of frame pairs, or of single frames, through the network and all its losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from .training_tasks import FrameCriterion, Matches, Targets


class PairLosses(nn.Module):
    """The network and all its losses as one module, which is what processes share the work of."""

    def __init__(self, model: VideoKNet, criterion: FrameCriterion, bfloat16: bool = False) -> None:
        super().__init__()
        self.model, self.criterion, self.bfloat16 = model, criterion, bfloat16

    def forward(self, images: Tensor, targets: Sequence[Sequence[Targets]]) -> dict[str, Tensor]:
        """Every weighted loss of B pairs by name; see `pair_losses`."""
        return pair_losses(self.model, self.criterion, images, targets, self.bfloat16)[0]


def pair_losses(
    model: VideoKNet,
    criterion: FrameCriterion,
    images: Tensor,
    targets: Sequence[Sequence[Targets]],
    bfloat16: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Matches]]:
    """Every weighted loss of B pairs by name, and the matches of each side.

    Reference frames look at nothing; key frames look at the references' kernels, and gradients flow
    back through them. Both sides learn to segment (the authors' joint training). Without reference
    frames the key frames look at nothing, as in an image K-Net.

    Args:
        images: [B,2,3,H,W] RGB 0..255, key and reference; or [B,1,3,H,W], keys alone.
        targets: key and reference side (or keys alone), B frames each.
        bfloat16: mixed precision, of the network alone: losses and matching are float32.
    """
    batch, sides = len(images), {}
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        frames = images.transpose(0, 1).flatten(0, 1).float()
        encoded = model.encode(frames.contiguous(memory_format=torch.channels_last))
        previous = None
        if len(frames) > batch:
            reference = model.decode(_images(encoded, slice(batch, None)), None)
            valid = torch.ones(batch, dtype=torch.bool, device=images.device)
            previous = PreviousKernels(reference.kernels, valid)
            sides["reference"] = reference
        sides["key"] = model.decode(_images(encoded, slice(batch)), previous)
    found: dict[str, Tensor] = {}
    matches: dict[str, Matches] = {}
    for side, goals in zip(sorted(sides), targets, strict=True):  # key, reference
        losses, matches[side] = criterion.frames(sides[side], goals)
        found |= {f"{side}_{name}": loss for name, loss in losses.items()}
    if previous is not None:
        key, other = (
            (sides[side].embeddings, matches[side]["track"], goals)
            for side, goals in zip(sorted(sides), targets, strict=True)
        )
        found |= criterion.pairs(key, other)
    return found, matches


def _images(parts: Any, which: slice) -> Any:
    """The same nest of tuples with every tensor [B,...] cut to some of its images."""
    if isinstance(parts, Tensor):
        return parts[which]
    if parts is None:
        return None
    cut = [_images(part, which) for part in parts]
    return type(parts)(*cut) if hasattr(parts, "_fields") else tuple(cut)
