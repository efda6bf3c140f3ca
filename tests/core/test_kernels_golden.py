"""The kernel stages, linking, embedding and association losses against numbers recorded from the
authors' code (a small model: 64 channels, 20 thing and 17 stuff kernels)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from video_knet_core.model.kernels import (
    AssociationEmbedding,
    KernelFusion,
    KernelInteraction,
    KernelLinking,
    PreviousKernels,
    UpdateStage,
)
from video_knet_core.training.losses import track_aux_loss, track_loss

GOLDEN = Path(__file__).parents[1] / "fixtures" / "video_knet_golden.npz"
CHANNELS, HEADS, FEEDFORWARD, CLASSES = 64, 8, 128, 19
UPDATE_NAMES = {
    "group_layer": "dynamic_layer",
    "kernel_layer": "input_layer",
    "kernel_gate": "input_gate",
    "group_gate": "update_gate",
    "kernel_gate_norm": "input_norm_in",
    "group_gate_norm": "norm_in",
    "kernel_norm": "input_norm_out",
    "group_norm": "norm_out",
    "out": "fc_layer",
    "out_norm": "fc_norm",
}
EMBEDDING_NAMES = ("embed_fcs.0", "embed_fcs.1", None, "fc_embed", "track_head.fcs.0", None)
EMBEDDING_NAMES += ("track_head.fcs.1", None, "track_head.fc_embed")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {k: torch.from_numpy(np.asarray(file[k], np.float32)) for k in file.files}


def official_update(golden: dict, root: str) -> dict:
    return {
        f"{ours}.{kind}": golden[f"w/{root}.{theirs}.{kind}"]
        for ours, theirs in UPDATE_NAMES.items()
        for kind in ("weight", "bias")
    }


def official_interaction(
    golden: dict,
    root: str,
    attention: str,
    norm: str,
    ffn: str,
    feedforward_norm: str | None = None,
) -> dict:
    w = f"w/{root}."
    feedforward_norm = feedforward_norm or f"{ffn}_norm"
    projections = golden[w + f"{attention}.attn.in_proj_weight"].chunk(3)
    biases = golden[w + f"{attention}.attn.in_proj_bias"].chunk(3)
    state = {}
    for name, weight, bias in zip(("query", "key", "value"), projections, biases, strict=True):
        state |= {f"attention.{name}.weight": weight, f"attention.{name}.bias": bias}
    for kind in ("weight", "bias"):
        state[f"attention.out.{kind}"] = golden[w + f"{attention}.attn.out_proj.{kind}"]
        state[f"attention_norm.{kind}"] = golden[w + f"{norm}.{kind}"]
        state[f"feedforward.0.{kind}"] = golden[w + f"{ffn}.layers.0.0.{kind}"]
        state[f"feedforward.2.{kind}"] = golden[w + f"{ffn}.layers.1.{kind}"]
        state[f"feedforward_norm.{kind}"] = golden[w + f"{feedforward_norm}.{kind}"]
    return state


def load_stage(golden: dict, index: int) -> UpdateStage:
    root = f"roi_head.mask_head.{index}"
    state = official_interaction(golden, root, "attention", "attention_norm", "ffn")
    state = {f"interaction.{k}": v for k, v in state.items()}
    update = official_update(golden, f"{root}.kernel_update_conv")
    state |= {f"update.{k}": v for k, v in update.items()}
    for kind in ("weight", "bias"):
        transform = golden[f"w/{root}.feat_transform.conv.{kind}"]
        state[f"feature_transform.{kind}"] = transform.flatten(1) if kind == "weight" else transform
        for ours, norm, last in (("class", "cls_fcs", "fc_cls"), ("mask", "mask_fcs", "fc_mask")):
            state[f"{ours}_head.1.{kind}"] = golden[f"w/{root}.{norm}.1.{kind}"]
            state[f"{ours}_head.3.{kind}"] = golden[f"w/{root}.{last}.{kind}"]
            state[f"{ours}_head.0.weight"] = golden[f"w/{root}.{norm}.0.weight"]
    stage = UpdateStage(CHANNELS, HEADS, FEEDFORWARD, CLASSES, pooling="sum", fusion=False)
    stage.load_state_dict(state)
    return stage.eval()


def kernels(x: Tensor) -> Tensor:
    return x.reshape(1, -1, CHANNELS)


@pytest.mark.parametrize(
    ("index", "start_kernels", "start_masks"),
    [
        (0, "f0/rpn/proposal_feats", "f0/rpn/init_mask_preds"),
        (2, "f0/stage1/object_feats", "f0/stage1/mask_preds"),
    ],
)
@torch.no_grad()
def test_an_update_stage_gives_the_authors_numbers(golden, index, start_kernels, start_masks):
    stage = load_stage(golden, index)
    out = stage(golden["f0/rpn/x_feats"], kernels(golden[start_kernels]), golden[start_masks])
    assert_close(out.kernels, kernels(golden[f"f0/stage{index}/object_feats"]))
    assert_close(out.class_logits, golden[f"f0/stage{index}/cls_score"])
    assert_close(out.mask_logits, golden[f"f0/stage{index}/mask_preds"])


@torch.no_grad()
def test_the_adaptive_update_gives_the_authors_numbers(golden):
    update = load_stage(golden, 2).update
    group = golden["f1/stage2/updator_in_xfeat"]
    out = update(group, kernels(golden["f1/stage2/updator_in_kernel"]))
    assert_close(out, kernels(golden["f1/stage2/updator_out"]))


@torch.no_grad()
def test_kernel_fusion_gives_the_authors_numbers(golden):
    names = ("attention_previous_link", "attention_previous_norm_link", "link_ffn_link")
    root = "roi_head.mask_head.2"
    state = official_interaction(golden, root, *names, feedforward_norm="link_ffn_norm_link")
    fusion = KernelFusion(CHANNELS, HEADS, FEEDFORWARD)
    fusion.interaction.load_state_dict(state)
    fusion.update.load_state_dict(official_update(golden, f"{root}.attention_previous_update_link"))
    fused = fusion(
        kernels(golden["fusion/kernels"]),
        golden["fusion/updator_in_xfeat"],
        PreviousKernels(kernels(golden["fusion/in_previous_obj_feats"]), torch.tensor([True])),
    )
    assert_close(fused, kernels(golden["fusion/updator_in_kernel"]))


@torch.no_grad()
def test_kernel_linking_gives_the_authors_numbers(golden):
    linking = KernelLinking(CHANNELS, HEADS, FEEDFORWARD)
    assert isinstance(linking.interaction, KernelInteraction)
    names = ("attention_previous", "attention_previous_norm", "link_ffn")
    root = "roi_head.mask_head.2"
    linking.interaction.load_state_dict(official_interaction(golden, root, *names))
    previous = kernels(golden["f1/stage2/in_previous_obj_feats"])
    current = kernels(golden["f1/stage2/object_feats"])
    linked = linking(current, PreviousKernels(previous, torch.tensor([True])))
    assert_close(linked, kernels(golden["f1/stage2/object_feats_track"]))
    first = linking(current, PreviousKernels(previous, torch.tensor([False])))
    assert torch.equal(first, current)


@pytest.mark.parametrize("frame", ["f0", "f1"])
@torch.no_grad()
def test_the_association_embedding_gives_the_authors_numbers(golden, frame):
    embedding = AssociationEmbedding(CHANNELS)
    state = {}
    for i, theirs in enumerate(EMBEDDING_NAMES):
        for kind in ("weight", "bias"):
            if theirs and f"w/{theirs}.{kind}" in golden:
                state[f"layers.{i}.{kind}"] = golden[f"w/{theirs}.{kind}"]
    embedding.load_state_dict(state)
    out = embedding(kernels(golden[f"{frame}/pan/query_output"])[0])
    assert_close(out, golden[f"{frame}/track/track_feats"])


@pytest.mark.parametrize("tag", ["small_k1r0", "small_k2r1"])
def test_the_association_losses_give_the_authors_numbers(golden, tag):
    key, reference, same, rows, track, aux = (
        golden[f"train/{tag}/{name}"]
        for name in (
            "track/key",
            "track/ref",
            "track/t",
            "track/w",
            "loss/loss_track",
            "loss/loss_track_aux",
        )
    )
    assert torch.equal(rows > 0, same.bool().any(1))
    assert 0.25 * track_loss(key, reference, same.bool()).item() == pytest.approx(
        track.item(), rel=1e-5
    )
    assert track_aux_loss(key, reference, same.bool()).item() == pytest.approx(aux.item(), rel=1e-5)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of the largest value."""
    scale = theirs.abs().max()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(scale))
