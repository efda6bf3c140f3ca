from __future__ import annotations

import pytest
import torch
from networks import small_network
from torch import Tensor

from video_knet_core.model.kernels import (
    PreviousKernels,
    UpdateStage,
    apply_kernels,
    assemble_group_features,
)

THINGS, STUFF, CHANNELS = 6, 8, 32


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255


@torch.no_grad()
def test_outputs_have_the_shapes_of_the_contract(image):
    prediction, state = small_network()(image)
    assert prediction.class_logits.shape == (2, THINGS + STUFF, 11)
    assert prediction.mask_logits.shape == (2, THINGS + STUFF, 16, 24)
    assert prediction.embeddings.shape == (2, THINGS, CHANNELS)
    assert prediction.head.semantic_logits.shape == (2, 11, 16, 24)
    assert len(prediction.stages) == 3
    assert torch.equal(state.kernels, prediction.kernels)
    assert state.valid.all()


@torch.no_grad()
def test_a_batch_of_two_videos_equals_two_single_ones(image):
    network = small_network()
    _, state = network(image)
    both, _ = network(image.flip(3), state)
    for i in range(2):
        _, alone = network(image[i : i + 1])
        single, _ = network(image[i : i + 1].flip(3), alone)
        for name in ("class_logits", "mask_logits", "embeddings"):
            close(getattr(both, name)[i], getattr(single, name)[0])


@torch.no_grad()
def test_a_first_frame_ignores_the_previous_kernels(image):
    network = small_network()
    rubbish = PreviousKernels(torch.full((2, 14, CHANNELS), 7.0), torch.tensor([False, False]))
    first, _ = network(image)
    masked, _ = network(image, rubbish)
    close(first.mask_logits, masked.mask_logits)
    close(first.embeddings, masked.embeddings)


@pytest.mark.parametrize(
    ("switches", "masks_change", "embeddings_change"),
    [
        ({"fusion": True, "linking": True}, True, True),
        ({"fusion": False, "linking": True}, False, True),
        ({"fusion": True, "linking": False}, True, True),
        ({"fusion": False, "linking": False}, False, False),
    ],
)
@torch.no_grad()
def test_fusion_changes_masks_and_linking_only_embeddings(
    image, switches, masks_change, embeddings_change
):
    network = small_network(**switches)
    first, state = network(image)
    second, _ = network(image, state)
    assert torch.equal(first.mask_logits, second.mask_logits) != masks_change
    assert torch.equal(first.embeddings, second.embeddings) != embeddings_change


@torch.no_grad()
def test_without_embedding_layers_the_kernels_are_the_embeddings(image):
    prediction, _ = small_network(embedding=False, linking=False)(image)
    assert torch.equal(prediction.embeddings, prediction.kernels[:, :THINGS])


@torch.no_grad()
def test_permuting_thing_kernels_permutes_the_segments(image):
    network = small_network()
    before, _ = network(image)
    order = torch.randperm(THINGS, generator=torch.Generator().manual_seed(2))
    network.head.thing_kernels.copy_(network.head.thing_kernels[order])
    after, _ = network(image)
    close(after.mask_logits[:, :THINGS], before.mask_logits[:, order])
    close(after.mask_logits[:, THINGS:], before.mask_logits[:, THINGS:])
    close(after.embeddings, before.embeddings[:, order])


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@torch.no_grad()
def test_the_folded_feature_transform_equals_the_plain_one(pooling):
    """The stage as the paper writes it: transform the features, then pool and multiply."""
    torch.manual_seed(3)
    stage = UpdateStage(16, 2, 32, 5, pooling=pooling, fusion=False).double()
    features, masks = torch.randn(1, 16, 8, 8).double(), torch.randn(1, 4, 8, 8).double()
    start = torch.randn(1, 4, 16).double()
    out = stage(features, start, masks)
    transformed = stage.feature_transform(features.movedim(1, -1)).movedim(-1, 1)
    group, _ = assemble_group_features(masks, transformed, pooling)
    updated = stage.update(group.double(), start)
    updated = stage.interaction(updated, updated)
    close(out.kernels, updated)
    close(out.mask_logits, apply_kernels(stage.mask_head(updated), transformed))


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_group_features_of_a_full_image_survive_float16(pooling):
    """1024 x 2048 at stride 4, every pixel in the mask: the plain sum would overflow."""
    features = torch.full((1, 4, 256, 512), 3.0, dtype=torch.float16)
    masks = torch.full((1, 2, 256, 512), 5.0, dtype=torch.float16)
    masks[:, 1] = -5
    group, weight = assemble_group_features(masks, features, pooling)
    expected = 3.0 if pooling == "mean" else 3.0 * 256 * 512
    assert group[0, 0, 0].item() == pytest.approx(expected, rel=2e-3)
    assert (group[0, 1] == 0).all()
    assert weight[0, 1, 0] == 0


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
