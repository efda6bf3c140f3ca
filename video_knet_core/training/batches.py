"""Batches of training pairs or clips. Sample n of a run depends on (seed, n) alone.

So a resumed run has the batches of an unbroken one, and several processes have together the
batches of one process with larger ones.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import NetworkConfig
from ..data.pairs import PairSource, photometric, spoilt_pair
from . import processes
from .targets import ClassTargets, FrameTargets, stack_targets
from .train_config import TrainConfig
from .training_tasks import TRAINING_TASKS

AnyTargets = FrameTargets | ClassTargets

Sample = tuple[Tensor, list[AnyTargets]]
"""Images u8 [2,3,H,W] (key, reference) and their targets; [1,3,H,W] of images alone, [T,3,H,W] of
longer clips, the frame with the most temporal context first."""
Batch = tuple[Tensor, AnyTargets]
"""Images u8 [B,2,3,H,W]; targets of the B key frames, then of the B reference frames. T for 2 in
longer clips."""


class PairDataset(Dataset):
    """Sample n of a run: which source, which clip, which crop all follow from (seed, n)."""

    def __init__(
        self,
        sources: Sequence[tuple[float, PairSource]],
        model: NetworkConfig,
        config: TrainConfig,
    ) -> None:
        self.sources, self.classes, self.config = sources, model.classes, config
        self._block = config.batch * processes.count()
        self._targets = TRAINING_TASKS[model.task].targets

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.config.seed, index))
        weights = [weight for weight, _ in self.sources]
        _, source = self.sources[int(rng.choice(len(weights), p=weights))]
        sizes = self.config.sizes
        pair = source.sample(rng, *sizes[index // self._block % len(sizes)])
        if self.config.photometric:
            pair = replace(pair, images=photometric(pair.images, rng))
        if self.config.spoilt:
            pair = spoilt_pair(pair, rng, self.config.spoilt)
        images = torch.from_numpy(pair.images).permute(0, 3, 1, 2)
        targets = [
            self._targets(pair, side, self.classes, self.config) for side in range(len(pair.images))
        ]
        return images, targets


def batches(dataset: PairDataset, first_step: int) -> Iterator[list[Batch]]:
    """What this process takes in each step from `first_step` on: `accumulate` batches."""
    config = dataset.config
    block = config.batch * processes.count()
    first, last = (step * config.accumulate * block for step in (first_step, config.steps))
    numbers = range(config.batch * processes.number(), config.batch * (processes.number() + 1))
    blocks = [[start + n for n in numbers] for start in range(first, last, block)]
    iterator = iter(_loader(dataset, blocks, collate))
    for _ in range(first_step, config.steps):
        yield [next(iterator) for _ in range(config.accumulate)]


def samples(dataset: PairDataset, numbers: Iterable[int]) -> Iterator[Sample]:
    """Those of the given numbers, one by one."""
    return iter(_loader(dataset, [[number] for number in numbers], itemgetter(0)))


def _loader(
    dataset: PairDataset, numbers: list[list[int]], merge: Callable[[list[Sample]], Any]
) -> DataLoader:
    """Reads the samples of each list of numbers, in the data workers, and merges them."""
    workers = dataset.config.workers
    return DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=merge,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(worker: int) -> None:
    """A worker is one of many: its OpenCV must not start a thread for each core, as torch's does
    not. A Ctrl-C, which a terminal sends to all processes, is for the trainer, which ends it. So is
    the SIGTERM that `timeout` and systemd send to all of them; a second one ends the worker.

    0 is "without threads". 1 would stop those of the pool first, and wait for ever: the fork that
    made the worker left them behind.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of B samples."""
    images, targets = zip(*samples, strict=True)
    sides = zip(*targets, strict=True)
    return torch.stack(images), stack_targets([frame for side in sides for frame in side])
