"""A small network for tests: the street classes, 32 channels, 6 thing kernels, 64 x 96 pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from video_knet_core.config import ModelConfig, load_yaml
from video_knet_core.model.video_knet import VideoKNet

CONFIGS = Path(__file__).parents[2] / "config"


def small_config(**kernels: object) -> ModelConfig:
    config = load_yaml(ModelConfig, CONFIGS / "models" / "street_lite0.yaml")
    settings = {"things": 6, "attention_heads": 2, "feedforward": 64} | kernels
    return replace(
        config,
        height=64,
        width=96,
        neck=replace(config.neck, channels=32),
        kernels=replace(config.kernels, **settings),
    )


def small_network(seed: int = 0, **kernels: object) -> VideoKNet:
    torch.manual_seed(seed)
    return VideoKNet(small_config(**kernels)).eval()
