#!/usr/bin/env python3
"""Can a network overfit a single clip? The score of its task on that clip.

    python benchmarks/overfit.py [--task panoptic|semantic|instance] [--goal 0.9]
    python benchmarks/overfit.py --model NAME|FILE [--tracker NAME] [--goal 0.9]

The clip is a close view of a synthetic street, three times enlarged: masks at stride 8 cannot show
what is thinner. STQ counts in task panoptic, mIoU in semantic, AP50 in instance. Without --model
the networks are those of the street on EfficientNet-Lite0, from ImageNet weights. --model names
another of config/models, or the file of one. A Video K-Net is given the classes of the street, such
as the authors' kitti_step_r50: ImageNet weights of a ResNet come with no package, so that starts
from noise, with batch norms set once to the clip. The network of another package keeps its classes,
which must be of the street. Exit code 1 if the goal is missed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from synthetic_street import SyntheticStreet
from video_knet_core.config import ModelConfig, NetworkConfig
from video_knet_core.config_io import ConfigError
from video_knet_core.data.camvid import street_ids
from video_knet_core.data.pairs import FramePair
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.evaluate.clips import CLIP_EVALUATORS
from video_knet_core.model.checkpoint import AnyNetwork, build_network, load_network_config
from video_knet_core.model.network import ExternalNetwork
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tasks import INSTANCE, TASKS
from video_knet_core.tracking import DEFAULT_TRACKER, TRACKERS, tracker_settings
from video_knet_core.tracking.tracker import TrackerSettings
from video_knet_core.training.pair_step import ExternalLosses, PairLosses
from video_knet_core.training.targets import ClassTargets, FrameTargets, stack_targets
from video_knet_core.training.train_config import LossWeights, TrainConfig
from video_knet_core.training.training_tasks import TRAINING_TASKS

MODELS = Path(__file__).parents[1] / "config" / "models"
STREET_MODEL = {
    "panoptic": "street_lite0",
    "semantic": "street_pspnet_lite0",
    "instance": "street_instances_lite0",
}
SEED, ENLARGED = 4009, 3
VIEW = (slice(288, 480), slice(320, 640))
REPORT_EVERY = 25


def close_view(frames: int, model: NetworkConfig) -> list[StreetFrame]:
    """Frames 0, 1, ... of the street, cut to the view, with the classes of the model."""
    street = SyntheticStreet(SEED, 288 * ENLARGED, 480 * ENLARGED)
    ids = street_ids(model.classes, "the clip")
    whole = (street.frame(t).relabelled(ids) for t in range(frames))
    return [StreetFrame(f.image[VIEW], f.semantic[VIEW], f.instance[VIEW]) for f in whole]


def view_config(task: str | None, model: str | None) -> NetworkConfig:
    """The configuration `model`, a file or a name, or that of the street; for the size of the
    view."""
    name = model or STREET_MODEL[task or "panoptic"]
    config = load_network_config(name if name.endswith(".yaml") else MODELS / f"{name}.yaml")
    if task not in (None, config.task):
        raise SystemExit(f"{name}: task: expected {task}, got {config.task}")
    if isinstance(config, ModelConfig):
        street = load_network_config(MODELS / f"{STREET_MODEL[config.task]}.yaml")
        config = replace(config, classes=street.classes)
    height, width = (part.stop - part.start for part in VIEW)
    return replace(config, height=height, width=width)


def start_backbone(model: AnyNetwork, images: torch.Tensor) -> float:
    """Its first weights; returns the learning rate that suits them."""
    try:
        model.backbone.load_imagenet()
    except ConfigError:
        set_norms(model, images)
        return 2e-4
    model.backbone.freeze(1)
    return 5e-4


@torch.no_grad()
def set_norms(model: AnyNetwork, images: torch.Tensor) -> None:
    """Give the batch norms, which do not learn, the statistics of images [T,3,H,W]."""
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = None  # the plain mean of its inputs
    normalized = (images - model.mean[:, None, None]) / model.std[:, None, None]
    model.backbone(normalized)
    for norm in norms:
        norm.eval()


def quality(
    model: AnyNetwork, clip: Sequence[StreetFrame], tracking: TrackerSettings
) -> dict[str, float]:
    """Scores of the clip, run frame by frame."""
    predictor = VideoPredictor(TorchRuntime(model), tracking)
    evaluator = CLIP_EVALUATORS[model.config.task](model.config.classes)
    for t, truth in enumerate(clip):
        evaluator.update(truth, predictor.step(truth.image, t * 100_000_000), 0)
    scores = evaluator.scores()
    return {name: scores[name] for name in TASKS[model.config.task].metrics}


def targets_of(model: NetworkConfig, frame: StreetFrame) -> FrameTargets | ClassTargets:
    """What the network is to say of one frame."""
    alone = FramePair(
        frame.image[None], frame.semantic[None], frame.instance[None].astype(np.int32)
    )
    # in task semantic the classes of cells are all there is to learn from
    rank_stride = 4 if TASKS[model.task].has_things else 1
    mask_stride = 2 if isinstance(model, ModelConfig) else 4
    grid = TrainConfig("", mask_stride=mask_stride, rank_stride=rank_stride)
    return TRAINING_TASKS[model.task].targets(alone, 0, model.classes, grid)


def losses_module(model: AnyNetwork) -> PairLosses | ExternalLosses:
    """The network with its losses."""
    if isinstance(model, ExternalNetwork):
        return ExternalLosses(model)
    weights = LossWeights(rank=0.3, stage_rank=0.5, balance=0.5)
    criterion = TRAINING_TASKS[model.config.task].criterion(
        weights, model.config.classes, torch.clone, 0
    )
    return PairLosses(model, criterion)


def train(
    model: AnyNetwork,
    clip: Sequence[StreetFrame],
    tracking: TrackerSettings,
    steps: int,
    batch: int,
    goal: float,
) -> float:
    """`batch` random pairs of the clip each step; returns the best score, at the goal at once."""
    images = torch.from_numpy(np.stack([f.image for f in clip])).permute(0, 3, 1, 2).float()
    targets = [targets_of(model.config, frame) for frame in clip]
    rate = start_backbone(model, images)
    losses_of = losses_module(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    score = _score(model.config.task)
    rng, best, begin = np.random.default_rng(0), 0.0, time.monotonic()
    for step in range(1, steps + 1):
        model.train()
        pairs = np.stack([rng.choice(len(clip), 2, replace=False) for _ in range(batch)])
        sides = stack_targets([targets[i] for i in pairs.T.ravel()])
        losses = losses_of(images[torch.from_numpy(pairs)], sides, 2)
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 20, 0.05 + 1.5 * (1 - step / steps))
        optimizer.step()
        if step % REPORT_EVERY == 0 or step == steps:
            scores, seconds = quality(model, clip, tracking), time.monotonic() - begin
            if math.isnan(scores[score]):
                raise SystemExit(f"{score} cannot be measured on this clip: no such labels")
            best = max(best, scores[score])
            figures = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            print(
                f"step {step:4d}  loss {total.item():7.2f}  {figures}  {seconds:.0f} s", flush=True
            )
            if best >= goal:
                break
    return best


def _score(task: str) -> str:
    """AP at an IoU of a half alone: the others ask for edges that coarse masks cannot have."""
    return "ap50" if TASKS[task] is INSTANCE else TASKS[task].metrics[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--task", choices=TASKS, help="default: that of --model, or panoptic")
    parser.add_argument("--model", metavar="NAME|FILE", help="one of config/models, or a YAML file")
    parser.add_argument("--tracker", choices=TRACKERS, default=DEFAULT_TRACKER)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=1, help="in each step")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--goal", type=float, default=0.9, help="stop at this score")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = build_network(view_config(args.task, args.model))
    clip, tracking = close_view(args.frames, model.config), tracker_settings(args.tracker)
    best = train(model, clip, tracking, args.steps, args.pairs, args.goal)
    print(f"best {_score(model.config.task)} {best:.3f}, expected {args.goal}")
    raise SystemExit(best < args.goal)


if __name__ == "__main__":
    main()
