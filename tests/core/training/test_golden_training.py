"""Training is the authors', number for number: assignments, losses and gradients."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from golden import IMAGE_SIZE, golden, image, seeded, small_config, small_weights
from torch import Tensor

from video_knet_core.model.official import import_official, translate
from video_knet_core.training.criterion import Criterion, part_masks
from video_knet_core.training.matching import Match
from video_knet_core.training.pair_step import predict_pairs
from video_knet_core.training.targets import FrameTargets, frame_targets, stack_targets
from video_knet_core.training.train_config import LossWeights

RUNS = {"small_k1r0": (1, 0), "small_k2r1": (2, 1), "seed0_k1r0": (1, 0)}
SIDES = {"key": ("", ""), "reference": ("_ref", "_ref_rpn")}
"""How the authors mark the losses of a side, those of the stages and those of the kernel head."""
HEAD = {"mask": "mask", "dice": "dice", "rank": "rank", "semantic": "seg"}
STAGE = {"mask": "loss_mask", "dice": "loss_dice", "class": "loss_cls"}


@functools.cache
def targets(frame: int) -> FrameTargets:
    truth = golden("small_train")
    instance = np.zeros(truth[f"gt/{frame}/sem"].shape, np.int32)
    height, width = IMAGE_SIZE
    for mask, id_ in zip(truth[f"gt/{frame}/masks"], truth[f"gt/{frame}/ids"], strict=True):
        instance[:height, :width][mask > 0] = id_
    return frame_targets(truth[f"gt/{frame}/sem"], instance, small_config().classes, 2, "touch")


@functools.cache
def trained(run: str):
    """Losses, matches and the network with its gradients after one backward pass."""
    weights = small_weights()
    if run.startswith("seed0"):
        weights = seeded({key: tuple(value.shape) for key, value in weights.items()})
    model = import_official(weights, small_config()).train()
    model.backbone.freeze(1)
    images = torch.stack([image("small", frame) for frame in RUNS[run]])
    criterion = Criterion(LossWeights(stage_rank=0.0), thing_classes=2)
    frames = stack_targets([targets(frame) for frame in RUNS[run]])
    prediction = predict_pairs(model, images[None])
    losses = criterion(prediction, frames, 2)
    torch.stack(list(losses.values())).sum().backward()
    matches = criterion.match(prediction, part_masks(prediction, frames), frames)
    head, *stages = matches
    parts = {"head": head, "stage0": head, "stage1": stages[0], "stage2": stages[1]}
    return losses, parts | {"track": stages[2]}, model


@pytest.mark.parametrize("run", RUNS)
def test_every_loss_is_the_authors(run):
    losses, _, _ = trained(run)
    expected = {"track": "loss_track", "track_aux": "loss_track_aux"}
    for side, (stages, head) in SIDES.items():
        expected |= {f"{side}_head_{n}": f"loss_rpn_{k}{head}" for n, k in HEAD.items()}
        for i in range(3):
            expected |= {f"{side}_stage{i}_{n}": f"s{i}_{k}{stages}" for n, k in STAGE.items()}
    assert set(expected) == set(losses)
    for ours, theirs in expected.items():
        expected = float(golden("small_train")[f"{run}/loss/{theirs}"])
        assert losses[ours].item() == pytest.approx(expected, rel=1e-5, abs=1e-8), ours
    total = float(golden("small_train")[f"{run}/loss/loss"])
    assert sum(loss.item() for loss in losses.values()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("run", RUNS)
def test_every_assignment_is_the_authors(run):
    _, matches, _ = trained(run)
    names = {"head": "rpn_{}", "track": "track_{}"} | {f"stage{i}": f"{{}}_s{i}" for i in range(3)}
    for side, (short, frame) in enumerate(zip(("key", "ref"), RUNS[run], strict=True)):
        for part, name in names.items():
            theirs = golden("small_train")[f"{run}/assign/{name.format(short)}"]
            assert by_id(matches[part], side, frame) == {
                kernel: int(golden("small_train")[f"gt/{frame}/ids"][row - 1])
                for kernel, row in enumerate(theirs.tolist())
                if row
            }, (side, part)


def by_id(match: Match, side: int, frame: int) -> dict[int, int]:
    """Kernel to instance id: we sort instances by class, the recording does not."""
    own = match.frames == side
    ids = targets(frame).ids[match.instances[own]]
    return dict(zip(match.kernels[own].tolist(), ids.tolist(), strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_the_norm_of_every_gradient_is_the_authors(run):
    _, _, model = trained(run)
    gradients = {n: p.grad for n, p in model.named_parameters()}
    root = f"{run}/gradnorm/"
    compared = 0
    for key, value in golden("small_train").items():
        if not key.startswith(root):
            continue
        name, norm = key.removeprefix(root), float(value)
        if norm < 0:  # frozen, or never used
            assert all(gradients[n] is None for n in translate({name: probe(name)})[0])
            continue
        ours = gradient_norm(name, gradients)
        assert ours == pytest.approx(norm, rel=1e-3, abs=1e-7), name
        compared += 1
    assert compared == 333


def gradient_norm(name: str, gradients: dict[str, Tensor | None]) -> float:
    """Norm of our gradient, over the parts that one tensor of theirs became."""
    parts = translate({name: probe(name)})[0]
    found = [gradients[part] for part in parts]
    assert all(g is not None for g in found), name
    return float(torch.stack([g.norm() for g in found if g is not None]).norm())


def probe(name: str) -> Tensor:
    """Something of the right rank to translate the name with."""
    return small_weights()[name]
