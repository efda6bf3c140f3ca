"""What the folded feature transform saves: one update stage of the official widths, both ways.

    python benchmarks/folding.py --rounds 15

The stage as the authors write it transforms the feature map first; ours moves that linear map onto
the kernels. Both run in turn on the same weights and inputs, at 384 x 1248 (stride 8).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from video_knet_core.model.kernels import UpdateStage, apply_kernels, assemble_group_features

CHANNELS, THINGS, STUFF, CLASSES = 256, 100, 17, 19


def unfolded(stage: UpdateStage, features: Tensor, kernels: Tensor, masks: Tensor) -> list[Tensor]:
    """Class and mask logits of the stage as SPEC and paper have it."""
    transformed = stage.feature_transform(features.movedim(1, -1)).movedim(-1, 1)
    group, _ = assemble_group_features(masks, transformed, "sum")
    kernels = stage.update(group.to(kernels.dtype), kernels)
    kernels = stage.interaction(kernels, kernels)
    return [stage.class_head(kernels), apply_kernels(stage.mask_head(kernels), transformed)]


def folded(stage: UpdateStage, features: Tensor, kernels: Tensor, masks: Tensor) -> list[Tensor]:
    """The same, as the network computes it."""
    out = stage(features, kernels, masks)
    assert out.class_logits is not None
    return [out.class_logits, out.mask_logits]


def interleaved(first: Callable, second: Callable, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `rounds` calls of each, in turn, after one unmeasured call."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for call, seen in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            if i:
                seen.append((time.perf_counter() - start) * 1e3)
    return times


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    stage = UpdateStage(CHANNELS, 8, 2048, CLASSES, THINGS, pooling="sum").eval()
    features = torch.randn(1, CHANNELS, 48, 156)
    kernels = torch.randn(1, THINGS + STUFF, CHANNELS)
    masks = torch.randn(1, THINGS + STUFF, 48, 156)
    stage = stage.double()
    inputs = [x.double() for x in (features, kernels, masks)]
    pairs = zip(unfolded(stage, *inputs), folded(stage, *inputs), strict=True)
    for name, (plain, ours) in zip(("class", "mask"), pairs, strict=True):
        print(f"{name} logits, float64: largest difference {(plain - ours).abs().max():.1e}")
    stage = stage.float()
    plain, ours = interleaved(
        lambda: unfolded(stage, features, kernels, masks),
        lambda: folded(stage, features, kernels, masks),
        arguments.rounds,
    )
    print(f"one stage, unfolded {np.median(plain):.1f} ms, folded {np.median(ours):.1f} ms", end="")
    print(f" (medians of {arguments.rounds}; ratio {np.median(plain) / np.median(ours):.2f})")


if __name__ == "__main__":
    main()
