"""A batch of frame pairs, or of single frames, through the network and all its losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..model.kernels import PreviousKernels, StageOutput
from ..model.video_knet import Prediction, VideoKNet
from .criterion import BatchCriterion


class PairLosses(nn.Module):
    """The network and all its losses as one module, as `DistributedDataParallel` needs it."""

    def __init__(self, model: VideoKNet, criterion: BatchCriterion, bfloat16: bool = False) -> None:
        super().__init__()
        self.model, self.criterion, self.bfloat16 = model, criterion, bfloat16

    def forward(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """Every weighted loss by name.

        Args:
            images: see `predict_pairs`.
            targets: of the key frames, then of the reference frames.
        """
        # losses and matching are float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            prediction = predict_pairs(self.model, images)
        return self.criterion(prediction, targets, images.shape[1])


def predict_pairs(model: VideoKNet, images: Tensor) -> Prediction:
    """Predictions of B key frames, then of their B reference frames.

    Reference frames have no temporal context; key frames have the reference kernels, and gradients
    flow back through them. Both sides learn to segment (the authors' joint training). Without
    reference frames key frames have no context either, as in an image K-Net.

    Args:
        images: [B,2,3,H,W] RGB 0..255, key and reference; or [B,1,3,H,W], keys alone.
    """
    batch = len(images)
    frames = images.transpose(0, 1).flatten(0, 1).float()
    encoded = model.encode(frames.contiguous(memory_format=torch.channels_last))
    if len(frames) == batch:
        return model.decode(encoded, None)
    reference = model.decode(_images(encoded, slice(batch, None)), None)
    valid = torch.ones(batch, dtype=torch.bool, device=images.device)
    previous = PreviousKernels(reference.kernels, valid)
    key = model.decode(_images(encoded, slice(batch)), previous)
    last = (_both(*each) for each in zip(key.stages[-1:], reference.stages[-1:], strict=True))
    return Prediction(
        head=encoded.head,
        stages=(*encoded.stages, *last),
        embeddings=torch.cat((key.embeddings, reference.embeddings)),
        auxiliary=encoded.auxiliary,
    )


def _both(key: StageOutput, reference: StageOutput) -> StageOutput:
    pairs = zip(key, reference, strict=True)
    return StageOutput(*(None if k is None or r is None else torch.cat((k, r)) for k, r in pairs))


def _images(parts: Any, which: slice) -> Any:
    """The same nest of tuples with every tensor [B,...] cut to some of its images."""
    if isinstance(parts, Tensor):
        return parts[which]
    if parts is None:
        return None
    cut = [_images(part, which) for part in parts]
    return type(parts)(*cut) if hasattr(parts, "_fields") else tuple(cut)
