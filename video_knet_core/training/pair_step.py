"""A batch of frame pairs, longer clips or single frames through the network and all its losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model.kernels import PreviousKernels, StageOutput
from ..model.video_knet import Prediction, VideoKNet
from .criterion import BatchCriterion


class PairLosses(nn.Module):
    """The network and all its losses as one module, as `DistributedDataParallel` needs it."""

    def __init__(
        self,
        model: VideoKNet,
        criterion: BatchCriterion,
        bfloat16: bool = False,
        memory_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.criterion, self.bfloat16 = model, criterion, bfloat16
        self.memory_drop = memory_drop

    def forward(self, images: Tensor, targets: Any) -> dict[str, Tensor]:
        """Every weighted loss by name.

        Args:
            images: see `predict_pairs`.
            targets: of the key frames, then of the reference frames, side by side as `images`.
        """
        # losses and matching are float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            prediction = predict_pairs(self.model, images, self.memory_drop)
        return self.criterion(prediction, targets, images.shape[1])


def predict_pairs(model: VideoKNet, images: Tensor, memory_drop: float = 0.0) -> Prediction:
    """Predictions of B key frames, then of their B reference frames.

    Of T frames of a clip, the newest first, each has the kernels of the next older one as temporal
    context, as a frame of a running camera has, and gradients flow back through all of them. The
    oldest has none. All frames learn to segment (the authors' joint training). Without reference
    frames key frames have no context either, as in an image K-Net.

    Args:
        images: [B,T,3,H,W] RGB 0..255; T = 2, key and reference, or more, or 1, keys alone.
        memory_drop: see `TrainConfig.memory_drop`.
    """
    batch, sides = images.shape[:2]
    frames = images.transpose(0, 1).flatten(0, 1).float()
    encoded = model.encode(frames.contiguous(memory_format=torch.channels_last))
    previous, newest_first = None, list[Prediction]()
    for side in reversed(range(sides)):
        frame = _images(encoded, slice(side * batch, (side + 1) * batch))
        newest_first.insert(0, model.decode(frame, previous))
        valid = torch.ones(batch, dtype=torch.bool)
        if memory_drop:
            valid = torch.rand(batch) >= memory_drop
        previous = PreviousKernels(newest_first[0].kernels, valid.to(images.device))
    last = (_joined(side) for side in zip(*(p.stages[-1:] for p in newest_first), strict=True))
    return Prediction(
        head=encoded.head,
        stages=(*encoded.stages, *last),
        embeddings=torch.cat([prediction.embeddings for prediction in newest_first]),
        auxiliary=encoded.auxiliary,
    )


def _joined(sides: Sequence[StageOutput]) -> StageOutput:
    """One batch of the outputs of all sides."""
    parts = zip(*sides, strict=True)
    return StageOutput(*(None if p[0] is None else torch.cat(p) for p in parts))


def _images(parts: Any, which: slice) -> Any:
    """The same nest of tuples with every tensor [B,...] cut to some of its images."""
    if isinstance(parts, Tensor):
        return parts[which]
    if parts is None:
        return None
    cut = [_images(part, which) for part in parts]
    return type(parts)(*cut) if hasattr(parts, "_fields") else tuple(cut)
