"""TCB: the context of past frames, its memory, its losses and its export."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.baseline_config import TCB_CELLS, TCB_MEMORY, BaselineConfig
from baselines.tcb import (
    AUXILIARY_WEIGHT,
    TemporalContextBlending,
    mean_over_time,
    pooled_cells,
)
from video_knet_core.config import BackboneConfig, PanopticConfig
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.checkpoint import load_network_config
from video_knet_core.model.kernels import PreviousKernels
from video_knet_core.model.merge import merge_classes
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.predictor import VideoPredictor
from video_knet_core.training.targets import IGNORE, ClassTargets

MODELS = Path(__file__).parents[2] / "baselines" / "models"
CONFIGS = Path(__file__).parents[2] / "config" / "models"
HEIGHT, WIDTH, CHANNELS, CLASSES = 64, 96, 16, 11
COARSEST = 192
OUTPUTS = ("segment_map", "class_ids", "scores", "areas")


def config_of(**values: object) -> BaselineConfig:
    """That of the street, small."""
    small = BackboneConfig(blocks=(1, 1, 1, 1, 1, 1, 0), output_stride=8)
    sizes = {"height": HEIGHT, "width": WIDTH, "channels": CHANNELS, "backbone": small}
    return replace(load_network_config(MODELS / "street_tcb.yaml"), **sizes | values)


def built(**values: object) -> TemporalContextBlending:
    """Random weights, with which several classes have pixels and past frames matter."""
    torch.manual_seed(0)
    network = TemporalContextBlending(config_of(**values))
    torch.nn.init.normal_(network.classifier.weight)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train().momentum = None  # the plain mean of its inputs
    with torch.no_grad():
        network.clip_logits(network.frames(images(6)).pyramid, 3)
    return network.eval()


@pytest.fixture
def network() -> TemporalContextBlending:
    return built()


@pytest.fixture
def runtime(network: TemporalContextBlending) -> TorchRuntime:
    return TorchRuntime(network)


def images(number: int, seed: int = 1) -> torch.Tensor:
    """[F,3,H,W] RGB 0..255, blocks of random colours."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(number, 3, 4, 6, generator=generator) * 255
    return blocks.repeat_interleave(HEIGHT // 4, 2).repeat_interleave(WIDTH // 6, 3)


def pictures(number: int, seed: int = 1) -> list[NDArray[np.uint8]]:
    """The same as [H,W,3] uint8."""
    return list(images(number, seed).permute(0, 2, 3, 1).to(torch.uint8).numpy())


def run(runtime, frames: Sequence[NDArray[np.uint8]]):
    """The detections of the last frame of a video, and the state after it."""
    state = None
    for frame in frames:
        detections, state = runtime.step(frame, state)
    return detections, state


def equal(first, second) -> bool:
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in OUTPUTS)


def validity(state: NDArray[np.float32]) -> list[float]:
    """Of the memory's entries in a state, the newest first."""
    cells = TCB_MEMORY * TCB_CELLS * COARSEST
    return state.flatten()[cells : cells + TCB_MEMORY].tolist()


def test_cells_are_averaged_over_the_frames_that_are_known():
    cells = torch.tensor([1.0, 3.0, 100.0]).view(1, 3, 1, 1)
    assert mean_over_time(cells, torch.tensor([[1.0, 1.0, 0.0]])).item() == 2
    assert mean_over_time(cells, torch.tensor([[1.0, 0.0, 0.0]])).item() == 1


def test_cells_are_the_means_of_the_parts_of_a_map():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    cells = pooled_cells(ramp)[0, :, 0]
    assert cells[:5].tolist() == pytest.approx([2.5, 1, 4, 1, 4])
    assert cells[5:8].tolist() == pytest.approx([0.5, 2.5, 4.5])
    assert cells[-6:].tolist() == pytest.approx([0, 1, 2, 3, 4, 5])


def test_it_has_the_parameters_of_pspnet(network):
    """The pooling over time is a mean."""
    street = load_network_config(CONFIGS / "street_pspnet_lite0.yaml")
    kernels = replace(street.kernels, stages=0, pooling="mean")
    backbone = network.config.backbone
    pspnet = VideoKNet(
        replace(street, kernels=kernels, neck=replace(street.neck, channels=16), backbone=backbone)
    )
    own, other = (sum(p.numel() for p in m.parameters()) for m in (network, pspnet))
    assert abs(own - other) <= 0.02 * other


def test_a_past_frame_changes_the_result(runtime):
    past, other, now = pictures(3)
    after_past = run(runtime, [past, now])[0]
    assert not equal(after_past, run(runtime, [other, now])[0])
    assert not equal(after_past, run(runtime, [now])[0])


@torch.no_grad()
def test_memory_empties_at_a_cut(network):
    """On a first frame the state counts for nothing, whatever it holds."""
    before, now = images(2)
    state = network.segment_frame(before, None)["kernels"][None]
    cut = network.segment_frame(now, PreviousKernels(state, torch.tensor([False])))
    fresh = network.segment_frame(now, None)
    assert all(torch.equal(cut[name], fresh[name]) for name in OUTPUTS)
    assert validity(cut["kernels"].numpy()) == [1, 0, 0]
    after = [
        network.segment_frame(before, PreviousKernels(x["kernels"][None], torch.tensor([True])))
        for x in (cut, fresh)
    ]
    assert all(torch.equal(after[0][name], after[1][name]) for name in OUTPUTS)


def test_a_reset_gives_the_result_of_a_fresh_first_frame(network):
    before, now = pictures(2)
    used, fresh = (VideoPredictor(TorchRuntime(network)) for _ in range(2))
    used.step(before, 0)
    used.reset()
    assert np.array_equal(used.step(now, 1).semantic_map(), fresh.step(now, 1).semantic_map())


def test_memory_forgets_the_oldest_frame(runtime):
    first, other, *rest = pictures(TCB_MEMORY + 3)
    # of as many frames as the memory has entries, and the current one, the first still counts
    kept = [run(runtime, [start, *rest[:TCB_MEMORY]])[0] for start in (first, other)]
    assert not equal(*kept)
    forgotten = [run(runtime, [start, *rest]) for start in (first, other)]
    assert equal(forgotten[0][0], forgotten[1][0])


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [1, 1, 1])]
)
def test_each_entry_of_the_memory_has_its_validity(runtime, frames, expected):
    assert validity(run(runtime, pictures(frames))[1]) == expected


@torch.no_grad()
def test_older_frames_of_a_clip_are_the_memory_of_newer_ones(network):
    """The logits of a clip of five frames are those of the same frames as a video."""
    clip = images(5)  # the newest first
    together = network.clip_logits(network.frames(clip).pyramid, 5)
    memory = {name: torch.zeros(1, *s) for name, s in network.config.memory_shapes().items()}
    alone: list[torch.Tensor] = []
    network.classifier.register_forward_hook(lambda _, __, logits: alone.insert(0, logits))
    for number, image in enumerate(clip.flip(0)):
        memory = network.infer(image[None], memory, torch.tensor([number > 0]))[1]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_clips_of_a_batch_are_independent(network):
    newest, older = images(2, seed=1), images(2, seed=2)
    together = network.clip_logits(network.frames(torch.cat((newest, older))).pyramid, 2)
    for clip in range(2):
        both = torch.stack((newest[clip], older[clip]))
        alone = network.clip_logits(network.frames(both).pyramid, 2)
        torch.testing.assert_close(together[clip::2], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("upsample", [1, 2])
@torch.no_grad()
def test_map_and_scores_are_those_of_the_merge_of_classes(upsample):
    network, found = built(upsample=upsample), []
    network.classifier.register_forward_hook(lambda _, __, logits: found.append(logits[0]))
    outputs = network.segment_frame(images(1)[0], None)
    merged = merge_classes(found[0], PanopticConfig(upsample=2 * upsample), (HEIGHT, WIDTH))
    assert outputs["segment_map"].shape == (HEIGHT // 4 * upsample, WIDTH // 4 * upsample)
    assert torch.equal(outputs["segment_map"], merged.segment_map)
    assert torch.equal(outputs["areas"], merged.areas)
    torch.testing.assert_close(outputs["scores"], merged.scores)
    assert (merged.areas > 0).sum() > 1


def fixed(network: TemporalContextBlending) -> TemporalContextBlending:
    """All pixels have class 4 with a probability of 1/2; the auxiliary head has equal ones."""
    with torch.no_grad():
        for classifier in (network.classifier, network.auxiliary.classifier):
            classifier.weight.zero_()
            classifier.bias.zero_()
        network.classifier.bias[4] = math.log(CLASSES - 1)
    return network


@torch.no_grad()
def test_score_of_a_class_is_its_mean_probability(network):
    outputs = fixed(network).segment_frame(images(1)[0], None)
    assert (outputs["segment_map"] == 4 + 1).all()
    assert outputs["scores"].tolist() == pytest.approx([0, 0, 0, 0, 0.5, *[0] * 6])
    assert outputs["class_ids"].tolist() == list(range(CLASSES))


@torch.no_grad()
def test_losses_are_cross_entropies_over_known_cells(network):
    goals = torch.full((2, HEIGHT // 4, WIDTH // 4), 4)
    goals[:, : HEIGHT // 8] = IGNORE
    losses = fixed(network).losses(network.frames(images(2)), ClassTargets(goals), 2)
    expected = {
        "semantic": math.log(2) / 2,
        "auxiliary": AUXILIARY_WEIGHT * math.log(CLASSES) / 2,
    }
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected)


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_losses_are_finite_and_all_heads_learn_with_a_frozen_backbone(network, sides):
    with torch.no_grad():
        frames = network.frames(images(2 * sides))
    goals = torch.arange(CLASSES).repeat(2 * sides * 24 * 16)[: 2 * sides * 24 * 16]
    losses = network.train().losses(frames, ClassTargets(goals.view(-1, 16, 24)), sides)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    heads = {n: p.grad for n, p in network.named_parameters() if not n.startswith("backbone")}
    assert [n for n, grad in heads.items() if grad is None or not grad.any()] == []


def test_gradients_reach_the_memory_of_a_clip(network):
    with torch.no_grad():
        frames = network.frames(images(2))
    pyramid = tuple(level.requires_grad_() for level in frames.pyramid)
    network.clip_logits(pyramid, 2)[0].sum().backward()
    assert pyramid[-1].grad[1].any()


def test_onnx_runtime_gives_the_same_over_frames(network, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from video_knet_core.engine.export import export_onnx
    from video_knet_core.engine.onnx_runtime import OnnxRuntime

    export_onnx(network, tmp_path / "tcb.onnx", "tcb")
    engines = TorchRuntime(network), OnnxRuntime(tmp_path / "tcb.onnx", threads=1)
    states: list = [None, None]
    for picture in pictures(3):
        results = [e.step(picture, s) for e, s in zip(engines, states, strict=True)]
        (torch_frame, onnx_frame), states = ([r[i] for r in results] for i in range(2))
        assert np.mean(torch_frame.segment_map == onnx_frame.segment_map) > 0.999
        np.testing.assert_allclose(torch_frame.scores, onnx_frame.scores, atol=1e-3)
        np.testing.assert_allclose(*states, atol=1e-3)
        assert len(np.unique(torch_frame.segment_map)) > 1


def test_published_network_has_the_classes_of_vspw():
    config = load_network_config(MODELS / "tcb_r101.yaml")
    assert len(config.classes.stuff) == config.slots == 124
    numbers = TCB_MEMORY * (TCB_CELLS * 2048 + 1)
    assert config.state_shape(config.sizes[0]) == (124, math.ceil(numbers / 124))


@torch.no_grad()
def test_rare_classes_count_more_where_the_run_balances_them(network):
    goals = torch.full((2, HEIGHT // 4, WIDTH // 4), 4)
    goals[:, 0, 0] = 5  # which the fixed network never finds
    frames = fixed(network).frames(images(2))
    plain = network.losses(frames, ClassTargets(goals), 2)["semantic"]
    network.balance = 1.0
    balanced = network.losses(frames, ClassTargets(goals), 2)["semantic"]
    rare = math.log(2 * (CLASSES - 1))
    assert balanced.item() == pytest.approx((math.log(2) + rare) / 2, rel=1e-4)
    assert plain < balanced
