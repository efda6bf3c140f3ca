"""Batches of training pairs. Sample n of a run depends on (seed, n) alone.

So a resumed run sees what an unbroken one would have, and several processes see together what one
process with larger batches would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.pairs import PairSource, photometric
from ..types import ClassTable
from . import processes
from .settings import TrainConfig
from .targets import FrameTargets, frame_targets

Sample = tuple[Tensor, list[FrameTargets]]
"""Images u8 [2,3,H,W] (key, reference) and their targets."""
Batch = tuple[Tensor, list[list[FrameTargets]]]
"""Images u8 [B,2,3,H,W]; targets as [key of each sample, reference of each sample]."""


class PairDataset(Dataset):
    """Sample n of a run: which source, which clip, which crop all follow from (seed, n)."""

    def __init__(
        self,
        sources: Sequence[tuple[float, PairSource]],
        classes: ClassTable,
        config: TrainConfig,
    ) -> None:
        self.sources, self.classes, self.config = sources, classes, config

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.config.seed, index))
        shares = [share for share, _ in self.sources]
        _, source = self.sources[int(rng.choice(len(shares), p=shares))]
        pair = source.sample(rng, self.config.height, self.config.width)
        pixels = photometric(pair.images, rng) if self.config.photometric else pair.images
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        targets = [
            frame_targets(
                semantic,
                instance,
                self.classes,
                self.config.mask_stride,
                self.config.targets,
                self.config.rank_stride,
            )
            for semantic, instance in zip(pair.semantic, pair.instance, strict=True)
        ]
        return images, targets


def batches(dataset: PairDataset, first_step: int) -> Iterator[list[Batch]]:
    """What this process takes in each step from `first_step` on: `accumulate` batches."""
    config = dataset.config
    block = config.batch * processes.count()
    first, last = (step * config.accumulate * block for step in (first_step, config.steps))
    numbers = range(config.batch * processes.number(), config.batch * (processes.number() + 1))
    loader = DataLoader(
        dataset,
        batch_sampler=[[start + n for n in numbers] for start in range(first, last, block)],
        num_workers=config.workers,
        collate_fn=collate,
        prefetch_factor=4 if config.workers else None,
    )
    iterator = iter(loader)
    for _ in range(first_step, config.steps):
        yield [next(iterator) for _ in range(config.accumulate)]


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of B samples."""
    images = torch.stack([images for images, _ in samples])
    return images, [[targets[side] for _, targets in samples] for side in (0, 1)]
