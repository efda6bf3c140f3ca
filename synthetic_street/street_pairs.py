"""Training pairs from the synthetic street."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_knet_core.data.pairs import CropRange, FramePair, Rng, warped_pair
from video_knet_core.data.street_frame import StreetFrame

from .street import SyntheticStreet

_MOMENTS = (20, 60, 110, 170)
"""Frame numbers at which the short clips of a street start."""
_FARTHEST = 1000.0
"""Largest depth that is stored [m], of what is farther too: half precision ends at 65504."""
OFFSETS = (0, 1, 3)
"""Frames of a short clip, counted from its start; longer ones continue with 4, 6, 7, 9, ..."""


class StreetPairs:
    """A `PairSource` of short clips on streets with seeds 0 .. `seeds` - 1.

    Drawing a new street costs more than a training step can wait for, so a clip is drawn once and
    kept in `cache` (about 0.8 MB a frame). `ids` are class ids to use instead, see `street_ids`. A
    sample has so many `frames`, in one direction of time; a clip has one more than that. With
    `depth`, samples have depth, and the clips are others: that takes longer, and a third more disk.
    """

    def __init__(
        self,
        seeds: int,
        cache: Path,
        crop: CropRange | None = None,
        causal: bool = False,
        ids: NDArray[np.uint8] | None = None,
        frames: int = 2,
        depth: bool = False,
    ) -> None:
        self.seeds, self.causal, self.ids, self.frames = seeds, causal, ids, frames
        self.depth = depth
        self.cache = cache
        self.crop = crop or CropRange(scale=(1.0, 1.7), aspect=(0.8, 1.2))

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        clip = self._clip(int(rng.integers(self.seeds)), int(rng.choice(_MOMENTS)))
        drawn = rng.choice(len(clip), self.frames, replace=False)
        backward = self.causal or bool(drawn[0] > drawn[1])
        frames = [clip[t] for t in sorted(drawn, reverse=backward)]
        if self.ids is not None:
            frames = [frame.relabelled(self.ids) for frame in frames]
        to_crop = self.crop.draw(rng, frames[0].semantic.shape, height, width)
        return warped_pair(frames, [to_crop] * len(frames), height, width)

    def _clip(self, seed: int, moment: int) -> list[StreetFrame]:
        length = f"_{self.frames + 1}" if self.frames > 2 else ""
        depth = "_depth" if self.depth else ""
        path = self.cache / f"street_{seed:06d}_{moment:04d}{length}{depth}.npz"
        if not path.is_file():
            self._draw(seed, moment, path)
        with np.load(path, allow_pickle=False) as clip:
            parts = zip(clip["images"], clip["semantic"], clip["instance"], strict=True)
            frames = [StreetFrame(*part) for part in parts]
            if not self.depth:
                return frames
            depths = clip["depth"].astype(np.float32)
            return [replace(frame, depth=d) for frame, d in zip(frames, depths, strict=True)]

    def _draw(self, seed: int, moment: int, path: Path) -> None:
        street = SyntheticStreet(seed, depth=self.depth)
        offsets = [OFFSETS[t % 2] + t // 2 * OFFSETS[2] for t in range(self.frames + 1)]
        frames = [street.frame(moment + offset) for offset in offsets]
        self.cache.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Any] = {
            name: np.stack([getattr(frame, part) for frame in frames])
            for name, part in (("images", "image"), ("semantic",) * 2, ("instance",) * 2)
        }
        if self.depth:
            depths = [frame.depth for frame in frames if frame.depth is not None]
            parts["depth"] = np.minimum(np.stack(depths), _FARTHEST).astype(np.float16)
        # the name is of its own: several workers may draw the same street
        partial = self.cache / f".street_{secrets.token_hex(8)}.partial"
        try:
            with partial.open("xb") as file:
                np.savez(file, **parts)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
