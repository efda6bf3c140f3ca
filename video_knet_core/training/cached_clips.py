"""Clips that were encoded once: what sees no time is not computed again in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.checkpoint import AnyNetwork
from ..model.heads import HeadOutput
from ..model.kernels import StageOutput
from ..model.network import Frames
from ..model.video_knet import Encoded, VideoKNet
from . import processes
from .batches import AnyTargets, PairDataset, samples
from .pair_step import encode_clips, side_by_side
from .targets import stack_targets
from .train_config import TrainConfig


class _Clip(NamedTuple):
    """T frames in half precision: what is read of them, and what they teach."""

    encoded: tuple[Tensor | None, ...]
    """[T,...] each. With train "decoder" the images and the maps of the backbone, else features,
    kernels, classes and masks of the stage before the last, and detail."""
    targets: list[AnyTargets]


class CachedClips:
    """`TrainConfig.cached_clips` samples of a run, from which each step draws its batch.

    A frame of 256 x 352 pixels takes about 1.2 MB of memory for 40 kernels and 128 channels.

    Args:
        model: with at least two stages, unless `train` is "decoder".
        device: where the network is. The cache is in the memory of the CPU.
    """

    def __init__(self, dataset: PairDataset, model: AnyNetwork, device: torch.device) -> None:
        self._decoder = dataset.config.train == "decoder"
        if not self._decoder:
            assert isinstance(model, VideoKNet), "only that has temporal modules"
            self._things, self._stages = model.thing_kernels, len(model.stages)
        count = dataset.config.cached_clips
        first = processes.number() * count
        self._clips: list[_Clip] = []
        for images, targets in samples(dataset, range(first, first + count)):
            with torch.no_grad():
                parts = self._encoded(model, images[None].to(device))
            packed = [type(frame)(*map(_packed, frame)) for frame in targets]
            self._clips.append(_Clip(tuple(map(_packed, parts)), packed))

    def batches(
        self, config: TrainConfig, first_step: int
    ) -> Iterator[list[tuple[Encoded | Frames, AnyTargets]]]:
        """What this process takes in each step from `first_step` on, as `batches.batches`."""
        for step in range(first_step, config.steps):
            rng = np.random.default_rng((config.seed, step, processes.number()))
            drawn = [
                rng.choice(len(self._clips), config.batch, len(self._clips) < config.batch)
                for _ in range(config.accumulate)
            ]
            yield [self._batch([self._clips[n] for n in numbers]) for numbers in drawn]

    def _encoded(self, model: AnyNetwork, images: Tensor) -> tuple[Tensor | None, ...]:
        """See `_Clip`; images [1,T,3,H,W]."""
        if self._decoder:
            return images[0], *model.frames(side_by_side(images)).pyramid
        assert isinstance(model, VideoKNet)
        encoded = encode_clips(model, images)
        before = encoded.stages[-1]
        return (
            *(encoded.head.features, before.kernels, before.class_logits),
            *(before.mask_logits, encoded.detail),
        )

    def _batch(self, clips: Sequence[_Clip]) -> tuple[Encoded | Frames, AnyTargets]:
        """Clips side by side: the newest frame of each, then the next older ones, ..."""
        sides = zip(*(clip.targets for clip in clips), strict=True)
        frames = [type(frame)(*map(_unpacked, frame)) for side in sides for frame in side]
        columns = zip(*(clip.encoded for clip in clips), strict=True)
        parts = [
            None if c[0] is None else _unpacked(torch.stack(c, 1).flatten(0, 1)) for c in columns
        ]
        return self._unpacked_frames(parts), stack_targets(frames)

    def _unpacked_frames(self, parts: Sequence[Tensor | None]) -> Encoded | Frames:
        """What the network continues from; see `_Clip`."""
        if self._decoder:
            images, *pyramid = (
                part.float().contiguous(memory_format=torch.channels_last)
                for part in parts
                if part is not None
            )
            return Frames(images, tuple(pyramid))
        features, kernels, classes, masks, detail = parts
        assert features is not None and kernels is not None and masks is not None
        before = StageOutput(kernels, kernels[:, : self._things], classes, masks)
        head = HeadOutput(features, kernels, masks, masks)
        stages = (before,) * (self._stages - 1)
        return Encoded(head, stages, detail, None)


def _packed(tensor: Tensor | None) -> Tensor | None:
    """Half as large, on the CPU."""
    if tensor is None:
        return None
    small = {torch.float32: torch.float16, torch.int64: torch.int32}
    return tensor.to("cpu", small.get(tensor.dtype, tensor.dtype))


def _unpacked(tensor: Tensor) -> Tensor:
    large = {torch.float16: torch.float32, torch.int32: torch.int64}
    return tensor.to(large.get(tensor.dtype, tensor.dtype))
