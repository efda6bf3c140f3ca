"""Small Panoptic- and Motion-DeepLabs, what they learn from, and a comparison of two engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from baselines.baseline_config import BaselineConfig
from synthetic_street import SyntheticStreet
from video_knet_core.config_io import load_yaml
from video_knet_core.data.camvid import street_ids
from video_knet_core.engine.export import export_onnx
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.training.targets import FrameTargets, frame_targets, stack_targets

MODELS = Path(__file__).parents[2] / "baselines" / "models"
HEIGHT, WIDTH = 64, 96
FLIPS = 2e-3
"""Fraction of pixels that may differ between engines, where two classes or centres are equal."""


def small_config(network: str, **settings: object) -> BaselineConfig:
    """The street configuration, made small."""
    config = load_yaml(BaselineConfig, MODELS / f"street_{network}.yaml")
    blocks = (1, 1, 1, 1, 1, 1, 0)
    settings = {"channels": 16, "instances": 8, "height": HEIGHT, "width": WIDTH} | settings
    return replace(config, backbone=replace(config.backbone, blocks=blocks), **settings)


@torch.no_grad()
def with_contrast(network):
    """In eval mode, and as after some training: batch norms have statistics of images, and the
    heads show centres and classes."""
    for name, layer in network.named_children():
        if name.endswith("_head"):
            torch.nn.init.normal_(layer[-1].weight, std=1.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images, targets = street(network.config, [0, 1, 2, 3])
    network.train().losses(network.frames(images), targets, 2)
    return network.eval()


def street(config: BaselineConfig, frames: list[int]) -> tuple[torch.Tensor, FrameTargets]:
    """Images [F,3,H,W] and targets of frames of a synthetic street, which is seen closely."""
    clip = SyntheticStreet(4009, 5 * HEIGHT, 5 * WIDTH)
    ids = street_ids(config.classes, "the street")
    view = slice(2 * HEIGHT, 3 * HEIGHT), slice(3 * WIDTH, 4 * WIDTH)
    images, targets = [], []
    for t in frames:
        frame = clip.frame(t).relabelled(ids)
        images.append(torch.from_numpy(frame.image[view].copy()).permute(2, 0, 1).float())
        instance = frame.instance[view].astype(np.int32)
        targets.append(frame_targets(frame.semantic[view], instance, config.classes, 4))
    return torch.stack(images), stack_targets(targets)


def assert_engines_agree(network, path: Path, frames: int = 3) -> None:
    """ONNX Runtime returns what torch does over some frames, each with the state of the last."""
    export_onnx(network, path, "test")
    runtimes = TorchRuntime(network), OnnxRuntime(path)
    states = [None, None]
    scene = SyntheticStreet(1, HEIGHT, WIDTH)
    for t in range(frames):
        image, seen = scene.frame(t).image, []
        for k, runtime in enumerate(runtimes):
            detections, states[k] = runtime.step(image, states[k])
            seen.append(detections)
        expected, got = seen
        assert (expected.segment_map != got.segment_map).mean() <= FLIPS
        assert len(np.unique(expected.segment_map)) > 3
        assert (expected.areas > 0)[: network.config.instances].any()
        np.testing.assert_allclose(got.embeddings, expected.embeddings, atol=5e-3)
        np.testing.assert_allclose(got.scores, expected.scores, atol=5e-3)
        kinds = np.flatnonzero((expected.areas > 20) & (got.areas > 20))
        np.testing.assert_array_equal(got.class_ids[kinds], expected.class_ids[kinds])


def silent_parameters(network) -> list[str]:
    """Names of parameters outside the backbone that no gradient has reached."""
    return [
        name
        for name, parameter in network.named_parameters()
        if not name.startswith("backbone.")
        and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
