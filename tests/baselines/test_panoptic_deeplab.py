"""Panoptic-DeepLab as a whole: it learns everywhere, and engines agree."""

from __future__ import annotations

import pytest
import torch
from deeplab_cases import (
    assert_engines_agree,
    silent_parameters,
    small_config,
    street,
    with_contrast,
)

from baselines.panoptic_deeplab import PanopticDeepLab


def network(seed: int = 0) -> PanopticDeepLab:
    torch.manual_seed(seed)
    return PanopticDeepLab(small_config("panoptic_deeplab"))


def test_losses_are_finite_and_reach_every_parameter_on_a_frozen_backbone():
    model = network().train()
    model.backbone.requires_grad_(False)
    images, targets = street(model.config, [1, 0])
    losses = model.losses(model.frames(images), targets, 2)
    assert set(losses) == {"semantic", "center", "offset"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert silent_parameters(model) == []


def test_the_maps_of_a_batch_are_those_of_its_frames():
    model = with_contrast(network())
    images, _ = street(model.config, [0, 3])
    with torch.no_grad():
        together, _ = model.predict(model.frames(images).pyramid)
        alone = [model.predict(model.frames(image[None]).pyramid)[0] for image in images]
    for name in together._fields:
        expected = torch.cat([getattr(maps, name) for maps in alone])
        torch.testing.assert_close(getattr(together, name), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow  # exports
def test_onnx_runtime_agrees_with_torch(tmp_path):
    assert_engines_agree(with_contrast(network()), tmp_path / "model.onnx")
