"""Which weights learn how fast, and how the rate goes over the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from ..model.checkpoint import AnyNetwork
from ..model.video_knet import VideoKNet
from .train_config import TEMPORAL, TrainConfig


def build_optimizer(model: AnyNetwork, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with up to four groups: backbone or not, decayed (matrices) or not (norms, biases)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained(model):
        decayed = config.decay_norms_and_biases or parameter.dim() > 1
        groups.setdefault((name.startswith("backbone."), decayed), []).append(parameter)
    rate = {True: config.backbone_learning_rate, False: config.learning_rate}
    decay = {True: config.weight_decay, False: 0.0}
    return torch.optim.AdamW(
        [
            {"params": parameters, "base_lr": rate[backbone], "weight_decay": decay[decayed]}
            for (backbone, decayed), parameters in groups.items()
        ],
        fused=True,
    )


def freeze(model: AnyNetwork, config: TrainConfig) -> None:
    """Put all that `config` trains into training mode; the rest keeps its weights, and its batch
    norms their statistics."""
    model.train()
    model.backbone.freeze(config.frozen_groups)
    if config.train == "decoder":
        model.backbone.eval().requires_grad_(False)
    if not isinstance(model, VideoKNet):
        return
    if not config.video:
        freeze_temporal_modules(model)
    if config.train in TEMPORAL:
        for part in model.children():
            part.eval().requires_grad_(False)
        last = model.stages[-1]
        of_memory = (last.fusion, last.linking, last.slots)
        for part in (model.embedding, *((last,) if config.train == "temporal" else of_memory)):
            if part is not None:
                part.train().requires_grad_(True)


def freeze_temporal_modules(model: VideoKNet) -> None:
    """Fusion, linking, sticky slots and the association embedding learn from pairs only."""
    parts: list[nn.Module | None] = [model.embedding]
    for stage in model.stages:
        parts += [stage.fusion, stage.linking, stage.slots]
    for part in parts:
        if part is not None:
            part.requires_grad_(False)


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """The learning rates of step `step` (from 0): a linear warm-up, then `config.schedule`."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "cosine":  # half of one, down to 1 % of the base rate
        after = 0.505 + 0.495 * math.cos(math.pi * step / config.steps)
    else:
        after = 0.1 ** sum(step >= part * config.steps for part in config.milestones)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * warm * after
