"""A small network for tests: the street classes, 32 channels, 6 thing kernels, 64 x 96 pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm2d

from synthetic_street import SyntheticStreet
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.model.backbone import Swin
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


def small_version(name: str, **kernels: object) -> VideoKNet:
    """A configuration of config/models with random weights, made small but of the same operators.

    A ResNet-101 is a ResNet-50. A Swin-B has shallower and narrower stages only within
    `shrink_swin`.
    """
    config = load_yaml(ModelConfig, CONFIGS / "models" / f"{name}.yaml")
    things = min(10, config.kernels.things)  # task semantic has none
    kernels = {"things": things, "stages": 2, "attention_heads": 2, "feedforward": 64} | kernels
    small = replace(
        config,
        height=75,  # as 375 and 1242 of KITTI, not multiples of 32
        width=122,
        more_sizes=(),
        neck=replace(config.neck, channels=32),
        backbone=replace(
            config.backbone, width=8, name=config.backbone.name.replace("resnet101", "resnet50")
        ),
        kernels=replace(config.kernels, **kernels),
    )
    torch.manual_seed(0)
    return VideoKNet(small).eval()


@torch.no_grad()
def tell_pixels_apart(network: VideoKNet) -> VideoKNet:
    """Give a random network of task semantic or instance maps of more than one class, by the
    statistics of two images, and scores on both sides of the threshold."""
    if network.config.task == "panoptic":
        if network.config.kernels.detail:  # its first values are zeros
            torch.nn.init.normal_(network.stages[-1].detail_head.weight)
        return network
    height, width = network.config.height, network.config.width
    streets = [SyntheticStreet(seed, height, width).frame(0).image for seed in (1, 2)]
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = 1.0
    network.train()(torch.from_numpy(np.stack(streets)).permute(0, 3, 1, 2).float())
    if network.config.task == "instance":
        classifier = network.stages[-1].class_head[-1]
        classifier.weight.mul_(6)
        classifier.bias.fill_(-3.8)
    return network.eval()


def shrink_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every Swin-B that is built in this test a small one."""
    monkeypatch.setattr(Swin, "channels", (32, 64, 128, 256))
    monkeypatch.setattr(Swin, "depths", (2, 1, 1, 1))
    monkeypatch.setattr(Swin, "heads", (1, 2, 4, 8))
