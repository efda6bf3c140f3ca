"""A batch of frame pairs through the network and all its losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from .criterion import Criterion
from .matching import Match
from .targets import FrameTargets

Matches = dict[str, list[Match]]
"""Who is responsible for what: "head", "stage0" .. and "track" of each side."""


class PairLosses(nn.Module):
    """The network and all its losses as one module, which is what processes share the work of."""

    def __init__(self, model: VideoKNet, criterion: Criterion, bfloat16: bool = False) -> None:
        super().__init__()
        self.model, self.criterion, self.bfloat16 = model, criterion, bfloat16

    def forward(
        self, images: Tensor, targets: Sequence[Sequence[FrameTargets]]
    ) -> dict[str, Tensor]:
        """Every weighted loss of B pairs by name; see `pair_losses`."""
        return pair_losses(self.model, self.criterion, images, targets, self.bfloat16)[0]


def pair_losses(
    model: VideoKNet,
    criterion: Criterion,
    images: Tensor,
    targets: Sequence[Sequence[FrameTargets]],
    bfloat16: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Matches]]:
    """Every weighted loss of B pairs by name, and the matches of each side.

    Reference frames look at nothing; key frames look at the references' kernels, and gradients flow
    back through them. Both sides learn to segment (the authors' joint training).

    Args:
        images: [B,2,3,H,W] RGB 0..255, key and reference.
        targets: key and reference side, B frames each.
        bfloat16: mixed precision, of the network alone: losses and matching are float32.
    """
    batch = len(images)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        both = images.transpose(0, 1).flatten(0, 1).float()
        encoded = model.encode(both.contiguous(memory_format=torch.channels_last))
        reference = model.decode(_images(encoded, slice(batch, None)), None)
        valid = torch.ones(batch, dtype=torch.bool, device=images.device)
        previous = PreviousKernels(reference.kernels, valid)
        key = model.decode(_images(encoded, slice(batch)), previous)
    found: dict[str, Tensor] = {}
    matches: dict[str, Matches] = {}
    sides = (("key", key, targets[0]), ("reference", reference, targets[1]))
    for side, prediction, goals in sides:
        losses, matches[side] = criterion.frames(prediction, goals)
        found |= {f"{side}_{name}": loss for name, loss in losses.items()}
    found |= criterion.pairs(
        (key.embeddings, matches["key"]["track"], targets[0]),
        (reference.embeddings, matches["reference"]["track"], targets[1]),
    )
    return found, matches


def _images(parts: Any, which: slice) -> Any:
    """The same nest of tuples with every tensor [B,...] cut to some of its images."""
    if isinstance(parts, Tensor):
        return parts[which]
    if parts is None:
        return None
    cut = [_images(part, which) for part in parts]
    return type(parts)(*cut) if hasattr(parts, "_fields") else tuple(cut)
