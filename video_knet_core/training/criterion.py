"""From predictions and targets of a batch to the weighted losses of a training step.

A batch holds the frames of each side in turn: B key frames, then B reference frames if there are
pairs; longer clips have more sides of B frames, from newer to older. A part of the network is its
kernel head (0) or a stage (1, 2, ...). Nothing here goes frame by frame: the masks that all parts
learn in all frames are one batch [M,h,w].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..model.kernels import StageOutput
from ..model.position import position_code
from ..model.video_knet import Prediction
from . import losses
from .matching import Match, match_instances
from .targets import ANY_STUFF, IGNORE, ClassTargets, FrameTargets
from .train_config import LossWeights

Total = Callable[[Tensor], Tensor]
"""Sum of a tensor over all processes that train together."""
BatchCriterion = Callable[[Prediction, Any, int], dict[str, Tensor]]
"""Weighted losses by name; of a prediction, the targets of its task and the number of sides."""


class Criterion:
    """The losses of the tasks panoptic and instance; targets may be finer than the masks.

    The kernel head and stage 0 learn with the assignment that the head's masks give, stage i with
    that of stage i - 1, and the association embedding with that of the last stage.

    Args:
        weights: what each loss counts; a rank loss of weight 0 is left out.
        thing_classes: how many; they are the first class columns.
        background: cells may be of no class (task instance). Then the head's classes are learned
            one by one, by focal loss, as the authors have it there; otherwise one must win.
        total: see `Total`; called once in a step.
        first: the first part that learns; those before it have no losses.
    """

    def __init__(
        self,
        weights: LossWeights,
        thing_classes: int,
        background: bool = False,
        total: Total = torch.clone,
        first: int = 0,
    ) -> None:
        self.weights, self.thing_classes = weights, thing_classes
        self.background, self.total, self.first = background, total, first

    def __call__(
        self, prediction: Prediction, targets: FrameTargets, sides: int
    ) -> dict[str, Tensor]:
        """Weighted losses of sides * B frames, by names such as "key_stage0_dice"."""
        judged = max(self.first - 1, 0)
        masks = part_masks(prediction, targets, judged)
        matches = self.match(prediction, masks, targets, judged)
        assigned = matches[:-1] if self.first else [matches[0], *matches[:-1]]
        if prediction.stages and prediction.stages[-1].remembered is not None:
            # its slots are not those of the stage before
            assigned[-1] = matches[-1]
        masks = masks[-len(assigned) :]
        batch = _Batch(prediction, targets, sides, masks, assigned, self.first)
        counts = _summed(self._counts(batch), self.total)
        found = self._mask_losses(batch, _normalizer(counts, "masks"))
        found |= self._class_losses(batch, _normalizer(counts, "masks")[batch.heads :])
        found |= self._rank_losses(batch, counts)
        if batch.heads:
            found |= self._head_losses(batch, counts)
        named = _by_side(found)
        if sides > 1:
            named |= self._association_losses(prediction.embeddings, matches[-1], targets, sides)
        return named

    def match(
        self,
        prediction: Prediction,
        masks: Sequence[Tensor],
        targets: FrameTargets,
        first: int = 0,
    ) -> list[Match]:
        """The assignment of each part from `first` on, by its `masks` (see `part_masks`) and
        classes."""
        seeds, things = prediction.head.seeds, prediction.embeddings.shape[1]
        # a hot seed goes first, as a sure class does in the stages
        sure = None if seeds is None else seeds.logits[..., None].expand(-1, -1, self.thing_classes)
        classes = [sure, *(stage.class_logits for stage in prediction.stages)][first:]
        parts = [
            (mask[:, :things], None if c is None else c[:, :things, : self.thing_classes])
            for mask, c in zip(masks, classes, strict=True)
        ]
        size = masks[0].shape[-2:]
        segments, valid = _shrink(targets.segments, size), _shrink(targets.valid[:, None], size)
        return match_instances(parts, targets._replace(segments=segments, valid=valid[:, 0]))

    def _counts(self, batch: _Batch) -> dict[str, Tensor]:
        """What losses are means over: masks by part and side, and cells by their goal."""
        targets, sides = batch.targets, batch.sides
        counts = {"masks": batch.sums(torch.ones_like(batch.learned.frames, dtype=torch.float32))}
        if self.background and batch.heads:
            counts["positives"] = (targets.semantic != IGNORE).view(sides, -1).sum(1)
        if self.weights.balance:
            if batch.heads:
                classes = batch.prediction.head.semantic_logits.shape[1]
                counts["semantic"] = _cell_counts(targets.semantic, classes, sides)
            for part, mask in enumerate(batch.masks):
                counts[f"rank{part}"] = _cell_counts(batch.slots[part], mask.shape[1], sides)
        return counts

    def _mask_losses(self, batch: _Batch, counts: Tensor) -> dict[str, Tensor]:
        """Things by mask and dice in all parts, stuff in stages."""
        learned, targets = batch.learned, batch.targets
        chosen = [
            mask[part.frames, part.kernels]
            for mask, part in zip(batch.masks, batch.segments, strict=True)
        ]
        predicted = _resize_logits(torch.cat(chosen)[None], targets.segments.shape[-2:])[0]
        goals, valid = targets.segments[learned.frames, learned.rows], targets.valid[learned.frames]
        of_stuff = (learned.rows < targets.stuff)[:, None, None]
        valid = torch.where(of_stuff, _named(targets)[learned.frames], valid)
        mask = self.weights.mask * batch.sums(losses.mask_loss(predicted, goals, valid)) / counts
        dice = self.weights.dice * batch.sums(losses.dice_loss(predicted, goals, valid)) / counts
        return _by_part("mask", mask, self.first) | _by_part("dice", dice, self.first)

    def _class_losses(self, batch: _Batch, counts: Tensor) -> dict[str, Tensor]:
        """Of stages: thing rows learn thing columns, stuff row j only its own.

        A kernel learns that it is nothing only where that is known; see `_Batch.known`.
        """
        learning = batch.prediction.stages[max(self.first - 1, 0) :]
        logits = torch.stack([_class_logits(stage) for stage in learning])  # [stages,F,N,K]
        things, columns, targets = batch.things, self.thing_classes, batch.targets
        stuff = torch.arange(targets.stuff, device=logits.device) + columns
        columns_of = torch.cat((stuff.expand(len(targets.ids), -1), targets.classes), 1)
        weights = torch.zeros_like(logits[0, 0])
        weights[:things, :columns] = 1
        weights[things:, columns:] = torch.eye(targets.stuff, device=logits.device)
        weights = weights * batch.known()[..., None]
        goals = torch.zeros_like(logits)
        for goal, part in zip(goals, batch.segments[batch.heads :], strict=True):
            goal[part.frames, part.kernels, columns_of[part.frames, part.rows]] = 1
        values = losses.focal_loss(*(x.flatten(0, 1) for x in (logits, goals, weights)))
        values = values.view(len(logits) * batch.sides, -1).sum(1).view_as(counts)
        first = max(self.first, 1)
        return _by_part("class", self.weights.classification * values / counts, first)

    def _rank_losses(self, batch: _Batch, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Kernels compete for cells."""
        found = {}
        for part, (logits, slots) in enumerate(zip(batch.masks, batch.slots, strict=True)):
            weight = self.weights.rank if part < batch.heads else self.weights.stage_rank
            if weight:
                cells = counts.get(f"rank{part}")
                stuff = batch.targets.stuff if part >= batch.heads else 0
                values = _cell_loss(logits, slots, cells, self.weights.balance, batch.sides, stuff)
                found[f"{_part(self.first + part)}_rank"] = weight * values
        return found

    def _head_losses(self, batch: _Batch, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The semantic map by class; centres and seeds of instances where they are learned."""
        head, targets, weights = batch.prediction.head, batch.targets, self.weights
        size = targets.owners.shape[-2:]
        semantic = _resize_logits(head.semantic_logits, size)
        if self.background:
            known = _shrink(targets.valid[:, None], size)[:, 0]
            values = losses.class_map_loss(semantic, targets.semantic, known)
            values = values.view(batch.sides, -1).sum(1) / _normalizer(counts, "positives")
        else:
            cells = counts.get("semantic")
            values = _cell_loss(
                semantic, targets.semantic, cells, weights.balance, batch.sides, targets.stuff
            )
        found = {"head_semantic": weights.semantic * values}
        if head.centers is not None:
            codes, goals = _resize_logits(head.centers, size), position_code(*targets.centers)
            instances = targets.owners - targets.stuff
            values = losses.center_loss(codes, goals, instances, weights.balance)
            found["head_center"] = weights.center * values.view(batch.sides, -1).mean(1)
        if head.seeds is not None:
            heat = head.seeds.heat[:, 0].float()
            known = _shrink(targets.valid[:, None], heat.shape[1:])[:, 0]
            values = losses.heat_loss(heat, targets.heat(*heat.shape[1:]), known)
            found["head_heat"] = weights.heat * values.view(batch.sides, -1).mean(1)
        return found

    def _association_losses(
        self, embeddings: Tensor, match: Match, targets: FrameTargets, sides: int
    ) -> dict[str, Tensor]:
        """Instances of the key frames against those of the reference frames; of longer clips those
        of each frame against those of all older ones, so that what was gone for a while counts."""
        kernels, matched = torch.zeros_like(targets.ids), torch.zeros_like(targets.present)
        kernels[match.frames, match.instances] = match.kernels
        matched[match.frames, match.instances] = True
        columns = kernels[..., None].expand(-1, -1, embeddings.shape[2])
        newer, older = torch.triu_indices(sides, sides, 1, device=embeddings.device)

        def paired(frames: Tensor) -> tuple[Tensor, Tensor]:
            by_side = frames.unflatten(0, (sides, -1))
            return by_side[newer].flatten(0, 1), by_side[older].flatten(0, 1)

        key, reference = paired(embeddings.float().gather(1, columns))  # [pairs*B,G,E] each
        key_ids, reference_ids = paired(targets.ids)
        key_matched, reference_matched = paired(matched)
        present = key_matched[:, :, None] & reference_matched[:, None]
        same = (key_ids[:, :, None] == reference_ids[:, None]) & present
        pairs = key, reference, same, present
        return {
            "track": self.weights.track * losses.track_loss(*pairs).mean(),
            "track_aux": self.weights.track_aux * losses.track_aux_loss(*pairs).mean(),
        }


class SemanticCriterion:
    """Task semantic: cross-entropy over classes, of head, stages and auxiliary head.

    A kernel is a class, so nothing is matched or associated over time: the layers with temporal
    context change masks, and learn by them. Source: the semantic configurations of K-Net (each
    stage 1.0, auxiliary head 0.4).
    """

    def __init__(self, weights: LossWeights, total: Total = torch.clone, first: int = 0) -> None:
        self.weights, self.total, self.first = weights, total, first

    def __call__(
        self, prediction: Prediction, targets: ClassTargets, sides: int
    ) -> dict[str, Tensor]:
        """Weighted losses of sides * B frames, by names such as "key_stage0_semantic"."""
        goals = targets.semantic
        maps = {"head": prediction.head.semantic_logits}
        maps |= {_part(i): s.mask_logits for i, s in enumerate(prediction.stages, start=1)}
        maps = dict(list(maps.items())[self.first :])
        if not self.first and prediction.auxiliary is not None:
            maps["auxiliary"] = prediction.auxiliary
        cells = None
        if self.weights.balance:
            classes = prediction.head.semantic_logits.shape[1]
            cells = self.total(_cell_counts(goals, classes, sides))
        found = {}
        for part, logits in maps.items():
            weight = self.weights.auxiliary if part == "auxiliary" else self.weights.semantic
            values = _cell_loss(
                _resize_logits(logits, goals.shape[1:]), goals, cells, self.weights.balance, sides
            )
            found[f"{part}_semantic"] = weight * values
        return _by_side(found)


class _Segments(NamedTuple):
    """The M kernels of a part that have a mask to learn, and which."""

    frames: Tensor
    kernels: Tensor
    rows: Tensor
    """Of `FrameTargets.segments`."""


class _Batch:
    """What all losses of a step are taken of: one assignment for each part of the network."""

    def __init__(
        self,
        prediction: Prediction,
        targets: FrameTargets,
        sides: int,
        masks: Sequence[Tensor],
        matches: Sequence[Match],
        first: int,
    ) -> None:
        self.prediction, self.targets, self.sides, self.masks = prediction, targets, sides, masks
        self.heads = int(first == 0)
        """How many of the parts are the kernel head; the others are stages."""
        self.things = things = prediction.embeddings.shape[1]
        stuff_frames, stuff = targets.stuff_present.nonzero(as_tuple=True)
        matched = [_Segments(m.frames, m.kernels, targets.stuff + m.instances) for m in matches]
        present = _Segments(stuff_frames, things + stuff, stuff)
        stages = [_concatenated((part, present)) for part in matched[self.heads :]]
        self.segments = [*matched[: self.heads], *stages]
        """Of each part: matched things, and in stages the stuff that is present."""
        self.learned = _concatenated(self.segments)
        """Of all parts."""
        frames_of_a_side = len(targets.ids) // sides
        self._groups = torch.cat(
            [i * sides + part.frames // frames_of_a_side for i, part in enumerate(self.segments)]
        )
        self.slots = self._slots()
        """[parts,F,i,j] the kernel that must win each cell, or `IGNORE`."""

    def sums(self, values: Tensor) -> Tensor:
        """[M] values of `learned` -> [parts,sides] sums."""
        zeros = values.new_zeros(len(self.masks) * self.sides)
        return zeros.index_add(0, self._groups, values).view(-1, self.sides)

    def known(self) -> Tensor:
        """[stages,F,N] bool: the kernel has a segment to learn, or most of its mask lies on
        labelled cells; what one elsewhere should be is unknown."""
        first, things = self.heads, self.things
        size = self.masks[first].shape[-2:]
        valid = torch.stack((self.targets.valid, _named(self.targets)), 1)
        valid = _shrink(valid, size).flatten(2)
        inside = (torch.stack(self.masks[first:]).detach() > 0).flatten(3).float()
        parts = inside.split((things, inside.shape[2] - things), 2)
        balance = [
            torch.einsum("pfnc,fc->pfn", part, labelled - 0.5)
            for part, labelled in zip(parts, valid.unbind(1), strict=True)
        ]
        known = torch.cat(balance, 2) >= 0
        for row, part in zip(known, self.segments[first:], strict=True):
            row[part.frames, part.kernels] = True
        return known

    def _slots(self) -> Tensor:
        owners = self.targets.owners
        rows = self.targets.segments.shape[1]
        slot_of = owners.new_full((len(self.masks), len(owners), rows + 2), IGNORE)
        slot_of[self.heads :, :, rows] = ANY_STUFF  # that of the head has no stuff
        for table, part in zip(slot_of, self.segments, strict=True):
            table[part.frames, part.rows] = part.kernels
        cells = _row_numbers(owners, rows).flatten(1)
        slots = slot_of.gather(2, cells.expand(len(slot_of), -1, -1))
        return slots.view(-1, *owners.shape)


def _named(targets: FrameTargets) -> Tensor:
    """[F,h,w] the part of each cell that is labelled with a class."""
    return targets.valid * (1 - targets.some_stuff)


def _row_numbers(goals: Tensor, number: int) -> Tensor:
    """Goals as numbers from 0 on, after `number` real ones those of `ANY_STUFF` and `IGNORE`."""
    return torch.where(goals >= 0, goals, number + (goals != ANY_STUFF).long())


def _concatenated(parts: Sequence[_Segments]) -> _Segments:
    return _Segments(*(torch.cat(column) for column in zip(*parts, strict=True)))


def part_masks(prediction: Prediction, targets: FrameTargets, first: int = 0) -> list[Tensor]:
    """Mask logits of the head's things [F,P,i,j] and of all stages [F,N,i,j], as owners; of the
    parts from `first` on."""
    size, things = targets.owners.shape[-2:], prediction.embeddings.shape[1]
    parts = [prediction.head.mask_logits[:, :things]]
    parts += [stage.mask_logits for stage in prediction.stages]
    return [_resize_logits(logits, size) for logits in parts[first:]]


def _resize_logits(logits: Tensor, size: torch.Size) -> Tensor:
    """[..,h,w] in float32, stretched to `size`."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    if not logits.numel():
        return logits.new_zeros(*logits.shape[:-2], *size) + logits.sum()
    return interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _shrink(coverage: Tensor, size: torch.Size) -> Tensor:
    """Coverage of cells [F,M,h,w] of a grid as that of the larger cells of another."""
    if coverage.shape[-2:] == size:
        return coverage
    if not coverage.numel():
        return coverage.new_zeros(*coverage.shape[:-2], *size)
    return interpolate(coverage, size=size, mode="area")


def _class_logits(stage: StageOutput) -> Tensor:
    assert stage.class_logits is not None, "a network in training classifies in each stage"
    return stage.class_logits.float()


def _cell_counts(goals: Tensor, number: int, sides: int) -> Tensor:
    """[sides,number+1] how many cells of [F,i,j] have each goal, the last one `ANY_STUFF`."""
    rows = _row_numbers(goals, number).view(sides, -1)
    rows = rows + torch.arange(sides, device=goals.device)[:, None] * (number + 2)
    counts = torch.bincount(rows.flatten(), minlength=sides * (number + 2))
    return counts.view(sides, -1)[:, :-1].float()


def _cell_loss(
    logits: Tensor,
    goals: Tensor,
    counts: Tensor | None,
    balance: float,
    sides: int,
    stuff: int = 0,
) -> Tensor:
    """[sides] mean cross-entropy over cells, balanced by the `counts` [sides,N+1] if there are."""
    weights = None
    if counts is not None:
        weights = losses.balanced(counts, balance).repeat_interleave(len(goals) // sides, 0)
    return losses.cell_loss(logits, goals, weights, stuff).view(sides, -1).mean(1)


def _summed(counts: Mapping[str, Tensor], total: Total) -> dict[str, Tensor]:
    """The counts of all processes, in one exchange, and the number of "processes"."""
    parts = [*counts.values(), next(iter(counts.values())).new_ones(1)]
    sums = total(torch.cat([part.flatten() for part in parts]))
    found = sums.split([part.numel() for part in parts])
    return {
        name: flat.view(part.shape)
        for name, flat, part in zip((*counts, "processes"), found, parts, strict=True)
    }


def _normalizer(counts: Mapping[str, Tensor], name: str) -> Tensor:
    """The mean of a count over the processes, at least 1 in sum.

    The gradients of all processes are averaged. A sum that is divided by this has the same gradient
    as in one process with all frames.
    """
    return counts[name].clamp(min=1) / counts["processes"]


def _part(number: int) -> str:
    return f"stage{number - 1}" if number else "head"


def _by_part(name: str, values: Tensor, first: int = 0) -> dict[str, Tensor]:
    """[parts,sides] by the names of the parts."""
    return {f"{_part(i)}_{name}": row for i, row in enumerate(values.unbind(), start=first)}


def _by_side(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """[sides] each, as those of "key" frames and of the "reference" frames together.

    In clips of T frames each counts 2/T, so that rates and weights are those of pairs.
    """
    named = {}
    for name, sides in values.items():
        scaled = sides * (2 / len(sides)) if len(sides) > 2 else sides
        named[f"key_{name}"] = scaled[0]
        if len(sides) > 1:
            named[f"reference_{name}"] = scaled[1:].sum()
    return named
