"""The weighted losses of a batch, for each task."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import golden
import host_device
import numpy as np
import pytest
import torch
from networks import small_config
from torch import Tensor
from training_runs import (
    MODELS,
    ROAD,
    SKY,
    VEHICLE,
    VOID,
    clip,
    criterion_of,
    inputs,
    instance_targets,
    lean_semantic,
    pair_losses,
    small_model,
    street_labels,
)

from video_knet_core.data.pairs import FramePair
from video_knet_core.model.heads import HeadOutput
from video_knet_core.model.kernels import StageOutput
from video_knet_core.model.video_knet import Prediction, VideoKNet
from video_knet_core.training.criterion import Criterion, Total
from video_knet_core.training.matching import Match
from video_knet_core.training.optimization import trained
from video_knet_core.training.pair_step import PairLosses, predict_pairs
from video_knet_core.training.targets import IGNORE, class_targets, frame_targets, stack_targets
from video_knet_core.training.train_config import (
    LossWeights,
)
from video_knet_core.types import SOME_STUFF, ClassTable


def summed(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_a_frame_without_any_segment_of_a_network_without_stuff():
    """As in video instance segmentation: only things are labelled, and there may be none."""
    rows = [{**row, "is_thing": True} for row in small_config().classes.to_rows()]
    config = replace(small_config(), classes=ClassTable.from_rows(rows))
    empty = np.full((64, 96), VOID, np.uint8), np.zeros((64, 96), np.int32)
    targets = stack_targets([frame_targets(*empty, config.classes, stride=2, rank_stride=4)])
    assert targets.masks.shape == (1, 0, 32, 48)
    assert (targets.owners == IGNORE).all()
    prediction, _ = VideoKNet(config).train()(torch.rand(1, 3, 64, 96) * 255)
    losses = Criterion(LossWeights(), len(rows))(prediction, targets, 1)
    assert all(value.isfinite() for value in losses.values())


def test_masks_that_are_right_at_a_finer_grid_cost_nothing_there():
    """The network's masks are stretched to the grid of the targets, and no further."""
    semantic, instance = street_labels()
    semantic[:], instance[:] = ROAD, 0
    semantic[:, :16], instance[:, :16] = VEHICLE, 5
    classes = small_config().classes
    targets = stack_targets([frame_targets(semantic, instance, classes, 2, rank_stride=4)])
    vehicle = torch.where(torch.arange(8) < 4, 30.0, -30.0).expand(1, 1, 4, 8)
    masks = torch.cat((vehicle, vehicle.expand(-1, 8, -1, -1)), 1)
    masks[:, 1] = -vehicle[:, 0]  # road
    kernels, logits = torch.zeros(1, 9, 4), torch.zeros(1, 9, 11)
    head = HeadOutput(torch.zeros(1, 4, 4, 8), kernels, masks, torch.zeros(1, 11, 4, 8))
    stage = StageOutput(kernels, kernels[:, :1], logits, masks)
    prediction = Prediction(head, (stage,), torch.zeros(1, 1, 4))
    losses = Criterion(LossWeights(), thing_classes=3)(prediction, targets, 1)
    for part in ("head", "stage0"):
        assert losses[f"key_{part}_mask"] < 1e-3 and losses[f"key_{part}_dice"] < 1e-2
    assert targets.masks.shape[-2:] == (8, 16)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_losses_of_each_task_fall(task):
    model = lean_semantic() if task == "semantic" else small_model(task)
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    batch = inputs(model, clip(model))
    totals = []
    for _ in range(9):
        losses = pair_losses(network, batch)
        optimizer.zero_grad()
        total = summed(losses)
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]
    assert all(parameter.grad is not None for _, parameter in trained(network))
    assert ("track" in losses) == (task != "semantic")


@pytest.mark.slow
@pytest.mark.parametrize("task", list(MODELS))
def test_a_step_on_a_device_needs_nothing_beside_it(task, monkeypatch):
    """Losses and gradients of a network on a device, which no tensor of the host may meet."""
    model = lean_semantic() if task == "semantic" else small_model(task)
    images, targets = inputs(model, clip(model), batch=2)
    weights = {"stage_rank": 0.5, "balance": 0.5}
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    losses = pair_losses(network, (images, targets), **weights)
    summed(losses).backward()
    expected = {name: parameter.grad for name, parameter in trained(network)}
    torch.manual_seed(0)
    there = host_device.moved(VideoKNet(model).train())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # lacks this device
    with host_device.in_use(monkeypatch):
        images = images.to(host_device.DEVICE)
        targets = type(targets)(*(tensor.to(host_device.DEVICE) for tensor in targets))
        found = pair_losses(there, (images, targets), **weights)
        summed(found).backward()
    assert {name: loss.host.item() for name, loss in found.items()} == {
        name: loss.item() for name, loss in losses.items()
    }
    for name, parameter in trained(there):
        torch.testing.assert_close(parameter.grad.host, expected[name], msg=name)


def test_the_device_rejects_a_tensor_of_the_host(monkeypatch):
    with host_device.in_use(monkeypatch):
        there = torch.ones(3, device=host_device.DEVICE)
        assert (there + torch.tensor(1.0)).host.tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 2])].host.tolist() == [1, 1]
        for wrong in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3)[torch.zeros(2, dtype=torch.int64, device=there.device)],
            lambda: torch.ones(3).index_put((torch.tensor([0]),), there[:1]),
            lambda: there.index_put((torch.tensor([0, 1]),), torch.ones(2)),
        ):
            with pytest.raises(RuntimeError, match="are not on the device"):
                wrong()


def test_losses_of_a_semantic_network_by_name():
    model = small_model("semantic")
    losses = pair_losses(VideoKNet(model).train(), inputs(model, clip(model)), semantic=2.0)
    parts = ["head", "stage0", "stage1", "stage2", "auxiliary"]
    assert set(losses) == {f"{s}_{p}_semantic" for s in ("key", "reference") for p in parts}
    weight = (losses["key_head_semantic"] / losses["key_auxiliary_semantic"]).item()
    assert weight == pytest.approx(2.0 / 0.4, rel=0.5), "at the start all maps are similar"


def test_a_plain_decoder_learns_with_its_head_alone():
    model = small_model("semantic", "street_deeplabv3plus_lite0", stages=0)
    network = VideoKNet(model).train()
    losses = pair_losses(network, inputs(model, clip(model)))
    assert {name.split("_", 1)[1] for name in losses} == {"head_semantic", "auxiliary_semantic"}
    summed(losses).backward()
    assert all(parameter.grad is not None for _, parameter in trained(network))


def test_class_kernels_learn_from_temporal_context():
    """The key frame gets the reference's kernels, so fusion and linking have gradients."""
    model = small_model("semantic")
    network = VideoKNet(model).train()
    losses = pair_losses(network, inputs(model, clip(model)))
    losses["key_stage2_semantic"].backward()
    last = network.stages[-1]
    for part in (last.fusion, last.linking):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters() if p.dim() > 1)


@pytest.mark.parametrize("task", list(MODELS))
def test_the_losses_of_the_last_stage_alone_are_those_it_has_among_all(task):
    model = lean_semantic() if task == "semantic" else small_model(task)
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    images, targets = inputs(model, clip(model), batch=2)
    with torch.no_grad():
        prediction = predict_pairs(network, images)
    weights = {"stage_rank": 0.5, "balance": 0.5}
    every = criterion_of(model, **weights)(prediction, targets, 2)
    last = criterion_of(model, first=model.kernels.stages, **weights)(prediction, targets, 2)
    expected = {name for name in every if "_stage2_" in name or name.startswith("track")}
    assert set(last) == expected and len(expected) >= 2
    for name, loss in last.items():
        assert loss.item() == pytest.approx(every[name].item(), rel=1e-6, abs=1e-9), name


def test_a_clip_counts_as_much_as_a_pair_and_each_of_its_frames_equally():
    """A clip that shows each frame of a pair twice, both times with the same prediction."""
    model = small_model("panoptic")
    torch.manual_seed(0)
    network, pair = VideoKNet(model).eval(), clip(model)
    for module in (network, *network.stages):
        module.training = True
    twice = [np.repeat(part, 2, 0) for part in (pair.images, pair.semantic, pair.instance)]
    found = []
    for frames in (pair, FramePair(*twice)):
        images, targets = inputs(model, frames)
        with torch.no_grad():
            prediction = network(images[0].float())[0]
        found.append(criterion_of(model)(prediction, targets, len(images[0])))
    for name, loss in found[0].items():
        if name.startswith("key_"):
            other = name.replace("key_", "reference_")
            both = [values[name] + values[other] for values in found]
            assert both[0].item() == pytest.approx(both[1].item(), rel=1e-4, abs=1e-6), name
            assert found[1][name].item() == pytest.approx(loss.item() / 2, rel=1e-4, abs=1e-6)


def test_objects_that_were_gone_are_associated_over_the_gap():
    """Of three frames the object is in the first and the last: with opposite embeddings that
    costs, with equal ones hardly; what the frame between has there does not matter."""
    semantic, instance = street_labels()
    gone = np.where(instance, np.uint8(ROAD), semantic), np.zeros_like(instance)
    classes = small_config().classes
    frames = [frame_targets(*labels, classes, 4) for labels in ((semantic, instance), gone)]
    targets = stack_targets([frames[0], frames[1], frames[0]])
    criterion = Criterion(LossWeights(), thing_classes=3)
    kernel = torch.tensor([1.0, 2.0])

    def losses(last: Tensor, between: Tensor) -> dict[str, Tensor]:
        embeddings = torch.stack((kernel, between, last))[:, None]  # [3,1,2]
        match = Match(*torch.tensor([[0, 2], [0, 0], [0, 0]]))
        return criterion._association_losses(embeddings, match, targets, 3)

    near, far = (losses(sign * kernel, kernel)["track_aux"].item() for sign in (1, -1))
    assert near < 1e-6 < far
    assert losses(-kernel, -9 * kernel)["track_aux"].item() == far


def semantic_reference() -> VideoKNet:
    """A semantic network without layers that mix images or draw random numbers."""
    torch.manual_seed(0)
    config = golden.small_config()
    rows = [{**row, "is_thing": False} for row in config.classes.to_rows()]
    kernels = replace(config.kernels, things=0, embedding=False, linking="ffn", fusion="link_atten")
    model = replace(
        config,
        task="semantic",
        classes=ClassTable.from_rows(rows),
        kernels=kernels,
        panoptic=replace(config.panoptic, merge="fast"),
        height=64,
        width=96,
    )
    network = VideoKNet(model).train()
    network.head.dropout.p = 0.0
    return network


class TwoProcesses:
    """Two threads in place of processes; `total` sums over both."""

    def __init__(self) -> None:
        self.barrier, self.found = threading.Barrier(2, timeout=60), {}

    def total(self, values: Tensor) -> Tensor:
        self.found[threading.get_ident()] = values
        self.barrier.wait()
        result = torch.stack(list(self.found.values())).sum(0)
        self.barrier.wait()
        return result

    def run(self, function, *arguments) -> list:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, *arguments))


def test_two_processes_give_the_gradients_of_one_in_task_semantic():
    """Balanced classes that differ by process: sums are over both."""
    network = semantic_reference()
    classes = network.config.classes
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (2, 2, 3, 64, 96), np.uint8))
    maps = rng.integers(0, 4, (2, 2, 16, 24), np.uint8)
    maps[1] += 3
    maps[1, 0, :4] = VOID
    maps = maps.repeat(4, 2).repeat(4, 3)

    def gradient(rows: slice, total: Total) -> Tensor:
        targets = [class_targets(m, classes, 4) for side in (0, 1) for m in maps[rows, side]]
        criterion = criterion_of(network.config, total, balance=0.5)
        losses = PairLosses(network, criterion)(
            images[rows], stack_targets(targets), images.shape[1]
        )
        weights = network.head.classifier.weight, network.stages[-1].mask_head[-1].weight
        grads = torch.autograd.grad(summed(losses), weights)
        return torch.cat([g.flatten() for g in grads])

    whole, two = gradient(slice(2), torch.clone), TwoProcesses()
    parts = two.run(gradient, (slice(1), slice(1, 2)), [two.total] * 2)
    assert not torch.allclose(parts[0], parts[1])
    # the mean over the cells of a batch is that of half as many in each
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("background", [False, True])
def test_losses_of_two_processes_add_up_when_one_has_no_objects(background):
    """The second has no masks, no positives and no known cell; both compute the same sums."""
    classes = small_model("instance" if background else "panoptic").classes
    semantic, instance = street_labels()
    if background:
        semantic[:] = np.where(semantic == VEHICLE, 2, VOID)
    nothing = np.full_like(semantic, VOID), np.zeros_like(instance)
    frames = [
        frame_targets(*labels, classes, 4, background=background)
        for labels in ((semantic, instance), nothing)
    ]
    generator = torch.Generator().manual_seed(0)
    things, count = 5, len(classes)
    kernels = things + len(classes.stuff)
    masks = torch.randn(2, kernels, 4, 8, generator=generator)
    scores = torch.randn(2, kernels, count, generator=generator)

    def gradient(rows: slice, total: Total) -> Tensor:
        weight = torch.ones((), requires_grad=True)
        own, of_class = (weight * masks)[rows], (weight * scores)[rows]
        none = own.new_zeros(len(own), kernels, 4)
        head = HeadOutput(none, none, own, own[:, :count])
        stage = StageOutput(none, none[:, :things], of_class, own)
        prediction = Prediction(head, (stage, stage), none[:, :things])
        criterion = Criterion(LossWeights(balance=0.5), len(classes.things), background, total)
        losses = criterion(prediction, stack_targets(frames[rows]), 1)
        return torch.autograd.grad(summed(losses), weight)[0]

    whole, two = gradient(slice(2), torch.clone), TwoProcesses()
    parts = two.run(gradient, (slice(1), slice(1, 2)), [two.total] * 2)
    assert not torch.isclose(parts[0], parts[1])
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_background_teaches_the_head_that_there_is_nothing():
    """Logits that call everything a vehicle cost more where nothing is than where one is."""
    targets = stack_targets([instance_targets()])
    logits = torch.full((1, 3, 8, 8), -4.0, requires_grad=True)
    kernels = torch.zeros(1, 4, 4)
    head = HeadOutput(kernels, kernels, torch.zeros(1, 4, 8, 8), logits)
    stage = StageOutput(kernels, kernels, torch.zeros(1, 4, 3), torch.zeros(1, 4, 8, 8))
    criterion = criterion_of(small_model("instance"))
    losses = criterion(Prediction(head, (stage,), kernels), targets, 1)
    losses["key_head_semantic"].backward()
    vehicle = logits.grad[0, 2]
    assert vehicle[0, 0] > 0, "less of it where nothing is"
    assert vehicle[3, 3] < 0, "more of it where one is"
    assert vehicle[7, 0] < 0, "also in a crowd"


def test_what_lies_on_unlabelled_cells_is_neither_a_thing_nor_nothing():
    """Of a frame where one half is labelled: seeds and kernels of the other half learn nothing."""
    model = VideoKNet(small_model("panoptic")).train()
    labels = np.full((64, 96), VOID, np.uint8)
    labels[:, :48] = ROAD
    frame = frame_targets(labels, np.zeros((64, 96), np.int32), model.config.classes, 4)
    targets = stack_targets([frame])
    prediction, _ = model(torch.rand(1, 3, 64, 96) * 255)
    slots = prediction.mask_logits.detach().clone().fill_(-9.0)
    slots[:, 0, :, slots.shape[3] // 2 :] = 9.0  # on unlabelled cells
    slots[:, 1, :, : slots.shape[3] // 2] = 9.0  # on the road
    logits = prediction.class_logits.detach().clone().requires_grad_()
    heat = prediction.head.seeds.heat.detach().clone().requires_grad_()
    head = prediction.head._replace(seeds=prediction.head.seeds._replace(heat=heat))
    stages = tuple(s._replace(mask_logits=slots, class_logits=logits) for s in prediction.stages)
    losses = Criterion(LossWeights(), len(model.config.classes.things))(
        replace(prediction, head=head, stages=stages), targets, 1
    )
    summed(losses).backward()
    taught = logits.grad[0].abs().sum(1) > 0
    assert not taught[0]
    assert taught[1:].all()
    half = heat.shape[3] // 2
    assert not heat.grad[..., half:].any()
    assert heat.grad[..., :half].all()


def test_where_stuff_has_no_known_class_things_learn_that_they_are_not_there():
    """Of a frame that is road at the right, and some stuff at the left."""
    model = VideoKNet(small_model("panoptic")).train()
    classes = model.config.classes
    labels = np.full((64, 96), ROAD, np.uint8)
    labels[:, :48] = SOME_STUFF
    frame = frame_targets(labels, np.zeros((64, 96), np.int32), classes, 4)
    assert frame.valid.all() and frame.some_stuff.sum() * 2 == frame.valid.sum()
    targets, things = stack_targets([frame]), len(classes.things)
    prediction, _ = model(torch.rand(1, 3, 64, 96) * 255)
    slots = prediction.mask_logits.detach().clone().fill_(-9.0)
    half = slots.shape[3] // 2
    road, sky = (model.config.kernels.things + classes.stuff.index(label) for label in (ROAD, SKY))
    slots[:, [0, road, sky], :, :half] = 1.0
    slots.requires_grad_()
    logits = prediction.class_logits.detach().clone().requires_grad_()
    semantic = prediction.head.semantic_logits.detach().clone().requires_grad_()
    head = prediction.head._replace(semantic_logits=semantic)
    stages = tuple(s._replace(mask_logits=slots, class_logits=logits) for s in prediction.stages)
    changed = replace(prediction, head=head, stages=stages)
    losses = Criterion(LossWeights(stage_rank=0.0), things)(changed, targets, 1)
    summed(losses).backward()
    left, right = slots.grad[0, road, :, :half], slots.grad[0, road, :, half:]
    assert not left.any(), "it may be road"
    assert right.all(), "it is road here"
    taught = logits.grad[0].abs().sum(1) > 0
    assert taught[0], "no thing is here"
    assert not taught[sky], "it may be sky"
    left = semantic.grad[0, :, :, : semantic.shape[3] // 2]
    assert (left[:things] > 0).all() and (left[things:] < 0).all()
    ranked = Criterion(LossWeights(), things)(changed, targets, 1)["key_stage1_rank"]
    (gradient,) = torch.autograd.grad(ranked, slots)
    assert (gradient[0, 0, :, :half] > 0).all() and (gradient[0, sky, :, :half] < 0).all()
