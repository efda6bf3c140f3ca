#!/usr/bin/env python3
"""Can the reference network (the authors', ResNet-50) learn one clip by heart? STQ on that clip.

    python benchmarks/overfit.py [--steps 400] [--frames 6] [--threads 2] [--goal 0.95]

The clip is a close view of a synthetic street, three times enlarged: masks at stride 8, as this
network has them, cannot show what is thinner. ImageNet weights of ResNet-50 come with no package,
so it starts from noise, with batch norms set once to the clip. Exit code 1 if the goal is missed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from video_knet_core.config import ModelConfig, load_yaml
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.metrics.stq import SegmentationTrackingQuality
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.predictor import VideoPredictor
from video_knet_core.training.criterion import Criterion, LossWeights
from video_knet_core.training.pair_step import pair_losses
from video_knet_core.training.targets import frame_targets

MODELS = Path(__file__).parents[1] / "config" / "models"
SEED, ENLARGED = 4009, 3
VIEW = (slice(288, 480), slice(320, 640))
REPORT_EVERY = 25


def close_view(frames: int) -> list[StreetFrame]:
    """Frames 0, 1, ... of the street, cut to the view."""
    street = SyntheticStreet(SEED, 288 * ENLARGED, 480 * ENLARGED)
    whole = (street.frame(t) for t in range(frames))
    return [StreetFrame(f.image[VIEW], f.semantic[VIEW], f.instance[VIEW]) for f in whole]


def reference_network() -> VideoKNet:
    """The authors' layers and sizes for KITTI-STEP, with the classes of the street."""
    config = load_yaml(ModelConfig, MODELS / "kitti_step_r50.yaml")
    classes = load_yaml(ModelConfig, MODELS / "street_lite0.yaml").classes
    height, width = (part.stop - part.start for part in VIEW)
    return VideoKNet(replace(config, classes=classes, height=height, width=width))


@torch.no_grad()
def set_norms(model: VideoKNet, images: torch.Tensor) -> None:
    """Give the batch norms, which do not learn, the statistics of images [T,3,H,W]."""
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = None  # the plain mean of what it sees
    normalized = (images - model.mean[:, None, None]) / model.std[:, None, None]
    model.backbone(normalized)
    for norm in norms:
        norm.eval()


def quality(model: VideoKNet, clip: Sequence[StreetFrame]) -> tuple[float, float, float]:
    """STQ, AQ and SQ of the clip, run frame by frame."""
    predictor, classes = VideoPredictor(TorchRuntime(model)), model.config.classes
    metric = SegmentationTrackingQuality(len(classes), classes.things)
    for t, truth in enumerate(clip):
        frame = predictor.step(truth.image, t * 100_000_000)
        maps = frame.semantic_map(), frame.track_id_map()
        metric.update(truth.semantic, truth.instance, *maps)
    result = metric.compute()
    return result.stq, result.aq, result.sq


def train(model: VideoKNet, clip: Sequence[StreetFrame], steps: int, goal: float) -> float:
    """Random pairs of the clip, one each step; returns the best STQ, at the goal at once."""
    images = torch.from_numpy(np.stack([f.image for f in clip])).permute(0, 3, 1, 2).float()
    classes = model.config.classes
    targets = [frame_targets(f.semantic, f.instance, classes, 2, rank_stride=4) for f in clip]
    set_norms(model, images)
    criterion = Criterion(LossWeights(rank=0.3, stage_rank=0.5, balance=0.5), len(classes.things))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.0, fused=True)
    rng, best, begin = np.random.default_rng(0), 0.0, time.monotonic()
    for step in range(1, steps + 1):
        model.train()
        key, reference = rng.choice(len(clip), 2, replace=False)
        sides = [[targets[key]], [targets[reference]]]
        losses, _ = pair_losses(model, criterion, images[[key, reference]][None], sides)
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * min(1.0, step / 20, 0.05 + 1.5 * (1 - step / steps))
        optimizer.step()
        if step % REPORT_EVERY == 0 or step == steps:
            stq, aq, sq = quality(model, clip)
            best, seconds = max(best, stq), time.monotonic() - begin
            print(
                f"step {step:4d}  loss {total.item():7.2f}  STQ {stq:.3f}  AQ {aq:.3f}  "
                f"SQ {sq:.3f}  {seconds:.0f} s",
                flush=True,
            )
            if best >= goal:
                break
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--goal", type=float, default=0.95, help="stop at this STQ")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    best = train(reference_network(), close_view(args.frames), args.steps, args.goal)
    print(f"best STQ {best:.3f}, wanted {args.goal}")
    raise SystemExit(best < args.goal)


if __name__ == "__main__":
    main()
