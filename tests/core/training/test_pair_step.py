"""Pairs and single images through the network."""

from __future__ import annotations

import pytest
import torch
from training_runs import (
    clip,
    inputs,
    pair_losses,
    small_model,
)

from video_knet_core.data.pairs import FramePair
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training.optimization import freeze_temporal_modules, trained
from video_knet_core.training.pair_step import predict_pairs


@pytest.mark.parametrize("name", ["street_lite0", "street"])
def test_single_images_do_not_train_temporal_modules(name):
    model = small_model("panoptic", name)
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    freeze_temporal_modules(network)
    batch = inputs(model, clip(model).key(), batch=2)
    assert batch[0].shape == (2, 1, 3, 64, 96)
    losses = pair_losses(network, batch)
    assert all(name.startswith("key_") for name in losses)
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {
        name for name, _ in network.named_parameters() if name not in dict(trained(network))
    }
    assert any(name.startswith("embedding.") for name in without)


def test_a_key_frame_alone_has_the_losses_of_one_without_previous_kernels():
    """The reference side of a pair has no temporal context either."""
    model = small_model("panoptic")
    torch.manual_seed(0)
    network = VideoKNet(model).eval()
    network.stages[0].training = network.stages[1].training = network.training = True
    pair = clip(model)
    swapped = FramePair(pair.images[::-1].copy(), pair.semantic[::-1], pair.instance[::-1])
    alone = pair_losses(network, inputs(model, pair.key()))
    both = pair_losses(network, inputs(model, swapped))
    for name, loss in alone.items():
        expected = both[name.replace("key_", "reference_")].item()
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope="module")
def network() -> VideoKNet:
    torch.manual_seed(0)
    return VideoKNet(small_model("panoptic")).eval()


@pytest.mark.parametrize("frames", [2, 4])
def test_the_state_of_a_clip_in_training_is_that_of_a_running_camera(network, frames):
    images = torch.rand(2, frames, 3, 64, 96) * 255
    together, state = predict_pairs(network, images), None
    for side in reversed(range(frames)):
        expected, state = network(images[:, side], state)
        of_side = slice(2 * side, 2 * side + 2)
        for name in ("embeddings", "mask_logits", "class_logits", "kernels"):
            torch.testing.assert_close(
                getattr(together, name)[of_side], getattr(expected, name), rtol=1e-4, atol=1e-4
            )


def test_gradients_reach_the_first_frame_of_a_clip_through_its_kernels(network):
    images = (torch.rand(1, 3, 3, 64, 96) * 255).requires_grad_()
    key = predict_pairs(network, images).mask_logits[:1]
    (gradient,) = torch.autograd.grad(key.square().sum(), images)
    assert gradient.flatten(2).any(2).all()


def test_frames_whose_memory_is_dropped_are_first_frames(network):
    images = torch.rand(2, 3, 3, 64, 96) * 255
    dropped = predict_pairs(network, images, memory_drop=1.0)
    alone = network(images.transpose(0, 1).flatten(0, 1))[0]
    kept = predict_pairs(network, images)
    torch.testing.assert_close(dropped.embeddings, alone.embeddings, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(kept.embeddings, alone.embeddings, rtol=1e-3, atol=1e-3)
