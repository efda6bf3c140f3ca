"""A batch of frame pairs, longer clips or single frames through the network and all its losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from ..model.kernels import PreviousKernels, StageOutput
from ..model.network import ExternalNetwork, Frames
from ..model.video_knet import Encoded, Prediction, VideoKNet
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

    def forward(
        self, images: Tensor | Frames | Encoded, targets: Any, sides: int
    ) -> dict[str, Tensor]:
        """Every weighted loss by name.

        Args:
            images: see `predict_pairs`; or what the backbone or `encode_clips` made of them.
            targets: of the key frames, then of the reference frames, side by side as `images`.
            sides: T.
        """
        device = self.model.mean.device.type
        # losses and matching are float32
        with torch.autocast(device, torch.bfloat16, enabled=self.bfloat16):
            encoded = encode_clips(self.model, images)
            prediction = _decode_clips(self.model, encoded, sides, self.memory_drop)
        return self.criterion(prediction, targets, sides)


class ExternalLosses(nn.Module):
    """The same of a network that has losses of its own."""

    def __init__(
        self, model: ExternalNetwork, bfloat16: bool = False, balance: float = 0.0
    ) -> None:
        super().__init__()
        self.model, self.bfloat16 = model, bfloat16
        model.balance = balance

    def forward(self, images: Tensor | Frames, targets: Any, sides: int) -> dict[str, Tensor]:
        """See `PairLosses.forward`."""
        with torch.autocast(self.model.mean.device.type, torch.bfloat16, enabled=self.bfloat16):
            if isinstance(images, Tensor):
                images = self.model.frames(side_by_side(images))
            return self.model.losses(images, targets, sides)


def side_by_side(images: Tensor) -> Tensor:
    """Images [B,T,3,H,W] RGB 0..255 -> float32 [T*B,3,H,W]: B key frames, then the frames of each
    older side."""
    frames = images.transpose(0, 1).flatten(0, 1).float()
    return frames.contiguous(memory_format=torch.channels_last)


def encode_clips(model: VideoKNet, images: Tensor | Frames | Encoded) -> Encoded:
    """Images [B,T,3,H,W] RGB 0..255 -> all but the last stage, of frames as `side_by_side`. What is
    encoded already is left out."""
    if isinstance(images, Encoded):
        return images
    if isinstance(images, Frames):
        return model.encode_pyramid(images.pyramid)
    return model.encode(side_by_side(images))


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
    return _decode_clips(model, encode_clips(model, images), images.shape[1], memory_drop)


def _decode_clips(model: VideoKNet, encoded: Encoded, sides: int, memory_drop: float) -> Prediction:
    """See `predict_pairs`."""
    batch = len(encoded.head.features) // sides
    previous, newest_first = None, list[Prediction]()
    for side in reversed(range(sides)):
        frame = mapped(encoded, itemgetter(slice(side * batch, (side + 1) * batch)))
        newest_first.insert(0, model.decode(frame, previous))
        valid = torch.ones(batch, dtype=torch.bool)
        if memory_drop:
            valid = torch.rand(batch) >= memory_drop
        previous = PreviousKernels(newest_first[0].state, valid.to(model.mean.device))
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


def mapped(parts: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples with `function` of every tensor."""
    if isinstance(parts, Tensor):
        return function(parts)
    if parts is None:
        return None
    new = [mapped(part, function) for part in parts]
    return type(parts)(*new) if hasattr(parts, "_fields") else tuple(new)
