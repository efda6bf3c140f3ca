"""From predictions and targets to the weighted losses of a training step.

`Criterion` is that of the tasks panoptic and instance; for semantic see `semantic_criterion.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..model.position import position_code
from ..model.video_knet import Prediction
from . import losses
from .matching import Match, match_instances
from .targets import IGNORE, FrameTargets
from .train_config import LossWeights


class Criterion:
    """Losses of frames and of frame pairs; targets may be finer than the masks.

    Args:
        weights: what each loss counts.
        thing_classes: how many; they are the first class columns.
        background: cells may be of no class (task instance). Then the head's classes are learned
            one by one, by focal loss, as the authors have it there; otherwise one must win.
    """

    def __init__(self, weights: LossWeights, thing_classes: int, background: bool = False) -> None:
        self.weights = weights
        self.thing_classes = thing_classes
        self.background = background

    def frames(
        self, prediction: Prediction, targets: Sequence[FrameTargets]
    ) -> tuple[dict[str, Tensor], dict[str, list[Match]]]:
        """Losses of B frames, and the B matches of each part: "head", "stage0" .. and "track".

        Stage i learns with the assignment that the masks before it gave; the association embedding
        with that of the last stage.
        """
        size = targets[0].owners.shape
        things = prediction.embeddings.shape[1]
        masks = resize_logits(prediction.head.mask_logits, size)[:, :things]
        seeds = prediction.head.seeds
        # a hot seed goes first, as a sure class does in the stages
        sure = None if seeds is None else seeds.logits[..., None].expand(-1, -1, self.thing_classes)
        matches = {"head": self._match(masks, sure, targets)}
        current = matches["head"]
        semantic = resize_logits(prediction.head.semantic_logits, size)
        out = _prefixed("head", self._head(masks, semantic, targets, current))
        if prediction.head.centers is not None:
            out["head_center"] = self._centers(
                resize_logits(prediction.head.centers, size), targets
            )
        if seeds is not None:
            out["head_heat"] = self._heat(seeds.heat[:, 0].float(), targets)
        for i, stage in enumerate(prediction.stages):
            masks = resize_logits(stage.mask_logits, size)
            assert stage.class_logits is not None, "a network in training classifies in each stage"
            class_logits = stage.class_logits.float()
            matches[f"stage{i}"] = current
            out |= _prefixed(f"stage{i}", self._stage(masks, class_logits, targets, current))
            current = self._match(masks[:, :things], class_logits, targets)
        return out, matches | {"track": current}

    def pairs(
        self,
        key: tuple[Tensor, Sequence[Match], Sequence[FrameTargets]],
        reference: tuple[Tensor, Sequence[Match], Sequence[FrameTargets]],
    ) -> dict[str, Tensor]:
        """Association losses of B pairs; each side is embeddings [B,P,E], matches and targets."""
        sums: dict[str, Tensor] = defaultdict(lambda: key[0].sum() * 0)
        for a, match_a, frame_a, b, match_b, frame_b in zip(*key, *reference, strict=True):
            same = frame_a.ids[match_a.instances][:, None] == frame_b.ids[match_b.instances][None]
            pair = (a[match_a.kernels].float(), b[match_b.kernels].float(), same)
            sums["track"] = sums["track"] + self.weights.track * losses.track_loss(*pair)
            sums["track_aux"] = sums["track_aux"] + self.weights.track_aux * losses.track_aux_loss(
                *pair
            )
        return {name: total / len(key[0]) for name, total in sums.items()}

    def _match(
        self, masks: Tensor, class_logits: Tensor | None, targets: Sequence[FrameTargets]
    ) -> list[Match]:
        things, size = masks.shape[1], masks.shape[-2:]
        if not masks.isfinite().all():
            raise FloatingPointError("the network's mask logits are not finite: training diverged")
        return [
            match_instances(
                masks[i],
                None if class_logits is None else class_logits[i, :things, : self.thing_classes],
                _shrink(t.masks, size),
                t.classes,
                _shrink(t.valid[None], size)[0],
            )
            for i, t in enumerate(targets)
        ]

    def _head(
        self,
        masks: Tensor,
        semantic: Tensor,
        targets: Sequence[FrameTargets],
        matches: Sequence[Match],
    ) -> dict[str, Tensor]:
        """Thing masks by mask, dice and rank; the semantic map by class."""
        chosen = torch.cat([m.kernels + i * masks.shape[1] for i, m in enumerate(matches)])
        goals = [t.masks[m.instances] for t, m in zip(targets, matches, strict=True)]
        owners = [_slots(t, m, None) for t, m in zip(targets, matches, strict=True)]
        balance = self.weights.balance
        return self._mask_losses(masks.flatten(0, 1)[chosen], goals, targets) | {
            "rank": self.weights.rank * losses.rank_loss(masks, torch.stack(owners), balance),
            "semantic": self.weights.semantic * self._semantic(semantic, targets),
        }

    def _semantic(self, logits: Tensor, targets: Sequence[FrameTargets]) -> Tensor:
        classes = torch.stack([t.semantic for t in targets])
        if not self.background:
            return losses.semantic_loss(logits, classes, self.weights.balance)
        known = torch.stack([_shrink(t.valid[None], t.semantic.shape)[0] for t in targets])
        return losses.class_map_loss(logits, classes, known)

    def _centers(self, codes: Tensor, targets: Sequence[FrameTargets]) -> Tensor:
        each = [
            losses.center_loss(code, position_code(*t.centers), t.owners, self.weights.balance)
            for code, t in zip(codes, targets, strict=True)
        ]
        return self.weights.center * torch.stack(each).mean()

    def _heat(self, logits: Tensor, targets: Sequence[FrameTargets]) -> Tensor:
        height, width = logits.shape[1:]
        each = [
            losses.heat_loss(heat, t.heat(height, width))
            for heat, t in zip(logits, targets, strict=True)
        ]
        return self.weights.heat * torch.stack(each).mean()

    def _stage(
        self,
        masks: Tensor,
        class_logits: Tensor,
        targets: Sequence[FrameTargets],
        matches: Sequence[Match],
    ) -> dict[str, Tensor]:
        """Matched things and present stuff by mask, dice and rank; all kernels by class."""
        kernels = masks.shape[1]
        things = kernels - len(targets[0].stuff_masks)
        chosen, goals, owners = [], [], []
        for i, (target, match) in enumerate(zip(targets, matches, strict=True)):
            stuff = target.stuff_present.nonzero()[:, 0]
            chosen.append(torch.cat((match.kernels, things + stuff)) + i * kernels)
            goals.append(torch.cat((target.masks[match.instances], target.stuff_masks[stuff])))
            owners.append(_slots(target, match, things))
        positives = torch.cat(chosen)
        labels, weights = self._class_targets(class_logits, targets, matches, things)
        focal = losses.class_loss(class_logits, labels, weights, len(positives))
        out = self._mask_losses(masks.flatten(0, 1)[positives], goals, targets)
        out["class"] = self.weights.classification * focal
        if self.weights.stage_rank:
            rank = losses.rank_loss(masks, torch.stack(owners), self.weights.balance)
            out["rank"] = self.weights.stage_rank * rank
        return out

    def _mask_losses(
        self, predicted: Tensor, wanted: list[Tensor], targets: Sequence[FrameTargets]
    ) -> dict[str, Tensor]:
        valid = torch.cat([t.valid.expand_as(w) for t, w in zip(targets, wanted, strict=True)])
        goals = torch.cat(wanted)
        predicted = resize_logits(predicted[None], goals.shape[-2:])[0]
        return {
            "mask": self.weights.mask * losses.mask_loss(predicted, goals, valid),
            "dice": self.weights.dice * losses.dice_loss(predicted, goals, valid),
        }

    def _class_targets(
        self, logits: Tensor, targets: Sequence[FrameTargets], matches: Sequence[Match], things: int
    ) -> tuple[Tensor, Tensor]:
        """[B,N,K] goals and weights: thing rows learn thing columns, stuff row j only its own."""
        goals, weights = torch.zeros_like(logits), torch.zeros_like(logits)
        weights[:, :things, : self.thing_classes] = 1
        weights[:, things:, self.thing_classes :] = torch.eye(
            logits.shape[1] - things, device=logits.device
        )
        for goal, target, match in zip(goals, targets, matches, strict=True):
            goal[match.kernels, target.classes[match.instances]] = 1
            goal[things:, self.thing_classes :].diagonal().copy_(target.stuff_present)
        return goals, weights


def _slots(target: FrameTargets, match: Match, first_stuff: int | None) -> Tensor:
    """[h,w] the slot that must win each cell; without `first_stuff`, stuff cells are ignored."""
    stuff = len(target.stuff_masks)
    slot_of = torch.full((len(target.masks) + stuff + 1,), IGNORE, device=target.owners.device)
    slot_of[match.instances] = match.kernels
    if first_stuff is not None:
        slot_of[-1 - stuff : -1] = first_stuff + torch.arange(stuff, device=slot_of.device)
    return slot_of[target.owners.clamp(min=-1)]  # IGNORE reads the last entry


def _prefixed(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def resize_logits(logits: Tensor, size: torch.Size) -> Tensor:
    """[..,h,w] in float32, stretched to `size`."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    if not logits.numel():
        return logits.new_zeros(*logits.shape[:-2], *size) + logits.sum()
    return interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _shrink(shares: Tensor, size: torch.Size) -> Tensor:
    """Shares of cells [M,h,w] of a grid as shares of the larger cells of another."""
    if shares.shape[-2:] == size or not shares.numel():
        return shares
    return interpolate(shares[None], size=size, mode="area")[0]
