"""Slots that keep their objects from frame to frame, and what is remembered of them. Not in the
paper. Shapes as in `kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

_ALIVE_SCORE = 0.2
"""Class score from which on a thing keeps its slot in the next frame."""
_SAME_OVERLAP = 0.3
"""Overlap (IoU) of a remembered mask and a new one which may be of one object."""
_HIDDEN = 16
"""Channels of the layer between features and doubt."""
_SURE = 8.0
"""Largest mask logit that is remembered, and how sure it is that what is not seen is not there."""


class SlotContents(NamedTuple):
    """What the last stage finds for each slot, or what is remembered."""

    kernels: Tensor
    """[B,N,C]"""
    linked: Tensor
    """[B,P,C]"""
    class_logits: Tensor
    """[B,N,K]"""
    mask_logits: Tensor
    """[B,N,h,w]"""


class SlotMemory(NamedTuple):
    """What is remembered of the frame before."""

    slots: SlotContents
    known: Tensor
    """[B,N] bool; thing slots of which nothing is known are free."""


class StickySlots(nn.Module):
    """An object keeps its slot while it is seen, and longer where the image cannot be relied on.

    What a frame shows is found without memory of masks, in the order of its seeds. An object that
    is the same as one of the frame before, by the overlap of their masks, goes to the slot of that
    one, and new objects to free slots. How far the image is in doubt, as where it is blurred, dark
    or covered, is learned as a map. There masks stay as they were, and a slot keeps kernel,
    embedding and classes as far as the place of its mask is in doubt. What is not found where there
    is no doubt is gone.

    Args:
        channels: C.
        inputs: channels of the features, position code included.
        things: P.
    """

    def __init__(self, channels: int, inputs: int, things: int) -> None:
        super().__init__()
        self.channels, self.things = channels, things
        self.local, self.whole = nn.Conv2d(inputs, _HIDDEN, 1), nn.Linear(inputs, _HIDDEN)
        self.last = nn.Conv2d(_HIDDEN, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # at first there is hardly any doubt
        nn.init.constant_(self.last.bias, -3.0)  # type: ignore[arg-type]

    def recall(self, state: Tensor, valid: Tensor, like: Tensor) -> SlotMemory:
        """What `remember` made, with masks as `like` [B,N,h,w]; `valid` as of `PreviousKernels`."""
        cells, channels = like.shape[2] * like.shape[3], self.channels
        classes = state.shape[2] - 2 * channels - cells
        kernels, linked, class_logits, masks = state.split((channels, channels, classes, cells), 2)
        known = (kernels.abs().amax(2) > 0) & valid[:, None]
        masks = masks.to(like.dtype).view_as(like)
        slots = SlotContents(kernels, linked[:, : self.things], class_logits, masks)
        return SlotMemory(slots, known)

    def remember(self, slots: SlotContents) -> Tensor:
        """The state [B,N,2C+K+hw]; rows of things that are no objects are zeros."""
        stuff = slots.kernels.shape[1] - self.things
        scores = self._scores(slots)
        alive = pad((scores >= _ALIVE_SCORE).to(scores.dtype), (0, stuff), value=1.0)
        masks = slots.mask_logits.to(scores.dtype).clamp(-_SURE, _SURE).flatten(2)
        linked = pad(slots.linked, (0, 0, 0, stuff))
        return torch.cat((slots.kernels, linked, slots.class_logits, masks), 2) * alive[..., None]

    def update(
        self, new: SlotContents, memory: SlotMemory, features: Tensor, finer: Tensor | None
    ) -> tuple[SlotContents, Tensor | None]:
        """What a frame shows, in the order of its seeds, together with what is remembered.

        `finer` [B,N,D] are kernels of the detail map, which has no memory, in the same order.
        """
        things, old = self.things, memory.slots
        seed, seen = self._place(new, memory)
        stuff = torch.arange(things, new.kernels.shape[1], device=seed.device)
        rows = torch.cat((seed, stuff.expand(len(seed), -1)), 1)
        seen = pad(seen, (0, len(stuff)), value=True)[..., None]  # [B,N,1]
        doubt = self._doubt(features) * memory.known[..., None, None]  # [B,N,h,w]
        mask = (old.mask_logits > 0).to(doubt.dtype)
        share = ((doubt * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1))[..., None]
        kept = torch.where(seen, share, 1.0)
        classes = torch.where(seen, _rows(new.class_logits, rows), -_SURE)
        masks = torch.where(seen[..., None], _rows(new.mask_logits, rows), -_SURE)
        if finer is not None:
            finer = _rows(finer, rows) * (1 - kept)
        return SlotContents(
            torch.lerp(_rows(new.kernels, rows), old.kernels, kept),
            torch.lerp(_rows(new.linked, seed), old.linked, kept[:, :things]),
            torch.lerp(classes, old.class_logits, share),
            torch.lerp(masks, old.mask_logits, doubt.to(masks.dtype)),
        ), finer

    def _doubt(self, features: Tensor) -> Tensor:
        """Features [B,C',h,w] -> 0..1 [B,1,h,w] float32."""
        wide = features.to(self.local.weight.dtype)
        whole = self.whole(wide.mean((2, 3)))[..., None, None]
        return self.last(relu(self.local(wide) + whole)).sigmoid()

    def _place(self, new: SlotContents, memory: SlotMemory) -> tuple[Tensor, Tensor]:
        """The seed [B,P] of each thing slot, and whether it shows the object of the slot."""
        things = self.things
        carried = memory.known[:, :things]
        same = _same_objects(
            memory.slots.mask_logits[:, :things], new.mask_logits[:, :things], carried
        )
        # free slots get what is no known object, the surest first
        scores = self._scores(new)
        order = (scores - 2 * same.any(1).to(scores.dtype)).topk(things).indices
        rank = (torch.where(carried, 0, 1).cumsum(1) - 1).clamp(min=0)
        found = same.any(2)
        seed = torch.where(found, same.to(torch.float32).argmax(2), order.gather(1, rank))
        return seed, found | ~carried

    def _scores(self, slots: SlotContents) -> Tensor:
        """[B,P] class scores of things."""
        stuff = slots.kernels.shape[1] - self.things
        columns = slots.class_logits.shape[2] - stuff
        return slots.class_logits[:, : self.things, :columns].amax(2).sigmoid()


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """[B,N,...] in the order of `rows` [B,M]."""
    flat = x.flatten(2)
    taken = flat.gather(1, rows[..., None].expand(-1, -1, flat.shape[2]))
    return taken.unflatten(2, x.shape[2:])


def _same_objects(remembered: Tensor, new: Tensor, carried: Tensor) -> Tensor:
    """Which new mask [B,P slots,P seeds] is of the object of a slot, of masks [B,P,h,w]: the two
    overlap most with each other."""
    slots = ((remembered > 0).flatten(2) & carried[..., None]).to(torch.float32)
    others = (new > 0).flatten(2).to(torch.float32)
    inter = slots @ others.transpose(1, 2)
    union = slots.sum(2)[:, :, None] + others.sum(2)[:, None] - inter
    overlap = inter / union.clamp(min=1)
    best = (overlap == overlap.amax(1, True)) & (overlap == overlap.amax(2, True))
    return best & (overlap > _SAME_OVERLAP)
