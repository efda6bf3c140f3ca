"""All losses of one frame against the numbers of the authors' training code.

Their rule for cells that several segments touch differs from ours (any touch counts, the later
segment wins), so the targets are built here by theirs; the losses are the same functions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from video_knet_core.model.kernels import HeadOutput, StageOutput
from video_knet_core.model.video_knet import Prediction
from video_knet_core.training.criterion import Criterion, LossWeights
from video_knet_core.training.targets import IGNORE, FrameTargets

GOLDEN = Path(__file__).parents[1] / "fixtures" / "video_knet_golden.npz"
PERSON, CAR, IGNORED = 11, 13, 255
STUFF = [c for c in range(19) if c not in (PERSON, CAR)]
HEAD_NAMES = {"mask": "mask", "dice": "dice", "rank": "rank", "semantic": "seg"}
STAGE_NAMES = {"mask": "loss_mask", "dice": "loss_dice", "class": "loss_cls"}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file.files}


def soft(masks: np.ndarray) -> Tensor:
    """[n,124,250] masks, padded to 128 x 256, at half the size."""
    padded = np.zeros((1, len(masks), 128, 256), np.float32)
    padded[0, :, : masks.shape[1], : masks.shape[2]] = masks
    return interpolate(torch.from_numpy(padded), scale_factor=0.5, mode="bilinear")[0]


def targets(golden: dict[str, np.ndarray]) -> FrameTargets:
    things = soft(golden["gt/0/masks"])
    stuff = soft(np.stack([golden["gt/0/sem"] == c for c in STUFF]))
    labels = torch.from_numpy(golden["gt/0/labels"].astype(np.int64))
    owners = torch.full(things.shape[1:], IGNORE)
    semantic = owners.clone()
    for j, mask in enumerate(stuff):
        owners[mask > 0], semantic[mask > 0] = len(things) + j, 2 + j
    for i, mask in enumerate(things):
        owners[mask > 0], semantic[mask > 0] = i, labels[i]
    valid = torch.ones(things.shape[1:])
    return FrameTargets(things, labels, torch.arange(len(labels)), stuff, owners, semantic, valid)


def prediction(golden: dict[str, np.ndarray]) -> Prediction:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(golden[f"f0/{name}"].astype(np.float32))

    nothing = torch.zeros(0)
    head = HeadOutput(nothing, nothing, tensor("rpn/init_mask_preds"), tensor("rpn/seg_preds"))
    stages = [
        StageOutput(nothing, tensor(f"stage{i}/cls_score"), tensor(f"stage{i}/mask_preds"))
        for i in range(3)
    ]
    return Prediction(head, tuple(stages), torch.zeros(1, 20, 8))


def test_every_frame_loss_and_the_last_assignment_are_the_authors(golden):
    criterion = Criterion(LossWeights(), thing_classes=2)
    found, (match,) = criterion.frames(prediction(golden), [targets(golden)])
    wanted = {f"head_{n}": f"loss_rpn_{k}_ref_rpn" for n, k in HEAD_NAMES.items()}
    wanted |= {f"stage{i}_{n}": f"s{i}_{k}_ref" for i in range(3) for n, k in STAGE_NAMES.items()}
    for ours, theirs in wanted.items():
        expected = float(golden[f"train/small_k1r0/loss/{theirs}"])
        assert found[ours].item() == pytest.approx(expected, rel=1e-4), ours
    assignment = golden["train/small_k1r0/assign/track_ref"]
    pairs = zip(match.kernels.tolist(), match.instances.tolist(), strict=True)
    assert dict(pairs) == {int(k): int(assignment[k]) - 1 for k in np.flatnonzero(assignment)}
