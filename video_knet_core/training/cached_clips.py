"""Clips that were encoded once: what sees no time is not computed again in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.heads import HeadOutput
from ..model.kernels import StageOutput
from ..model.video_knet import Encoded, VideoKNet
from . import processes
from .batches import AnyTargets, PairDataset, samples
from .pair_step import encode_clips
from .targets import stack_targets
from .train_config import TrainConfig


class _Clip(NamedTuple):
    """T frames in half precision: what the last stage reads, and what it learns."""

    encoded: tuple[Tensor | None, ...]
    """Features, kernels, classes and masks of the stage before the last, detail: [T,...] each."""
    targets: list[AnyTargets]


class CachedClips:
    """`TrainConfig.cached_clips` samples of a run, from which each step draws its batch.

    A frame of 256 x 352 pixels takes about 1.2 MB of memory for 40 kernels and 128 channels.

    Args:
        model: with at least two stages; only the last one and the embedding learn.
        device: where the network is. The cache is in the memory of the CPU.
    """

    def __init__(self, dataset: PairDataset, model: VideoKNet, device: torch.device) -> None:
        self._things, self._stages = model.thing_kernels, len(model.stages)
        count = dataset.config.cached_clips
        first = processes.number() * count
        self._clips: list[_Clip] = []
        for images, targets in samples(dataset, range(first, first + count)):
            with torch.no_grad():
                encoded = encode_clips(model, images[None].to(device))
            before = encoded.stages[-1]
            parts = (
                *(encoded.head.features, before.kernels, before.class_logits),
                *(before.mask_logits, encoded.detail),
            )
            packed = [type(frame)(*map(_packed, frame)) for frame in targets]
            self._clips.append(_Clip(tuple(map(_packed, parts)), packed))

    def batches(
        self, config: TrainConfig, first_step: int
    ) -> Iterator[list[tuple[Encoded, AnyTargets]]]:
        """What this process takes in each step from `first_step` on, as `batches.batches`."""
        for step in range(first_step, config.steps):
            rng = np.random.default_rng((config.seed, step, processes.number()))
            drawn = [
                rng.choice(len(self._clips), config.batch, len(self._clips) < config.batch)
                for _ in range(config.accumulate)
            ]
            yield [self._batch([self._clips[n] for n in numbers]) for numbers in drawn]

    def _batch(self, clips: Sequence[_Clip]) -> tuple[Encoded, AnyTargets]:
        """Clips side by side: the newest frame of each, then the next older ones, ..."""
        columns = zip(*(clip.encoded for clip in clips), strict=True)
        features, kernels, classes, masks, detail = (
            None if c[0] is None else _unpacked(torch.stack(c, 1).flatten(0, 1)) for c in columns
        )
        assert features is not None and kernels is not None and masks is not None
        before = StageOutput(kernels, kernels[:, : self._things], classes, masks)
        head = HeadOutput(features, kernels, masks, masks)
        stages = (before,) * (self._stages - 1)
        sides = zip(*(clip.targets for clip in clips), strict=True)
        frames = [type(frame)(*map(_unpacked, frame)) for side in sides for frame in side]
        return Encoded(head, stages, detail, None), stack_targets(frames)


def _packed(tensor: Tensor | None) -> Tensor | None:
    """Half as large, on the CPU."""
    if tensor is None:
        return None
    small = {torch.float32: torch.float16, torch.int64: torch.int32}
    return tensor.to("cpu", small.get(tensor.dtype, tensor.dtype))


def _unpacked(tensor: Tensor) -> Tensor:
    large = {torch.float16: torch.float32, torch.int32: torch.int64}
    return tensor.to(large.get(tensor.dtype, tensor.dtype))
